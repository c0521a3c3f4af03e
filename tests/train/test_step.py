"""The step against a hand-written loop, itself on other meshes, and its own promises."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toys import X, batch_of, gan_plan, mlp, mlp_init, regression_plan

from jaxgen import averaging
from jaxgen.common import mesh as meshes
from jaxgen.common import rng, trees
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.optim import adam
from jaxgen.train.plan import Aux, Context, Phase, Plan, Player

KEY = jax.random.key(7)


def run(plan, n, batch=16, devices=1, fsdp=1, microbatches=1, seed=0):
    mesh = meshes.make_mesh(-1, fsdp, devices=jax.devices()[:devices])
    state = states.create(plan, seed, mesh)
    step = steps.jit_step(plan, state, batch=batch, mesh=mesh, microbatches=microbatches)
    frozen = steps.put_frozen(plan, mesh)
    history = []
    for i in range(n):
        state, metrics = step(state, meshes.put_batch(batch_of(i, batch), mesh), frozen, KEY)
        history.append(jax.device_get(metrics))
    return jax.device_get(dataclasses.replace(state)), history


def assert_equal(a, b):
    a, b = trees.leaves(a), trees.leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def assert_close(a, b, rtol=1e-5, atol=1e-6):
    a, b = trees.leaves(a), trees.leaves(b)
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=rtol, atol=atol, err_msg=name)


def test_four_phases_equal_a_hand_written_loop_to_the_last_bit():
    plan, batch, n = gan_plan(), 16, 40
    got, _ = run(plan, n, batch)

    params = states.init_params(plan, 0)
    tx = {name: p.optimizer for name, p in plan.players.items()}
    opt = {name: tx[name].init(params[name]) for name in params}
    stats = dict(plan.stats)
    averages = {a: dict(params) for a in plan.averages}

    def update(phase):
        def go(params, opt, stats, data, step, averages):
            key = steps.phase_key(KEY, step, phase.name)
            nimg = step.astype(jnp.float32) * batch
            (name,) = phase.trains

            def mean_loss(p):
                context = Context(step, nimg, jax.random.fold_in(key, 0), stats, {}, averages)
                each, aux = phase.loss(
                    {**params, name: p}, data, rng.image_keys(key, batch), context
                )
                return each.mean(), aux.stats

            grads, new = jax.grad(mean_loss, has_aux=True)(params[name])
            updates, opt_state = tx[name].update(grads, opt[name], params[name], nimg=nimg)
            return optax.apply_updates(params[name], updates), opt_state, {**stats, **new}

        return jax.jit(go)

    updates = [update(p) for p in plan.phases]

    @jax.jit
    def average(averages, params, step):
        nimg = (step + 1).astype(jnp.float32) * batch
        return {
            a: {
                n: averaging.update(averages[a][n], params[n], t.weight(nimg, batch))
                for n in params
            }
            for a, t in plan.averages.items()
        }

    for step in range(n):
        for phase, go in zip(plan.phases, updates):
            if step % phase.every == 0:
                (name,) = phase.trains
                params[name], opt[name], stats = go(
                    params, opt, stats, batch_of(step, batch), jnp.int32(step), averages
                )
        averages = average(averages, params, jnp.int32(step))
    assert_equal(got.params, params)
    assert_equal(got.opt, opt)
    assert_equal(got.stats, stats)
    assert_equal(got.averages, averages)


def test_programs_chosen_on_the_host_equal_the_pure_function():
    plan, n = gan_plan(), 9
    assert sorted({p.every for p in plan.phases})[-1] > 1
    got, history = run(plan, n)
    state = states.create(plan, 0, meshes.make_mesh(devices=jax.devices()[:1]))
    step = jax.jit(steps.make_step(plan, batch=16))
    for i in range(n):
        state, metrics = step(state, batch_of(i, 16), {}, KEY)
        assert_close(history[i], jax.device_get(metrics))
    assert_close(got.params, jax.device_get(state.params))
    assert_close(got.averages, jax.device_get(state.averages))


@pytest.mark.parametrize("devices, fsdp", [(2, 1), (8, 1), (8, 4)])
def test_the_same_on_other_meshes(devices, fsdp):
    want, history = run(gan_plan(), 5)
    got, other = run(gan_plan(), 5, devices=devices, fsdp=fsdp)
    assert_close(got.params, want.params)
    assert_close(got.averages, want.averages)
    for a, b in zip(history, other):
        assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_image_randomness_does_not_depend_on_the_mesh():
    """The noise of every image is bit-identical on 1 and 8 devices and in microbatches."""

    def loss(params, batch, key, context):
        return mlp(params["net"], batch["image"])[:, 0], Aux({}, {"noise": rng.normal(key, (3,))})

    plan = dataclasses.replace(regression_plan(loss), stats={"noise": jnp.zeros((16, 3))})
    one, eight = run(plan, 2)[0], run(plan, 2, devices=8)[0]
    np.testing.assert_array_equal(one.stats["noise"], eight.stats["noise"])
    plan = dataclasses.replace(plan, stats={"noise": jnp.zeros((8, 3))})
    half = run(plan, 2, microbatches=2)[0]  # the last part holds rows 1, 3, 5, ...
    np.testing.assert_array_equal(one.stats["noise"][1::2], half.stats["noise"])


@pytest.mark.parametrize("microbatches", [2, 4])
def test_microbatches_give_the_same_update(microbatches):
    want, _ = run(regression_plan(), 3)
    got, _ = run(regression_plan(), 3, microbatches=microbatches)
    assert_close(got.params, want.params)


def test_a_non_finite_gradient_is_skipped_and_counted():
    def loss(params, batch, key, context):
        each = mlp(params["net"], batch["image"])[:, 0] ** 2
        bad = (context.step == 1) | (context.step == 2)
        return each * jnp.where(bad, jnp.nan, 1.0), Aux({}, {"seen": context.step})

    plan = dataclasses.replace(regression_plan(loss), stats={"seen": jnp.int32(-1)})
    before, _ = run(plan, 1)
    after, history = run(plan, 3)
    assert_equal(after.params, before.params)
    assert_equal(after.opt, before.opt)
    assert after.stats["seen"] == 0
    assert {k: int(v) for k, v in after.guard["fit"].items()} == {
        "total": 2,
        "in_a_row": 2,
        "longest": 2,
    }
    assert np.isnan(history[2]["fit/loss"]) and history[2]["fit/skipped"] == 2
    recovered, _ = run(plan, 4)
    assert int(recovered.guard["fit"]["in_a_row"]) == 0
    assert int(recovered.guard["fit"]["longest"]) == 2


def test_state_is_donated_and_keeps_its_shardings():
    plan = gan_plan()
    mesh = meshes.make_mesh(2, 4)
    state = states.create(plan, 0, mesh)
    step = steps.jit_step(plan, state, batch=16, mesh=mesh)
    new, _ = step(state, meshes.put_batch(batch_of(0, 16), mesh), {}, KEY)
    assert all(x.is_deleted() for x in jax.tree.leaves(state.params))
    assert jax.tree.map(lambda x: x.sharding, new) == jax.tree.map(
        lambda x: x.sharding, states.abstract(plan, mesh)
    )


def test_fsdp_splits_large_leaves_of_params_optimizer_and_averages():
    plan = Plan(
        {"net": Player(mlp_init((64, 128, 1)), adam(1e-2))},
        [Phase("fit", ("net",), lambda p, b, k, c: (mlp(p["net"], b["image"])[:, 0], Aux()))],
        averages=averaging.tracks(power=(0.1,)),
    )
    found = trees.leaves(states.abstract(plan, meshes.make_mesh(1, 8)))
    big = [n for n, x in found.items() if x.shape == (64, 128)]
    assert len(big) == 4, big  # params, mu, nu, one average
    for name in big:
        assert tuple(found[name].sharding.spec) == ("fsdp",), name


def test_fixed_leaves_stay_and_are_copied():
    def init(key):
        return {**mlp_init((X, 16, 1))(key), "freqs": jnp.arange(3.0)}

    def loss(params, batch, key, context):
        net = {k: v for k, v in params["net"].items() if k != "freqs"}
        return mlp(net, batch["image"])[:, 0] ** 2 + params["net"]["freqs"].sum(), Aux()

    plan = regression_plan(loss)
    plan = dataclasses.replace(
        plan, players={"net": Player(init, optax.adamw(1e-2), fixed=(r"freqs$",))}
    )
    state, _ = run(plan, 3)
    np.testing.assert_array_equal(state.params["net"]["freqs"], np.arange(3))
    np.testing.assert_array_equal(state.averages["power_0.100"]["net"]["freqs"], np.arange(3))
    assert not [n for n in trees.leaves(state.opt) if "freqs" in n]


def test_projection_follows_every_update():
    unit = lambda p: jax.tree.map(lambda x: x / (jnp.linalg.norm(x) + 1e-12), p)
    state, _ = run(regression_plan(project=unit), 3)
    assert np.linalg.norm(state.params["net"]["layer0"]["w"]) == pytest.approx(1, abs=1e-6)


def test_schedules_count_images():
    rate = lambda nimg: 1e-3 * (1 + nimg)
    _, history = run(regression_plan(optimizer=adam(rate)), 3)
    got = [float(h["learning_rate/net"]) for h in history]
    np.testing.assert_allclose(got, [1e-3, 1e-3 * 17, 1e-3 * 33], rtol=1e-6)


def test_controllers_and_frozen_weights():
    """A controller changes stats in the step; frozen trees reach the loss as arguments."""

    def loss(params, batch, key, context):
        target = mlp(context.frozen["teacher"], batch["image"])[:, 0]
        return (mlp(params["net"], batch["image"])[:, 0] - target) ** 2, Aux()

    plan = dataclasses.replace(
        regression_plan(loss),
        frozen={"teacher": mlp_init((X, 16, 1))(jax.random.key(5))},
        stats={"p": jnp.float32(0.5)},
        controllers=(
            lambda stats, metrics: {**stats, "p": stats["p"] + metrics["fit/loss"] * 0 + 1},
        ),
    )
    state, history = run(plan, 30)
    assert state.stats["p"] == 30.5
    assert history[-1]["fit/loss"] < history[0]["fit/loss"]


def test_wrong_losses_are_explained():
    mean = regression_plan(lambda p, b, k, c: (jnp.float32(1.0), Aux()))
    with pytest.raises(
        ValueError, match=r"phase 'fit' must return one value an example, shape \(16"
    ):
        run(mean, 1)
    stats = regression_plan(lambda p, b, k, c: (b["image"][:, 0], Aux({}, {"x": 1.0})))
    with pytest.raises(ValueError, match=r"reports stats \['x'\] that the plan does not hold"):
        run(stats, 1)


def test_wrong_plans_and_batches_are_explained():
    with pytest.raises(
        ValueError, match=r"config\.batch must be a multiple of devices x microbatches"
    ):
        run(regression_plan(), 1, batch=12, devices=8)
    with pytest.raises(ValueError, match=r"phase 'a' trains \['b'\], but the players are"):
        Plan({"net": None}, [Phase("a", ("b",), None)])
    with pytest.raises(ValueError, match=r"mesh.data x .* must be the number of devices"):
        meshes.make_mesh(3, 2)

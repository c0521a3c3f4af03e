"""Tracked statistics: leaves that a loss sets by `Aux.fixed`, from the step to files and back."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_step import run
from toy_runs import train
from toys import X, batch_of, gan_plan, mlp, mlp_init, regression_plan

from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.train import snapshot, store
from jaxgen.train import state as states
from jaxgen.train.optim import adam
from jaxgen.train.plan import Aux, Phase, Plan, Player

DECAY = 0.9


def init(key):
    return {**mlp_init((X, 16, 1))(key), "norm": {"mean": jnp.zeros(X)}}


def loss(params, batch, key, context):
    """A regression on whitened images, whose running mean is tracked."""
    del key, context
    net, x = dict(params["net"]), batch["image"]
    mean = net.pop("norm")["mean"]
    error = mlp(net, x - jax.lax.stop_gradient(mean))[:, 0] - x.sum(-1)
    new = mean + (1 - DECAY) * (x.mean(0) - mean)
    return error**2, Aux({}, fixed={"net": {"norm": {"mean": new}}})


def plan_of(loss=loss, **changes):
    player = Player(init, adam(1e-2), fixed=(r"norm/mean$",))
    return dataclasses.replace(regression_plan(loss), players={"net": player}, **changes)


def mean_after(steps, batch=16):
    mean = np.zeros(X)
    for i in range(steps):
        mean += (1 - DECAY) * (np.asarray(batch_of(i, batch)["image"]).mean(0) - mean)
    return mean


def test_values_are_put_back_and_copied():
    """The leaf follows its own recursion; averages hold copies, the optimizer nothing of it."""
    state, _ = run(plan_of(), 3)
    got = state.params["net"]["norm"]["mean"]
    np.testing.assert_allclose(got, mean_after(3), rtol=1e-5)
    np.testing.assert_array_equal(state.averages["power_0.100"]["net"]["norm"]["mean"], got)
    assert not [n for n in trees.leaves(state.opt) if "norm" in n]


def test_microbatches_report_the_mean_of_their_parts():
    whole, parts = run(plan_of(), 3)[0], run(plan_of(), 3, microbatches=2)[0]
    for name, x in trees.leaves(whole.params).items():
        np.testing.assert_allclose(trees.leaves(parts.params)[name], x, rtol=1e-5, atol=1e-6)


def test_a_skipped_update_leaves_the_values():
    """Step 1 is not finite; a phase that is not due sets nothing either."""

    def broken(params, batch, key, context):
        each, aux = loss(params, batch, key, context)
        return each * jnp.where(context.step == 1, jnp.nan, 1.0), aux

    lazy = plan_of(phases=[Phase("fit", ("net",), broken, every=3)])
    for plan in (plan_of(broken), lazy):
        one, two = (run(plan, n)[0].params["net"]["norm"]["mean"] for n in (1, 2))
        np.testing.assert_array_equal(two, one)
        np.testing.assert_allclose(one, mean_after(1), rtol=1e-5)


def test_values_survive_checkpoints_and_snapshots(tmp_path):
    """A run in two halves ends as one; a snapshot's leaf is that of the weights, not a mean."""
    whole, _ = train(tmp_path / "whole", 640, plan_of())
    train(tmp_path / "half", 320, plan_of())
    resumed, _ = train(tmp_path / "half", 640, plan_of())
    for name, x in trees.leaves(whole.params).items():
        np.testing.assert_array_equal(trees.leaves(resumed.params)[name], x, err_msg=name)
    target = states.abstract(plan_of(), meshes.make_mesh(devices=jax.devices()[:1])).params
    with store.Store(tmp_path / "half" / "snapshots") as s:
        found = snapshot.load(s, plan_of(), target, "power_0.100").params["net"]
    np.testing.assert_array_equal(found["norm"]["mean"], whole.params["net"]["norm"]["mean"])
    assert not np.array_equal(found["layer0"]["w"], whole.params["net"]["layer0"]["w"])


@pytest.mark.parametrize(
    "fixed, message",
    [
        ({"net": {"layer0": {"b": jnp.zeros(16)}}},
         r"phase 'fit' sets the leaf 'layer0/b' of 'net', which is not one of its fixed leaves "
         r"\['norm/mean'\]; name it in Player\(fixed=\.\.\.\)"),
        ({"net": {"norm": {"var": jnp.zeros(X)}}}, r"sets the leaf 'norm/var' of 'net', which is"),
        ({"net": {"norm": {"mean": jnp.zeros(3)}}},
         r"sets the leaf 'norm/mean' of 'net' to shape \(3,\), expected \(6,\)"),
    ],
)  # fmt: skip
def test_other_leaves_are_refused(fixed, message):
    wrong = lambda p, b, k, c: (loss(p, b, k, c)[0], Aux(fixed=fixed))
    with pytest.raises(ValueError, match=message):
        run(plan_of(wrong), 1)


def test_another_phases_player_is_refused():
    gen, *rest = gan_plan().phases

    def wrong(params, batch, key, context):
        each, _ = gen.loss(params, batch, key, context)
        return each, Aux(fixed={"discriminator": {"layer0": {"b": jnp.zeros(16)}}})

    plan = gan_plan()
    plan = Plan(plan.players, [dataclasses.replace(gen, loss=wrong), *rest], stats=plan.stats)
    text = r"phase 'gen' sets \['layer0/b'\] of 'discriminator', but trains \['generator'\]; let a"
    with pytest.raises(ValueError, match=text):
        run(plan, 1)

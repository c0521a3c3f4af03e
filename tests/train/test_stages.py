"""Stages: what is carried over, what is fresh, exact resumes, one compilation each."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from toy_runs import train
from toys import X

from jaxgen import averaging
from jaxgen.averaging.power import Power, gamma
from jaxgen.common import mesh as meshes
from jaxgen.common import rng, trees
from jaxgen.train import loop, snapshot, stages, store
from jaxgen.train import state as states
from jaxgen.train.optim import adam
from jaxgen.train.plan import Aux, Phase, Plan, Player

H = 8
SHAPES = {"first": (X, H), "grown": (H, H), "out": (H, 1)}
RATE = 1e-2


def plan(*layers, fade=160.0, start=320, kind=stages.by_leaf):
    """Regression by `layers`; "grown" is added to what there was by an alpha that rises."""

    def init(key):
        draw = lambda n: jax.random.normal(rng.fold(key, n), SHAPES[n]) / SHAPES[n][0] ** 0.5
        return {n: {"w": draw(n), "b": jnp.zeros(SHAPES[n][1:])} for n in layers}

    def loss(params, batch, key, context):
        net = params["net"]
        layer = lambda n, x: x @ net[n]["w"] + net[n]["b"]
        x = jnp.tanh(layer("first", batch["image"]))
        alpha = jnp.clip((context.nimg - start) / fade, 0, 1)
        if "grown" in layers:
            x = x + alpha * jnp.tanh(layer("grown", x))
        error = layer("out", x)[:, 0] - batch["image"].sum(-1) + 0.1 * rng.normal(key, ())
        seen = context.stats["seen"] + 1
        return jnp.square(error), Aux({"alpha": alpha}, {"seen": seen})

    return Plan(
        players={"net": Player(init, kind(adam(RATE, 0.0, 0.99)))},
        phases=[Phase("fit", ("net",), loss)],
        stats={"seen": jnp.zeros(())},
        averages=averaging.tracks(power=(0.05, 0.1), halflife=100.0),
    )


SMALL, LARGE = plan("first", "out"), plan("first", "grown", "out")


def test_a_resumed_run_is_the_same_across_stages(tmp_path):
    run = lambda folder, ends, snapshot, **k: train(
        tmp_path / folder,
        stages=stages.grow([SMALL, LARGE][: len(ends)], ends),
        every=loop.Every(log=160, checkpoint=0, snapshot=snapshot),
        **k,
    )
    lines = []
    whole, nimg = run("whole", [320, 640], 160, lines=lines)
    assert nimg == 640 and sum(line.startswith("compiled") for line in lines) == 2
    for ends in ([320], [320, 640]):  # stopped at the seam; for one within a stage see test_loop.py
        resumed, _ = run("parts", ends, 0)
    for name, x in trees.leaves(whole).items():
        np.testing.assert_array_equal(x, trees.leaves(resumed)[name], err_msg=name)
    # All counts of steps went on, but those of parameters that were new.
    opt = whole.opt["net"]
    assert int(whole.step) == 40 and float(whole.stats["seen"]) == 40
    assert [int(opt[n]["w"][0].count) for n in ("first", "grown", "out")] == [40, 20, 40]
    # Post-hoc averages are made from the snapshots of the last stage.
    target = states.abstract(LARGE, meshes.make_mesh(devices=jax.devices()[:1])).params
    with store.Store(tmp_path / "whole" / "snapshots") as kept:
        assert kept.numbers() == [160, 320, 480, 640]
        assert snapshot.load(kept, LARGE, target, 0.07).facts["snapshots"] == 2


@pytest.fixture(scope="module")
def grown():
    """A state with no two equal numbers in it, and what becomes of it in the next stage."""
    mesh = meshes.make_mesh(4, 2)
    old = states.create(SMALL, 1, mesh)
    mark = lambda n, x: x + jnp.asarray(sum(map(ord, n)) % 97 + 1, x.dtype)
    old = trees.map_named(lambda n, x: jax.device_put(mark(n, x), x.sharding), old)
    enter = lambda p, **k: stages.carry(p, **k)(old, jax.random.key(5))
    return old, enter(LARGE), enter(LARGE, keep_optimizer=False), mesh


def test_what_is_carried_and_what_is_fresh(grown):
    old, new, _, mesh = grown
    old, found = trees.leaves(old), trees.leaves(new)
    fresh = {n: x for n, x in found.items() if "grown" in n}
    assert set(found) == set(old) | set(fresh) and len(fresh) == 2 * (1 + 4 + 3)
    for name, x in old.items():  # step, params, moments, counts, averages, stats, guard
        np.testing.assert_array_equal(x, found[name], err_msg=name)
    start = LARGE.players["net"].init(rng.fold(jax.random.key(5), "init", "net"))["grown"]
    for name, x in fresh.items():
        want = 0 if name.startswith("opt/") else start[name[-1]]
        np.testing.assert_array_equal(x, jnp.broadcast_to(want, x.shape), err_msg=name)
    for x, want in zip(jax.tree.leaves(new), jax.tree.leaves(states.abstract(LARGE, mesh))):
        assert x.sharding == want.sharding


def test_optimizers_can_begin_afresh(grown):
    new, fresh = trees.leaves(grown[1]), trees.leaves(grown[2])
    for name, x in fresh.items():
        np.testing.assert_array_equal(x, 0 if name.startswith("opt/") else new[name])


def test_each_parameter_counts_its_own_steps():
    """By leaf, Adam's numbers are the same; and the first step of a new parameter is the rate.

    With one count for all, that step is (1 - b2)^-1/2 times as large.
    """
    params, rates = {"a": jnp.ones((3,)), "b": jnp.full((2,), 2.0)}, adam(RATE, 0.0, 0.99)

    @partial(jax.jit, static_argnums=0)
    def walk(chain, steps_of_a):
        """Params after 3 steps, and the first of them where b is new and a is not."""
        p, state = params, chain.init(params)
        counted = lambda n, x: x + steps_of_a if n in ("a/0/count", "0/count") else x
        first, _ = chain.update(p, trees.map_named(counted, state), p, nimg=jnp.float32(0))
        for i in range(3):
            grads = jax.tree.map(lambda x: (i + 1.0) * x, p)  # noqa: B023
            updates, state = chain.update(grads, state, p, nimg=jnp.float32(0))
            p = optax.apply_updates(p, updates)
        return p, jnp.abs(first["b"]), state

    each, alike = walk(stages.by_leaf(rates), 5000), walk(rates, 5000)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), each[0], alike[0])
    np.testing.assert_allclose(each[1], RATE, rtol=1e-4)
    np.testing.assert_allclose(alike[1], 10 * RATE, rtol=1e-4)
    # Of two leaves one is fixed: it has no state.
    fixed = states.optimizer(Player(None, stages.by_leaf(rates), fixed=("b",)))
    assert len(jax.tree.leaves(jax.eval_shape(fixed.init, params))) == 4
    shapes = jax.eval_shape(
        lambda p: fixed.update(p, fixed.init(p), p, nimg=jnp.float32(0)), params
    )
    assert jax.tree.structure(shapes[0]) == jax.tree.structure(params)


def test_the_average_of_a_new_parameter_forgets_its_start_as_a_power():
    tracker, batch = Power(0.1), 16
    nimg = np.arange(320 + batch, 3200 + 1, batch)
    left = np.prod(1 - np.asarray(tracker.weight(jnp.asarray(nimg, jnp.float32), batch), "f8"))
    np.testing.assert_allclose(left, (320 / 3200) ** (gamma(0.1) + 1), rtol=1e-3)


def test_errors():
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    stranger = plan("grown", kind=lambda chain: chain)
    with pytest.raises(ValueError, match="no parameter of 'net' has the name and shape"):
        stages.carry(stranger)(states.create(SMALL, 1, mesh), jax.random.key(0))
    for ends in ([320], [640, 320], [320, 320]):
        with pytest.raises(ValueError, match="as many ends as plans, in rising order; got 2 plans"):
            stages.grow([SMALL, LARGE], ends)

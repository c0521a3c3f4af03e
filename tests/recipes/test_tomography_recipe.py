"""The tomography recipe: training on scans lowers the loss; scans belong to objects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.tomography import helical, phantoms
from jaxgen.common import rng
from jaxgen.data.sources import load
from jaxgen.recipes import tomography


def _setup(module, arg="debug"):
    config = module.get_config(arg)
    source = load(config.data.source)
    plan = tomography.build(config, source.facts)
    params = {n: p.init(jax.random.key(0)) for n, p in plan.players.items()}
    images = np.stack([source[i]["image"] for i in range(8)])
    return plan, params, {"image": jnp.asarray(images), "index": jnp.arange(8)}


def _train(plan, params, batch, steps):
    """Losses of as many steps on one batch, with one split."""
    optimizer = plan.players["restorer"].optimizer
    keys = rng.image_keys(jax.random.key(5), 8)

    def step(carry, _):
        p, state = carry
        run = lambda q: plan.phases[0].loss({"restorer": q}, batch, keys, None)[0].mean()
        value, slope = jax.value_and_grad(run)(p)
        update, state = optimizer.update(slope, state, p, nimg=jnp.float32(0))
        return (jax.tree.map(jnp.add, p, update), state), value

    p = params["restorer"]
    return jax.jit(lambda p: jax.lax.scan(step, (p, optimizer.init(p)), None, steps)[1])(p)


@pytest.mark.parametrize("module", [phantoms, helical])
def test_a_few_steps_lower_the_loss(module):
    losses = np.asarray(_train(*_setup(module), 8))
    assert np.isfinite(losses).all() and losses[-1] < 0.97 * losses[0]


def test_an_object_has_one_scan():
    """The same noise in any batch and step; another object has another."""
    plan, params, batch = _setup(phantoms, "debug,supervised")
    loss = jax.jit(lambda b, k: plan.phases[0].loss(params, b, k, None)[0])
    first, second = (rng.image_keys(jax.random.key(i), 8) for i in range(2))
    whole = loss(batch, first)
    np.testing.assert_array_equal(whole, loss(batch, second))
    turned = {k: v[::-1] for k, v in batch.items()}
    np.testing.assert_allclose(loss(turned, first), whole[::-1], rtol=1e-5)
    other = loss({**batch, "index": batch["index"] + 8}, first)
    assert float(jnp.abs(other / whole - 1).min()) > 1e-4


def test_samples_and_restorer():
    plan, params, batch = _setup(phantoms)
    assert plan.evals == ("psnr",) and plan.sample.needs == ("image",)
    keys = rng.seed_keys(0, jnp.arange(8))
    out = jax.jit(plan.sample.fn)(params, keys, {"image": batch["image"]}, {})
    assert {k: v.shape for k, v in out.items()} == dict.fromkeys(
        ("image", "input", "target"), (8, 16, 16, 1)
    )
    restore = plan.exports["restore"].fn(params, {})
    assert restore(out["input"][:1]).shape == (1, 16, 16, 1)
    with pytest.raises(ValueError, match="a reconstruction has no noise level; leave it out"):
        restore(out["input"], jnp.ones(8))


def _changed(**changes):
    config = phantoms.get_config("debug")
    config.update(changes)
    return config


@pytest.mark.parametrize(
    "changes,shape,text",
    [
        (
            {"noise": {"angels": 8}},
            (8, 8, 1),
            "'parallel_beam' has no setting 'angels'.*did you mean 'angles'",
        ),
        ({"noise": {"size": 8}}, (8, 8, 1), r"data's shape gives \['size'\]; leave them out"),
        ({"noise": {"name": "parallel"}}, (8, 8, 1), "did you mean 'parallel_beam'"),
        ({"loss": {"method": "noise2noise"}}, (8, 8, 1), "did you mean 'noise2inverse'"),
        ({"model": {"network": "unet"}}, (8, 8, 1), "config.model.network is 'unet'"),
        ({"loss": {"parts": 9}}, (8, 8, 1), "8 views can be split into 2 to 8 parts, got 9"),
        ({}, (8, 9, 1), "square images or slices, got 8x9"),
    ],
)
def test_errors(changes, shape, text):
    with pytest.raises(ValueError, match=text):
        tomography.build(_changed(**changes), {"shape": shape})

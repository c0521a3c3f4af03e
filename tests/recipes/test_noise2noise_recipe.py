"""The Noise2Noise recipe: loss, schedule, samples, targets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.noise2noise import digits, fashion_mnist
from jaxgen.common import rng
from jaxgen.recipes import noise2noise

DIGITS = {"shape": (8, 8, 1), "label_dim": 10, "label_kind": "class", "name": "digits", "length": 9}


def _build(config, facts=DIGITS):
    plan = noise2noise.build(config, facts)
    return plan, {n: p.init(jax.random.key(0)) for n, p in plan.players.items()}


def test_loss_and_gradient():
    batch = {"image": jnp.full((4, 8, 8, 1), 128, jnp.uint8), "label": jnp.arange(4)}
    keys = rng.image_keys(jax.random.key(5), 4)
    values = {}
    for arg in ("debug", "debug,clean"):
        plan, params = _build(digits.get_config(arg))
        f = lambda p: plan.phases[0].loss(p, batch, keys, None)[0]  # noqa: B023
        values[arg] = jax.jit(f)(params)
        grads = jax.jit(jax.grad(lambda p: f(p).mean()))(params)  # noqa: B023
        assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(grads))
        assert float(jnp.abs(grads["restorer"]["enc_conv0"]["w"]).sum()) > 0
    assert values["debug"].shape == (4,)
    assert float(jnp.abs(values["debug"] - values["debug,clean"]).max()) > 1e-4


def test_samples_of_28x28():
    facts = {**DIGITS, "shape": (28, 28, 1)}
    plan, params = _build(fashion_mnist.get_config("debug"), facts)
    assert plan.sample.needs == ("image",) and plan.evals == ("psnr",)
    batch = {"image": jnp.full((3, 28, 28, 1), 200, jnp.uint8)}
    out = jax.jit(plan.sample.fn)(params, rng.seed_keys(0, jnp.arange(3)), batch, {})
    assert {k: v.shape for k, v in out.items()} == dict.fromkeys(
        ("image", "input", "target"), (3, 28, 28, 1)
    )
    noise = np.asarray(out["input"] - out["target"])
    np.testing.assert_allclose(noise.std() * 127.5, 25, rtol=0.1)


def test_rate_falls_at_the_end():
    rate = noise2noise.rampdown(1e-3, 1000, 0.3)
    found = [float(rate(jnp.float32(n))) for n in (0, 700, 850, 1000, 2000)]
    np.testing.assert_allclose(found, [1e-3, 1e-3, 0.25e-3, 0, 0], atol=1e-9)


def test_unknown_target():
    config = digits.get_config("debug")
    config.loss.target = "blind"
    with pytest.raises(ValueError, match=r"must be one of \['clean', 'noisy'\], got 'blind'"):
        noise2noise.build(config, DIGITS)

"""The denoise recipe: losses, crops, schedule, samples, restoring, settings that do not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs.noise2noise import digits, fashion_mnist
from jaxgen import recipes
from jaxgen.common import rng
from jaxgen.recipes import denoise
from jaxgen.recipes.denoise_methods import Setup

DIGITS = {"shape": (8, 8, 1), "label_dim": 10, "label_kind": "class", "name": "digits", "length": 9}


def _build(config, facts=DIGITS):
    plan = denoise.build(config, facts)
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


def test_rate_rises_and_falls():
    rate = denoise.ramps(1e-3, 1000, 0.0, 0.3)
    found = [float(rate(jnp.float32(n))) for n in (0, 700, 850, 1000, 2000)]
    np.testing.assert_allclose(found, [1e-3, 1e-3, 0.25e-3, 0, 0], atol=1e-9)
    rate = denoise.ramps(1e-3, 1000, 0.1, 0.0)
    found = [float(rate(jnp.float32(n))) for n in (0, 50, 100, 1000, 2000)]
    np.testing.assert_allclose(found, [0, 0.5e-3, 1e-3, 1e-3, 1e-3], atol=1e-9)


def test_crops_depend_on_the_key_alone_and_reach_every_place():
    config = digits.get_config("debug")
    config.data.crop = 6
    setup = Setup.of(config, DIGITS)
    x = jnp.broadcast_to(jnp.arange(64.0).reshape(1, 8, 8, 1), (64, 8, 8, 1))
    keys = rng.image_keys(jax.random.key(1), 64)
    crops = np.asarray(jax.jit(setup.crop)(keys, x))
    assert crops.shape == (64, 6, 6, 1)
    corners = crops[:, 0, 0, 0]
    assert set(corners) == {8.0 * i + j for i in range(3) for j in range(3)}
    np.testing.assert_array_equal(crops[5] - corners[5], crops[0] - corners[0])
    np.testing.assert_array_equal(setup.crop(keys[9:10], x[9:10])[0], crops[9])
    config.data.crop = 9
    with pytest.raises(ValueError, match="crop is 9, larger than the images of 8x8"):
        denoise.build(config, DIGITS)


def test_restoring_is_what_sampling_does():
    plan, params = _build(digits.get_config("debug"))
    restore = plan.exports["restore"].fn(params, {})
    batch = {"image": jnp.full((2, 8, 8, 1), 200, jnp.uint8)}
    out = plan.sample.fn(params, rng.seed_keys(0, jnp.arange(2)), batch, {})
    np.testing.assert_allclose(restore(out["input"]), out["image"], atol=1e-6)
    with pytest.raises(ValueError, match="'noise2noise' does not use the noise level"):
        restore(out["input"], jnp.full((2,), 25.0))


def test_settings_that_do_not_fit():
    for path, value, message in (
        ("loss.method", "noise2nois", "method is 'noise2nois', known are .*mean 'noise2noise'"),
        ("model.network", "n2n_net", "network is 'n2n_net', known are .*mean 'n2n_unet'"),
    ):
        config = digits.get_config("debug")
        config.update_from_flattened_dict({path: value})
        with pytest.raises(ValueError, match=message):
            denoise.build(config, DIGITS)
    config = digits.get_config("debug")
    config.model.width = 3
    with pytest.raises(ValueError, match=r"n2n_unet takes no \['width'\], but \['depth'"):
        denoise.build(config, DIGITS)


def test_runs_of_the_former_recipe_are_refused():
    config = digits.get_config("debug")
    config.recipe = "noise2noise"
    with pytest.raises(ValueError, match=r"'noise2noise' is now 'denoise', .* train it again"):
        recipes.build(config, DIGITS)

"""Recipe denoise with linear operators: which methods fit them, and what the loss of pairs is."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import denoisers
from jaxgen.common import rng
from jaxgen.noise import operators
from jaxgen.recipes import denoise

SETTINGS = {"factor": 2, "sigma": 0.1}


def plan_of(method, noise="downsample", **settings):
    c = denoisers.base("x", method)
    c.dtype, c.images = "float32", "1000"
    denoisers.noise(c, noise, 0.0, **settings)
    c.model.features, c.model.depth, c.model.last_features = 2, 1, (2, 2)
    return denoise.build(c, {"shape": (8, 8, 1)})


def test_pairs_of_measurements_are_compared_as_measurements():
    plan = plan_of("measured", **SETTINGS)
    params = {"restorer": plan.players["restorer"].init(jax.random.key(1))}
    image = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 1)).astype(np.uint8)
    batch = {"image": jnp.asarray(image), "index": jnp.arange(2)}
    keys = rng.image_keys(jax.random.key(0), 2)
    context = types.SimpleNamespace(nimg=jnp.float32(0))
    each, _ = plan.phases[0].loss(params, batch, keys, context)
    operator, x = operators.make("downsample", **SETTINGS), image / 127.5 - 1.0
    first, second = rng.split(keys, 2)
    restore = plan.exports["restore"].fn(params, {})
    restored = np.asarray(restore(operator.start(operator.corrupt(first, jnp.float32(x)))))
    means = restored.reshape(2, 4, 2, 4, 2, 1).mean((2, 4))  # what a box measures
    other = np.asarray(operator.corrupt(second, jnp.float32(x)))
    np.testing.assert_allclose(each, ((means - other) ** 2).mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("method", ["noise2noise", "noise2void", "noise2self"])
def test_methods_that_would_learn_the_reconstruction_are_refused(method):
    with pytest.raises(ValueError, match=f"'{method}' does not fit the operator 'downsample'"):
        plan_of(method, **SETTINGS)


def test_measured_needs_a_measurement():
    with pytest.raises(ValueError, match="'measured' does not fit the noise 'gaussian'"):
        plan_of("measured", "gaussian", sigma=25.0)


def test_clean_targets_go_with_anything():
    assert plan_of("noise2clean", **SETTINGS).sample.options == {}

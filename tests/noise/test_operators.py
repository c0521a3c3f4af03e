"""Gaussian corruption: units, ranges, and noise that belongs to the image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.noise import operators


def test_levels_are_grey_levels():
    keys = rng.image_keys(jax.random.key(0), 64)
    n = operators.gaussian(keys, jnp.zeros((64, 16, 16, 3)), 25.0)
    np.testing.assert_allclose(n.std() * 127.5, 25, rtol=0.01)
    np.testing.assert_allclose(n.mean(), 0, atol=0.005)
    np.testing.assert_array_equal(operators.gaussian(keys, jnp.ones((64, 2, 2, 1)), 0.0), 1.0)


def test_a_range_draws_one_level_an_image():
    keys = rng.image_keys(jax.random.key(0), 2000)
    levels = operators.levels(keys, (10.0, 50.0))
    assert 10 <= float(levels.min()) < 11 and 49 < float(levels.max()) <= 50
    np.testing.assert_allclose(levels.mean(), 30, atol=1)
    n = operators.gaussian(keys[:64], jnp.zeros((64, 32, 32, 1)), (10.0, 50.0)) * 127.5
    stds = np.asarray(n.std((1, 2, 3)))
    assert stds.min() < 16 and stds.max() > 44 and stds.min() > 9 and stds.max() < 54


def test_noise_belongs_to_the_image_not_to_its_place_or_device():
    keys = rng.image_keys(jax.random.key(0), 16)
    x = jax.random.normal(jax.random.key(1), (16, 4, 4, 1))
    y = operators.gaussian(keys, x, (10.0, 50.0))
    order = jnp.arange(16)[::-1]
    np.testing.assert_array_equal(operators.gaussian(keys[order], x[order], (10, 50)), y[order])
    np.testing.assert_array_equal(operators.gaussian(keys[3:5], x[3:5], (10.0, 50.0)), y[3:5])
    put = lambda a: jax.device_put(a, batch_sharding(make_mesh(data=-1)))
    run = jax.jit(lambda k, x: operators.gaussian(k, x, (10.0, 50.0)))
    np.testing.assert_allclose(run(put(keys), put(x)), y, atol=1e-6)


@pytest.mark.parametrize("sigma", [-1.0, (5.0, 2.0), (1.0, 2.0, 3.0)])
def test_errors(sigma):
    with pytest.raises(ValueError, match="sigma is a level >= 0 in grey levels"):
        operators.gaussian(rng.image_keys(jax.random.key(0), 2), jnp.zeros((2, 4, 4, 1)), sigma)

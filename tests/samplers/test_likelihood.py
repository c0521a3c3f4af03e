"""Likelihood: the exact density of a mixture, the order of the integrator, Hutchinson, units."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixtures import Mixture

from jaxgen.common import rng
from jaxgen.samplers import likelihood

DATA = Mixture([0.6, 0.4], [[0.5, -0.2], [-0.6, 0.4]], [0.3, 0.2])
LOW, HIGH = 0.01, 80.0


@functools.partial(jax.jit, static_argnames="steps")
def corrected(x, keys=None, steps=64):
    """The likelihood with the exact density of the noise in the place of N(0, HIGH^2)."""
    log, end = likelihood.log_likelihood(
        DATA.denoise, x, keys, steps=steps, sigma_min=LOW, sigma_max=HIGH
    )
    normal = -jnp.sum(end**2, 1) / (2 * HIGH**2) - jnp.log(2 * jnp.pi * HIGH**2)
    return log - normal + DATA.log_density(end, jnp.full(len(x), HIGH)), log


def exact(x):
    return jax.jit(DATA.log_density)(x, np.full(len(x), LOW))


def test_it_is_the_density_of_the_mixture_at_order_four():
    with jax.enable_x64(True):
        x = np.random.default_rng(0).standard_normal((6, 2)) * 0.7
        (coarse, _), (fine, log) = corrected(x, steps=64), corrected(x, steps=128)
        errors = [np.abs(v - exact(x)).max() for v in (coarse, fine, log)]
    order = np.log2(errors[0] / errors[1])
    assert errors[1] < 2e-4 and order > 3.5, (errors, order)
    assert errors[2] < 0.03  # that the mixture at HIGH is not quite N(0, HIGH^2)


def test_hutchinson_is_unbiased_and_an_image_depends_on_its_key_alone():
    x = np.tile(np.float32([[0.1, 0.3]]), (512, 1))
    keys = rng.seed_keys(0, np.arange(512))
    estimate = np.asarray(corrected(x, keys)[0])
    error = estimate.std() / np.sqrt(512)
    assert estimate.std() > 1e-3
    assert abs(estimate.mean() - exact(x[:1])[0]) < 4 * error + 2e-3, (estimate.mean(), error)
    np.testing.assert_allclose(corrected(x, keys[::-1])[0], estimate[::-1], rtol=1e-6)


def test_bits_of_a_uniform_image_are_eight():
    shape = (4, 4, 3)
    log_p = jnp.full((2,), 48 * np.log(127.5 / 256))  # 256 levels, each 1 / 127.5 wide
    np.testing.assert_allclose(likelihood.bits_per_dim(log_p, shape), 8.0, rtol=1e-6)
    x = likelihood.dequantize(jnp.array([-1.0, 1.0]), jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(x, [-1 - 0.5 / 127.5, 1 + 0.5 / 127.5], rtol=1e-6)


def test_errors():
    with pytest.raises(ValueError, match="steps >= 1 and 0 < sigma_min < sigma_max, got steps=0"):
        likelihood.log_likelihood(DATA.denoise, jnp.zeros((1, 2)), steps=0)
    with pytest.raises(ValueError, match=r"got steps=64, sigma_min=1\.0, sigma_max=0\.5"):
        likelihood.log_likelihood(DATA.denoise, jnp.zeros((1, 2)), sigma_min=1.0, sigma_max=0.5)

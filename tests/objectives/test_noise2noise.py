"""Noise2Noise: its expectation is that of the supervised loss plus the noise's variance."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.noise import operators
from jaxgen.objectives import noise2noise
from jaxgen.objectives.noise2noise import Seen

N, SIGMA = 4096, 50.0
observe = lambda keys, x: Seen(operators.gaussian(keys, x, SIGMA))


@functools.cache
def _both():
    """Losses and gradients in k of the linear restorer f(x) = k x at k = 0.7, both targets."""
    x = jnp.broadcast_to(jnp.linspace(-1, 1, 16).reshape(1, 4, 4, 1), (N, 4, 4, 1))
    keys = rng.image_keys(jax.random.key(0), N)

    def run(loss):
        f = lambda k: loss(lambda seen: k * seen.y, observe, x, keys).mean()
        return jax.jit(jax.value_and_grad(f))(0.7)

    return run(noise2noise.loss), run(noise2noise.supervised), float(jnp.square(x).mean())


def test_gradient_equals_the_supervised_one_in_expectation():
    """E d/dk (k (x + n) - target)^2 = 2 (k (x^2 + s^2) - x^2) for both targets."""
    (_, noisy), (_, clean), power = _both()
    want = 2 * (0.7 * (power + (SIGMA / 127.5) ** 2) - power)
    np.testing.assert_allclose(clean, want, atol=0.01)
    np.testing.assert_allclose(noisy, want, atol=0.01)


def test_loss_exceeds_the_supervised_one_by_the_variance():
    (noisy, _), (clean, _), _ = _both()
    np.testing.assert_allclose(noisy - clean, (SIGMA / 127.5) ** 2, atol=0.01)


def test_same_input_as_the_supervised_loss():
    """Both see the same corrupted input for the same keys."""
    x, keys = jnp.zeros((2, 4, 4, 1)), rng.image_keys(jax.random.key(0), 2)
    seen = []
    for loss in (noise2noise.loss, noise2noise.supervised):
        loss(lambda s: seen.append(s.y) or s.y, observe, x, keys)
    np.testing.assert_array_equal(*seen)


def test_norms():
    a, b = jnp.zeros((2, 2, 2, 1)), jnp.full((2, 2, 2, 1), -3.0)
    np.testing.assert_allclose(noise2noise.regression(a, b, "l1"), [3, 3])
    np.testing.assert_allclose(noise2noise.regression(a, b), [9, 9])
    with pytest.raises(ValueError, match=r"norm must be one of .*, got 'l3'"):
        noise2noise.regression(a, b, "l3")


def test_minimisers():
    """Of a constant for targets 0, 0, 0, 1: mean, median, mode, and the mean again of HDR."""
    target = jnp.array([-1.0, -1, -1, 1]).reshape(1, 2, 2, 1)
    grid = jnp.linspace(-1, 1, 201)

    def best(**how):
        each = jax.vmap(lambda v: noise2noise.regression(v * jnp.ones((1, 2, 2, 1)), target, **how))
        return float(grid[jnp.argmin(each(grid))])

    np.testing.assert_allclose(best(), -0.5, atol=1e-6)
    np.testing.assert_allclose(best(norm="l1"), -1.0, atol=1e-6)
    np.testing.assert_allclose(best(norm="l0", gamma=0.5), -1.0, atol=1e-6)
    hdr = lambda v: noise2noise.regression(v * jnp.ones((1, 2, 2, 1)), target, "hdr").sum()
    np.testing.assert_allclose(jax.grad(hdr)(-0.5), 0, atol=1e-6)  # the denominator is constant
    assert abs(float(jax.grad(hdr)(-0.4))) > 0.1


def test_relative_loss():
    """((f - y) / (f + 0.01))^2 in radiance; a negative output counts as 0 in the denominator."""
    image = lambda v: jnp.full((1, 2, 2, 3), 2 * v - 1)
    for f, y in ((0.5, 2.0), (3.0, 0.0), (-0.2, 0.1)):
        got = noise2noise.regression(image(f), image(y), "hdr")
        np.testing.assert_allclose(got, ((f - y) / (max(f, 0) + 0.01)) ** 2, rtol=1e-4)


def test_tone_mapping():
    got = noise2noise.tonemap(jnp.array([-1.0, 0, 1, 1e9]))
    np.testing.assert_allclose(got, [0, 0, 0.5 ** (1 / 2.2), 1], rtol=1e-6)


def test_only_kept_pixels_of_a_target_count():
    """Bernoulli noise: targets are weighed by their masks, inputs are not."""
    x, keys = jnp.ones((64, 4, 4, 1)), rng.image_keys(jax.random.key(0), 64)
    noise = operators.make("bernoulli", p=0.5)
    observe = lambda keys, x: Seen(noise.corrupt(keys, x), weight=noise.observed(keys, x))
    ones = lambda seen: jnp.ones_like(seen.y)
    np.testing.assert_allclose(noise2noise.loss(ones, observe, x, keys), 0)
    assert float(noise2noise.loss(lambda s: s.y, observe, x, keys).mean()) > 0.3
    weight = jnp.array([1.0, 0, 0, 0]).reshape(1, 2, 2, 1)
    target = jnp.arange(4.0).reshape(1, 2, 2, 1) + 2
    np.testing.assert_allclose(noise2noise.regression(0 * target, target, weight=weight), 4)

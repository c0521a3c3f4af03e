"""Noise2Noise through an operator: the expectation, the minimiser, and what has no gradient."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.noise import operators
from jaxgen.objectives import measured

SIGMA = 0.3
BLUR = operators.make("blur", std=0.6, sigma=SIGMA)
N = 4096


def images(n=N):
    return 0.5 * rng.normal(rng.image_keys(jax.random.key(1), n), (4, 4, 1))


def keys(n=N):
    return rng.image_keys(jax.random.key(0), n)


def test_the_loss_is_the_error_of_the_measurement_and_the_noise():
    x, f = images(), lambda y: 0.7 * y + 0.1
    got = float(measured.loss(f, BLUR, x, keys()).mean())
    first, _ = rng.split(keys(), 2)
    error = BLUR.forward(f(BLUR.start(BLUR.corrupt(first, x))) - x)
    np.testing.assert_allclose(got, jnp.square(error).mean() + SIGMA**2, rtol=0.01)


def test_the_best_linear_restorer_is_that_of_clean_images():
    """f = g y in each frequency: both losses have the Wiener filter as minimiser."""
    x = images(16 * N)
    H = jnp.asarray(np.abs(np.fft.fft2(np.fft.irfft2(BLUR.transfer(4, 4), s=(4, 4)))))
    want = 0.25 * H / (0.25 * H**2 + SIGMA**2)

    def restore(g):
        spectrum = lambda y: jnp.fft.fft2(y, axes=(1, 2)) * g[..., None]
        return lambda y: jnp.fft.ifft2(spectrum(y), axes=(1, 2)).real

    for loss in (measured.loss, measured.supervised):
        # Quadratic in g, and each frequency (with its negative) is on its own: one Newton step.
        mean = lambda g, loss=loss: loss(restore(g), BLUR, x, keys(16 * N)).mean()
        slope = jax.jit(jax.grad(mean))
        zero, one = slope(jnp.zeros((4, 4))), slope(jnp.ones((4, 4)))
        np.testing.assert_allclose(zero / (zero - one), want, atol=0.05)


def test_what_is_not_measured_has_no_gradient():
    op = operators.make("downsample", sigma=SIGMA)
    grad = jax.grad(lambda out: measured.loss(lambda y: out, op, images(8), keys(8)).sum())
    got = np.asarray(grad(images(8)))
    blocks = got.reshape(8, 2, 2, 2, 2)
    np.testing.assert_allclose(blocks - blocks.mean((2, 4), keepdims=True), 0, atol=1e-7)
    assert np.abs(got).max() > 1e-3


def test_both_losses_see_the_same_input():
    seen = []
    spy = lambda y: seen.append(np.asarray(y)) or y
    measured.loss(spy, BLUR, images(4), keys(4))
    measured.supervised(spy, BLUR, images(4), keys(4))
    np.testing.assert_array_equal(*seen)

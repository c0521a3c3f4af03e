"""Held-out projections: the expected loss is that of clean ones plus a constant; splits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.noise.parallel_beam import ParallelBeam
from jaxgen.objectives import tomography

N, SIGMA = 1500, 0.2
BEAM = ParallelBeam(8, 6, sigma=SIGMA)
AT = np.arange(8) - 3.5
X = jnp.where(jnp.asarray(AT**2 + AT[:, None] ** 2 < 9), 0.8, -1.0)[None, :, :, None]


@functools.cache
def _scans():
    """N scans of one image, its clean projections, and one split for all."""
    x = jnp.broadcast_to(X, (N, 8, 8, 1))
    y = jax.jit(BEAM.corrupt)(rng.image_keys(jax.random.key(0), N), x)
    return y, BEAM.forward(X), jnp.repeat(rng.image_keys(jax.random.key(1), 1), N)


def _against_clean(restore, y, clean, keys, sharpen):
    """The same input, compared with the held views without noise."""
    mask = tomography.draw(keys, 6, 3)
    error = BEAM.forward(restore(BEAM.start(y, 1 - mask))) - clean
    square = error * (BEAM.ramp(error) if sharpen else error)
    return (mask * square.mean((2, 3))).sum(1) / mask.sum(1)


def test_noise_of_the_target_is_a_constant():
    """Value and gradient in k of the restorer f(x) = k tanh(x), plain and sharpened squares."""
    y, clean, keys = _scans()

    def losses(k):
        """(2, 2): plain or sharpened, noisy or clean targets."""
        restore = lambda x: k * jnp.tanh(x)
        noisy = [tomography.simulator(restore, BEAM, y, keys, 3, s).mean() for s in (False, True)]
        other = [_against_clean(restore, y, clean, keys, s).mean() for s in (False, True)]
        return jnp.stack([jnp.stack(noisy), jnp.stack(other)], 1)

    values, slopes = jax.jit(lambda k: (jax.vmap(losses)(k), jax.jacfwd(losses)(k[0])))(
        jnp.array([0.4, 1.1])
    )
    trace = np.trace(np.asarray(BEAM.ramp(jnp.eye(BEAM.cells)[None, :, :, None]))[0, :, :, 0])
    constants = SIGMA**2 * np.array([1, trace / BEAM.cells])
    np.testing.assert_allclose(values[0, :, 0] - values[0, :, 1], constants, rtol=0.03)
    np.testing.assert_allclose(values[1, :, 0] - values[1, :, 1], constants, rtol=0.03)
    assert np.abs(slopes).min() > 0.1
    np.testing.assert_allclose(slopes[:, 0], slopes[:, 1], rtol=0.02)


def test_the_sharpened_loss_is_the_error_of_the_image():
    """Times pi w / 4 a detector row's sum, for a smooth error in the middle of the image."""
    beam = ParallelBeam(16, 24)
    at = (jnp.arange(16) - 7.5) / 8
    error = jnp.exp(-((at - 0.1) ** 2 + at[:, None] ** 2) / (2 * 0.28**2))[None, :, :, None]
    y, keys = jnp.zeros((1, 24, beam.cells, 1)), rng.image_keys(jax.random.key(0), 1)
    loss = jax.jit(lambda e: tomography.simulator(lambda start: e, beam, y, keys, 2))(error)
    want = jnp.square(error).mean()
    np.testing.assert_allclose(loss[0] * beam.cells * np.pi * beam.width / 4, want, rtol=0.05)


def test_every_view_is_input_or_target():
    keys = rng.image_keys(jax.random.key(0), 300)
    mask = np.asarray(tomography.draw(keys, 12, 4))
    assert (mask.sum(1) == 3).all() and set(np.unique(mask)) == {0, 1}
    np.testing.assert_allclose(mask.mean(0), 0.25, atol=0.08)
    np.testing.assert_array_equal(np.diff(np.flatnonzero(mask[0])), 4)
    all_of_them = tomography.held(jnp.arange(4), 12, 4)
    np.testing.assert_array_equal(all_of_them.sum(0), 1)


def test_the_input_does_not_see_the_held_views():
    """The derivative of the network's input in the target is 0."""
    y = _scans()[0][:1]
    keys = rng.image_keys(jax.random.key(2), 1)
    mask = tomography.draw(keys, 6, 3)
    seen = lambda y: BEAM.start(y, 1 - mask).sum() + jnp.square(BEAM.start(y, 1 - mask)).sum()
    slope = np.abs(np.asarray(jax.jit(jax.grad(seen))(y)))[0].max((1, 2))
    np.testing.assert_array_equal(slope > 0, np.asarray(mask)[0] == 0)


def test_noise2inverse_compares_reconstructions_and_the_mean_is_of_all_splits():
    y, keys = _scans()[0][:2], rng.image_keys(jax.random.key(3), 2)
    mask = tomography.draw(keys, 6, 3)
    start = jax.jit(BEAM.start)
    held, rest = start(y, mask), start(y, 1 - mask)
    want = jnp.square(2 * rest - held).mean((1, 2, 3))
    got = jax.jit(lambda y: tomography.noise2inverse(lambda x: 2 * x, BEAM, y, keys, 3))(y)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    whole = jax.jit(lambda y: tomography.reconstruct(lambda x: x, BEAM, y, 3))(y)
    all_views = start(y, jnp.ones((2, 6)))
    np.testing.assert_allclose(whole, all_views, atol=1e-5)  # back-projection is linear
    x = jnp.full((2, 8, 8, 1), 0.5)
    got = jax.jit(lambda y: tomography.supervised(lambda x: 2 * x, BEAM, y, x))(y)
    np.testing.assert_allclose(got, jnp.square(2 * all_views - x).mean((1, 2, 3)), rtol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match="6 views can be split into 2 to 6 parts, got 7"):
        tomography.held(jnp.zeros(1), 6, 7)

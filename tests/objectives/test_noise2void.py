"""Noise2Void: masks show no masked value; its expected loss is the supervised one plus variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.objectives import noise2void

KEYS = rng.image_keys(jax.random.key(0), 512)


@pytest.mark.parametrize(("size", "box", "radius"), [((20, 13), 4, 2), ((9, 9), 3, 1)])
def test_masks(size, box, radius):
    """Neighbours lie in the square and are neither masked nor the pixel; all pixels may come."""
    h, w = size
    masked, source = map(np.asarray, noise2void.mask(KEYS, h, w, box, radius))
    assert masked.any((1, 2)).all()
    at = np.arange(h * w)
    flat = masked.reshape(len(masked), -1)
    np.testing.assert_array_equal((source != at)[~flat], False)
    image, pixel = np.nonzero(flat)
    taken = source[image, pixel]
    away = np.stack(np.divmod(taken, w)) - np.stack(np.divmod(pixel, w))
    assert np.abs(away).max() == radius and (away != 0).any(0).all()
    assert not flat[image, taken].any()
    if size == (20, 13):
        interior = masked[:, 4:-4, 4:-4].mean(0)
        np.testing.assert_allclose(masked.mean(), 1 / box**2, rtol=0.02)
        np.testing.assert_allclose(interior, 1 / box**2, atol=5 * (1 / 16 / 512) ** 0.5)


def test_all_neighbours_come_equally():
    masked, source = map(np.asarray, noise2void.mask(KEYS, 32, 32, 8, 2))
    inner = masked & (np.pad(np.ones((28, 28), bool), 2))
    image, i, j = np.nonzero(inner)
    row, column = np.divmod(source[image, i * 32 + j], 32)
    counts = np.zeros((5, 5))
    np.add.at(counts, (row - i + 2, column - j + 2), 1)
    assert counts[2, 2] == 0
    np.testing.assert_allclose(np.delete(counts.ravel(), 12) / counts.sum(), 1 / 24, rtol=0.25)


def test_the_loss_sees_no_own_value():
    """The derivative of the masked input, where it is masked, by the noisy value there, is 0."""
    y = jax.random.normal(jax.random.key(1), (1, 8, 8, 1))
    seen = []
    see = lambda v: seen.append(v) or v
    noise2void.loss(see, y, KEYS[:1], 4, 1)
    masked, source = noise2void.mask(KEYS[:1], 8, 8, 4, 1)
    jacobian = jax.jacobian(lambda y: y.reshape(64)[source[0]])(y).reshape(64, 64)
    np.testing.assert_array_equal(seen[0].reshape(64), y.reshape(64)[source[0]])
    columns = jacobian[:, masked.reshape(64)]  # by a masked value
    np.testing.assert_array_equal(columns, 0)


def test_expectation_is_the_supervised_loss_plus_the_variance():
    """f a local mean of an image of a ramp: E (f(masked y) - y)^2 = E (f(masked y) - x)^2 + s^2."""
    x = jnp.broadcast_to(jnp.linspace(0, 1, 16)[None, :, None, None], (512, 16, 16, 1))
    s, keys = 0.3, rng.split(KEYS, 2)
    y = x + s * rng.normal(keys[0], x.shape[1:])
    f = lambda v: (jnp.roll(v, 1, 1) + jnp.roll(v, -1, 1) + v) / 3
    noisy = jax.jit(lambda y: noise2void.loss(f, y, keys[1], 4, 2).mean())(y)
    masked, source = noise2void.mask(keys[1], 16, 16, 4, 2)
    swapped = jnp.take_along_axis(y.reshape(512, 256), source, 1).reshape(x.shape)
    clean = (jnp.square(f(swapped) - x)[..., 0] * masked).sum() / masked.sum()
    np.testing.assert_allclose(noisy, clean + s**2, rtol=0.02)


def test_rows_do_not_depend_on_the_batch():
    y = jax.random.normal(jax.random.key(1), (3, 8, 8, 2))
    run = lambda y, keys: noise2void.loss(lambda v: 0.5 * v, y, keys, 3, 1)
    np.testing.assert_allclose(run(y, KEYS[:3])[2:], run(y[2:], KEYS[2:3]), rtol=1e-6)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="radius of 1 to box - 1 pixels; got box 2, radius 2"):
        noise2void.mask(KEYS, 8, 8, 2, 2)
    with pytest.raises(ValueError, match="within 2 pixels need images of more than 4, got 4x8"):
        noise2void.loss(lambda v: v, jnp.zeros((1, 4, 8, 1)), KEYS[:1], 4, 2)

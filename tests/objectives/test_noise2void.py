"""Noise2Void: masks show no masked value; its expected loss is the supervised one plus variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.objectives import noise2void

KEYS = rng.image_keys(jax.random.key(0), 512)
MASK = jax.jit(noise2void.mask, static_argnums=(1, 2, 3, 4))


@pytest.mark.parametrize(("size", "box", "radius"), [((20, 13), 4, 2), ((9, 9), 3, 1)])
def test_masks(size, box, radius):
    """Neighbours lie in the square and are neither masked nor the pixel; all pixels may come."""
    h, w = size
    masked, source = map(np.asarray, MASK(KEYS, h, w, box, radius))
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
    masked, source = map(np.asarray, MASK(KEYS, 32, 32, 8, 2))
    inner = masked & (np.pad(np.ones((28, 28), bool), 2))
    image, i, j = np.nonzero(inner)
    row, column = np.divmod(source[image, i * 32 + j], 32)
    counts = np.zeros((5, 5))
    np.add.at(counts, (row - i + 2, column - j + 2), 1)
    assert counts[2, 2] == 0
    np.testing.assert_allclose(np.delete(counts.ravel(), 12) / counts.sum(), 1 / 24, rtol=0.25)


def test_the_loss_sees_no_own_value():
    """Nothing of what is shown depends on a masked value, by derivatives."""
    y = jax.random.normal(jax.random.key(1), (512, 9, 13, 1))

    def shown(y):
        seen = []
        noise2void.loss(lambda v: seen.append(v) or v, y, KEYS, 4, 2)
        return seen[0]

    masked, source = map(np.asarray, MASK(KEYS, 9, 13, 4, 2))
    got, back = jax.vjp(jax.jit(shown), y)
    want = np.take_along_axis(np.asarray(y).reshape(512, -1), source, 1)
    np.testing.assert_array_equal(got.reshape(512, -1), want)
    by = np.asarray(back(jnp.ones_like(y))[0])[..., 0]  # of the sum of all that is shown
    np.testing.assert_array_equal(by[masked], 0)
    assert (by[~masked] >= 1).all()


def test_expectation_is_the_supervised_loss_plus_the_variance():
    """f a local mean of an image of a ramp: E (f(masked y) - y)^2 = E (f(masked y) - x)^2 + s^2."""
    x = jnp.broadcast_to(jnp.linspace(0, 1, 16)[None, :, None, None], (512, 16, 16, 1))
    s, keys = 0.3, rng.split(KEYS, 2)
    y = x + s * rng.normal(keys[0], x.shape[1:])
    f = lambda v: (jnp.roll(v, 1, 1) + jnp.roll(v, -1, 1) + v) / 3
    noisy = jax.jit(lambda y: noise2void.loss(f, y, keys[1], 4, 2).mean())(y)
    masked, source = MASK(keys[1], 16, 16, 4, 2)
    swapped = jnp.take_along_axis(y.reshape(512, 256), source, 1).reshape(x.shape)
    clean = (jnp.square(f(swapped) - x)[..., 0] * masked).sum() / masked.sum()
    np.testing.assert_allclose(noisy, clean + s**2, rtol=0.02)


def test_rows_do_not_depend_on_the_batch():
    y = jax.random.normal(jax.random.key(1), (3, 8, 8, 2))
    run = jax.jit(lambda y, keys: noise2void.loss(lambda v: 0.5 * v, y, keys, 3, 1))
    np.testing.assert_allclose(run(y, KEYS[:3])[2:], run(y[2:], KEYS[2:3]), rtol=1e-6)


def test_settings_that_cannot_be():
    with pytest.raises(ValueError, match="radius of 1 to box - 1 pixels; got box 2, radius 2"):
        noise2void.mask(KEYS, 8, 8, 2, 2)
    with pytest.raises(ValueError, match="within 2 pixels need images of more than 4, got 4x8"):
        noise2void.loss(lambda v: v, jnp.zeros((1, 4, 8, 1)), KEYS[:1], 4, 2)

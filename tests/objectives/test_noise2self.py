"""Noise2Self: J-invariance by derivatives; in expectation the supervised loss plus variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.objectives import noise2self

KEYS = rng.image_keys(jax.random.key(0), 4)


def blur(v):
    """A function that uses the own pixel."""
    return 0.6 * v + 0.2 * jnp.roll(v, 1, 1) + 0.2 * jnp.roll(v, -1, 2)


@pytest.mark.parametrize(("h", "w", "n"), [(6, 8, 2), (7, 5, 3)])
def test_invariance(h, w, n):
    """No output pixel of the invariant function depends on the pixels of its own J."""
    y = jax.random.normal(jax.random.key(1), (1, h, w, 1))
    f = jax.jit(lambda y: noise2self.invariant(blur, y, n))
    jacobian = jax.jacobian(f)(y).reshape(h * w, h * w)
    which = (np.arange(h)[:, None] % n * n + np.arange(w) % n).reshape(-1)
    np.testing.assert_array_equal(jacobian[which[:, None] == which[None]], 0)
    assert (np.abs(jacobian) > 0).any(1).all()


def test_grids_share_the_image():
    grids = noise2self.grid(jnp.arange(9), 7, 8, 3)
    np.testing.assert_array_equal(grids.sum(0), 1)
    assert grids[5, 1, 2, 0] and grids[5, 4, 5, 0]


def test_neighbours_of_a_plane_are_its_value():
    """Inside, the mean of the neighbours of a linear function is the function."""
    y = (jnp.arange(5.0)[:, None] + 2 * jnp.arange(6.0)[None])[None, :, :, None]
    np.testing.assert_allclose(noise2self.neighbours(y)[:, 1:-1, 1:-1], y[:, 1:-1, 1:-1], rtol=1e-6)
    assert not np.isclose(noise2self.neighbours(y)[0, 0, 0, 0], y[0, 0, 0, 0])


def test_expectation_is_the_supervised_loss_plus_the_variance():
    """Proposition 1 for an invariant f; the function that uses the own pixel fails it."""
    b, s = 2048, 0.3
    x = jnp.broadcast_to(jnp.linspace(0, 1, 8)[None, :, None, None], (b, 8, 8, 1))
    y = x + s * rng.normal(rng.image_keys(jax.random.key(2), b), x.shape[1:])
    mean = lambda out, target: float(jnp.square(out - target).mean())
    out = jax.jit(lambda y: noise2self.invariant(blur, y, 2))(y)
    np.testing.assert_allclose(mean(out, y), mean(out, x) + s**2, rtol=0.02)
    assert mean(blur(y), y) < 0.9 * (mean(blur(y), x) + s**2)


def test_the_loss_is_that_of_the_invariant_function():
    """Its mean over all offsets is the mean over all pixels, in sizes that n divides."""
    y = jax.random.normal(jax.random.key(1), (1, 6, 6, 2))
    many = 400
    keys = rng.image_keys(jax.random.key(3), many)
    each = noise2self.loss(blur, jnp.broadcast_to(y, (many, 6, 6, 2)), keys, 2)
    values = np.unique(np.round(np.asarray(each), 5))
    assert len(values) == 4  # one an offset
    want = jnp.square(noise2self.invariant(blur, y, 2) - y).mean()
    np.testing.assert_allclose(values.mean(), want, rtol=1e-4)


def test_settings_that_cannot_be():
    y = jnp.zeros((4, 3, 8, 1))
    with pytest.raises(ValueError, match="n at least 2, got 1"):
        noise2self.invariant(blur, y, 1)
    with pytest.raises(ValueError, match="every 4-th pixel needs 4x4, got 3x8"):
        noise2self.loss(blur, y, KEYS, 4)

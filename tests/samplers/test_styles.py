"""Mixing of styles, lines, great circles, closed ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import interpolate
from jaxgen.samplers import styles

RNG = np.random.default_rng(0)
slerp = jax.jit(interpolate.slerp)
jitted = jax.jit(styles.around, static_argnums=(1, 2))


def test_great_circles_of_the_reference(goldens):
    f = np.load(goldens / "gan/equivariance.npz")
    a, b, t, y, later = (f[f"slerp.{n}"] for n in ("a", "b", "t", "y", "y_t_plus_1e-4"))
    np.testing.assert_allclose(slerp(a, b, t), y, atol=3e-7)
    np.testing.assert_allclose(slerp(a, b, t + 1e-4), later, atol=3e-7)


def test_a_great_circle_has_constant_speed_and_ends_at_the_directions():
    a, b = (np.broadcast_to(x, (50, 64)) for x in RNG.normal(size=(2, 64)))
    way = slerp(a, 3 * b, np.linspace(0, 1, 50)[:, None])
    np.testing.assert_allclose(np.linalg.norm(way, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(way[0], a[0] / np.linalg.norm(a[0]), atol=1e-6)
    np.testing.assert_allclose(way[-1], b[0] / np.linalg.norm(b[0]), atol=1e-6)
    steps = np.linalg.norm(np.diff(way, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-4)
    t = np.full((50, 1), 0.3)
    np.testing.assert_allclose(slerp(a, 2 * a, t), a / np.linalg.norm(a[0]), atol=1e-6)
    assert np.isfinite(slerp(a, -a, t)).all()


def test_small_steps_keep_their_digits():
    """Steps of path lengths are 1e-4: their lengths must be good to parts in a thousand."""
    a, b = RNG.normal(size=(2, 50, 64))
    unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
    angle = np.arccos((unit(a) * unit(b)).sum(-1))
    ends = [slerp(a, b, np.full((50, 1), t)) for t in (0.3, 0.3 + 1e-4)]
    step = np.linalg.norm(np.float64(ends[1]) - np.float64(ends[0]), axis=1)
    np.testing.assert_allclose(step, 1e-4 * angle, rtol=5e-3)


def test_mixtures_take_layers_from_the_columns():
    rows, columns = jnp.zeros((2, 5, 3)), jnp.ones((4, 5, 3)) * jnp.arange(1, 5)[:, None, None]
    mixed = styles.mix(rows, columns, [0, 3])
    assert mixed.shape == (2, 4, 5, 3)
    np.testing.assert_array_equal(mixed[1, 2, :, 0], [3, 0, 0, 3, 0])
    np.testing.assert_array_equal(styles.mix(rows, columns, range(5))[0], columns)
    np.testing.assert_array_equal(styles.mix(rows, columns, [])[:, 1], rows)
    with pytest.raises(ValueError, match=r"layers \[5\] are not among the 5"):
        styles.mix(rows, columns, [1, 5])
    with pytest.raises(ValueError, match=r"mix expects styles \(n, num_ws, w_dim\)"):
        styles.mix(rows[:, 0], columns, [0])


def test_closed_ways_pass_through_their_points():
    points = np.float32(RNG.normal(size=(3, 4)))
    way, ball = (np.asarray(jitted(points, 5, space)) for space in ("w", "z"))
    assert way.shape == (15, 4)
    np.testing.assert_allclose(way[::5], points, atol=1e-6)
    np.testing.assert_allclose(way[12], 0.6 * points[2] + 0.4 * points[0], atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(ball, axis=1), 2.0, rtol=1e-5)
    cosine = (ball[::5] * points).sum(1) / 2 / np.linalg.norm(points, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
    for frames, space in ((0, "w"), (3, "x")):
        with pytest.raises(ValueError, match="frames must be at least 1 and space w or z"):
            styles.around(points, frames, space)

"""Mixing of styles, lines, great circles, closed ways."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common.interpolate import lerp, slerp
from jaxgen.samplers import styles


def test_great_circles_of_the_reference(goldens):
    f = np.load(goldens / "gan/equivariance.npz")
    a, b, t, y, later = (f[f"slerp.{n}"] for n in ("a", "b", "t", "y", "y_t_plus_1e-4"))
    np.testing.assert_allclose(slerp(a, b, t), y, atol=3e-7)
    np.testing.assert_allclose(slerp(a, b, t + 1e-4), later, atol=3e-7)


def test_a_great_circle_has_constant_speed_and_ends_at_the_directions():
    a, b = jax.random.normal(jax.random.key(0), (2, 1, 6))
    t = jnp.linspace(0, 1, 11)[:, None]
    way = slerp(a, 3 * b, t)
    np.testing.assert_allclose(jnp.linalg.norm(way, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(way[0], (a / jnp.linalg.norm(a))[0], atol=1e-6)
    np.testing.assert_allclose(way[-1], (b / jnp.linalg.norm(b))[0], atol=1e-6)
    steps = jnp.linalg.norm(jnp.diff(way, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-5)
    np.testing.assert_allclose(slerp(a, 2 * a, 0.3), a / jnp.linalg.norm(a), atol=1e-6)
    assert np.isfinite(slerp(a, -a, 0.5)).all()


def test_small_steps_keep_their_digits():
    """Steps of path lengths are 1e-4: their lengths must be good to parts in a thousand."""
    a, b = jax.random.normal(jax.random.key(1), (2, 50, 64))
    angle = jnp.arccos((slerp(a, b, 0.0) * slerp(a, b, 1.0)).sum(-1))
    step = jnp.linalg.norm(slerp(a, b, 0.3 + 1e-4) - slerp(a, b, 0.3), axis=1)
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
    points = jax.random.normal(jax.random.key(2), (3, 4))
    way = styles.around(points, 5, "w")
    assert way.shape == (15, 4)
    np.testing.assert_allclose(way[::5], points, atol=1e-6)
    np.testing.assert_allclose(way[12], lerp(points[2], points[0], 0.4), atol=1e-6)
    ball = styles.around(points, 5, "z")
    np.testing.assert_allclose(jnp.linalg.norm(ball, axis=1), 2.0, rtol=1e-5)
    cosine = (ball[::5] * points).sum(1) / 2 / jnp.linalg.norm(points, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
    for frames, space in ((0, "w"), (3, "x")):
        with pytest.raises(ValueError, match="frames must be at least 1 and space w or z"):
            styles.around(points, frames, space)

"""Helical beams: chords of a ball, an exact adjoint, Feldkamp's reconstruction, symmetries."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.noise.helical import HelicalConeBeam

SUB = 3


def axis(cells, width):
    return (np.arange(cells) - (cells - 1) / 2) * width


def ball(beam, centre, radius):
    """Share of each voxel in a ball, (n, n, depth)."""
    fine = lambda n: axis(SUB * n, beam.voxel / SUB)
    x, y, z = fine(beam.size)[None, :, None], -fine(beam.size)[:, None, None], fine(beam.depth)
    inside = (x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2 <= radius**2
    n, d = beam.size, beam.depth
    return inside.reshape(n, SUB, n, SUB, d, SUB).mean((1, 3, 5))


def chords(beam, centre, radius):
    """Of the same ball, (views, rows, columns), from source and cell positions in space."""
    beta, height = (np.asarray(v, np.float64)[:, None, None] for v in beam.source())
    rows, columns = (axis(n, beam.voxel) for n in beam.detector)
    along = np.stack([np.cos(beta), np.sin(beta), 0 * beta], -1)
    across = np.stack([-np.sin(beta), np.cos(beta), 0 * beta], -1)
    up = np.array([0.0, 0, 1])
    source = beam.radius * along + height[..., None] * up
    cell = columns[:, None] * across + (height + rows[:, None])[..., None] * up
    ray = cell - source
    ray /= np.linalg.norm(ray, axis=-1, keepdims=True)
    to = np.asarray(centre) - source
    miss = (to**2).sum(-1) - (to * ray).sum(-1) ** 2
    return 2 * np.sqrt(np.maximum(radius**2 - miss, 0))


BALL = (0.2, 0.1, 0.05), 0.35


def error(n):
    beam = HelicalConeBeam(n, n // 2, 6)
    y = jax.jit(beam.forward)(jnp.asarray(ball(beam, *BALL), jnp.float32)[None])[0]
    return np.abs(np.asarray(y) - chords(beam, *BALL)).mean()


def test_a_ball_has_its_chords():
    """The error falls faster than the voxel."""
    coarse, fine = error(12), error(24)
    assert coarse < 0.03 and fine < coarse / 2


BEAM = HelicalConeBeam(10, 6, 4, pitch=0.7)


@pytest.fixture(scope="module")
def project():
    return jax.jit(BEAM.forward), jax.jit(BEAM.adjoint)


@pytest.mark.parametrize("precision,tolerance", [("float64", 1e-13), ("float32", 2e-6)])
def test_adjoint(precision, tolerance, project):
    with jax.enable_x64(precision == "float64"):
        r = np.random.default_rng(0)
        x = jnp.asarray(r.standard_normal((2, 10, 10, 6)), precision)
        y = jnp.asarray(r.standard_normal((2, BEAM.views, *BEAM.detector)), precision)
        ax, ay = project[0](x), project[1](y)
        assert ax.dtype == ay.dtype == x.dtype
        scale = float(jnp.linalg.norm(ax) * jnp.linalg.norm(y))
        assert abs(float(jnp.vdot(ax, y)) - float(jnp.vdot(x, ay))) < tolerance * scale


class Circle(HelicalConeBeam):
    """Four views a quarter turn apart, all at height 0."""

    def source(self, dtype=jnp.float32):
        return jnp.arange(4, dtype=dtype) * (np.pi / 2), jnp.zeros(4, dtype)


def test_a_quarter_turn_moves_the_views():
    """Counter-clockwise: what was seen from beta is seen from beta + 90 degrees."""
    x = jnp.asarray(np.random.default_rng(1).random((1, 10, 10, 6)), jnp.float32)
    run = jax.jit(Circle(10, 6, 4).forward)
    y, turned = run(x), run(jnp.rot90(x, axes=(1, 2)))
    np.testing.assert_allclose(turned, jnp.roll(y, 1, axis=1), atol=2e-5)


def test_upside_down(project):
    """Mirrored in z and in y, the helix is itself, run from its other end."""
    x = jnp.asarray(np.random.default_rng(2).random((1, 10, 10, 6)), jnp.float32)
    y, mirrored = project[0](x), project[0](x[:, ::-1, :, ::-1])
    np.testing.assert_allclose(mirrored, y[:, ::-1, ::-1, ::-1], atol=2e-5)


def test_white_is_the_volume_of_ones(project):
    np.testing.assert_allclose(BEAM.white(), project[0](jnp.ones((1, 10, 10, 6))), atol=1e-5)
    centre = BEAM.white()[0, BEAM.views // 2].max()
    assert 1.9 < float(centre) < 2 * 2**0.5 + 0.1  # through the middle, or along the diagonal


def test_feldkamp_finds_the_ball():
    beam = HelicalConeBeam(24, 12, 32)
    truth = ball(beam, *BALL)
    y = 2 * chords(beam, *BALL)[None] - np.asarray(beam.white())
    start = jax.jit(beam.start)
    got = (np.asarray(start(jnp.asarray(y, jnp.float32)))[0] + 1) / 2
    assert np.abs(got - truth).mean() < 0.03
    inner = ball(beam, BALL[0], BALL[1] - 2 * beam.voxel) == 1
    np.testing.assert_allclose(got[inner].mean(), 1, atol=0.03)
    half = (np.arange(beam.views) % 2).astype(np.float32)
    fewer = (np.asarray(start(jnp.asarray(y, jnp.float32), half))[0] + 1) / 2
    np.testing.assert_allclose(fewer[inner].mean(), 1, atol=0.05)


def test_errors():
    with pytest.raises(ValueError, match="a radius that clears the volume's corners at sqrt 2"):
        HelicalConeBeam(8, 4, 8, radius=1.2)
    with pytest.raises(ValueError, match=r"volumes \(b, 10, 10, 6\), got \(1, 10, 10, 5\)"):
        BEAM.forward(jnp.zeros((1, 10, 10, 5)))
    with pytest.raises(ValueError, match=r"projections are \(b, .*got \(1, 2, 3, 4\)"):
        BEAM.adjoint(jnp.zeros((1, 2, 3, 4)))

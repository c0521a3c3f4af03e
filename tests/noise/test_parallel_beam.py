"""Parallel beams: exact footprints, closed-form sinograms, an exact adjoint, the slice theorem."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.noise.parallel_beam import ParallelBeam, trapezoid_integral

SUB = 4


def axis(cells, width):
    return (np.arange(cells) - (cells - 1) / 2) * width


def image_of(inside, n):
    """Share of each pixel (n, n) that lies in inside(x, y), x to the right and y up; float64."""
    at = axis(SUB * n, 2 / (SUB * n))
    return inside(at[None], -at[:, None]).reshape(n, SUB, n, SUB).mean((1, 3))


def chords(beam, x0, y0, a, b, phi):
    """Line integrals of an ellipse, (angles, cells), float64."""
    theta = np.arange(beam.angles)[:, None] * np.pi / beam.angles
    half = (a * np.cos(theta - phi)) ** 2 + (b * np.sin(theta - phi)) ** 2
    t = axis(beam.cells, beam.width) - (x0 * np.cos(theta) + y0 * np.sin(theta))
    return 2 * a * b * np.sqrt(np.maximum(half - t**2, 0)) / half


def ellipse(x0, y0, a, b, phi):
    def inside(x, y):
        u = (x - x0) * np.cos(phi) + (y - y0) * np.sin(phi)
        v = (y - y0) * np.cos(phi) - (x - x0) * np.sin(phi)
        return (u / a) ** 2 + (v / b) ** 2 <= 1

    return inside


SHAPE = 0.2, -0.1, 0.6, 0.3, 0.5
BEAM = ParallelBeam(32, 12)


def as_batch(image):
    return jnp.asarray(image)[None, :, :, None]


def test_the_trapezoid_is_two_boxes_convolved():
    t = np.linspace(-2, 2, 4001)
    for a, b in ((1.0, 0.4), (0.3, 0.9), (0.7, 0.7), (1.0, 0.0)):
        narrow, wide = sorted((a, b))
        cdf = lambda t, w: np.clip(t / w + 0.5, 0, 1)  # of the wide box
        shifts = np.linspace(-narrow / 2, narrow / 2, 2001)
        want = np.mean([cdf(t - s, wide) for s in shifts], 0) - 0.5
        got = trapezoid_integral(jnp.asarray(t), jnp.float32(a), jnp.float32(b))
        np.testing.assert_allclose(got, want, atol=1e-3)


def test_one_pixel_seen_by_fine_cells_is_its_footprint():
    """Against the chords of a square, worked out by sampling the ray, at an oblique angle."""
    beam = ParallelBeam(4, 8, spacing=0.125)
    x = np.zeros((4, 4))
    x[1, 2] = 1  # centre (0.25, 0.25), side 0.5
    got = np.asarray(beam.forward(as_batch(x)))[0, 1, :, 0]
    theta, s = np.pi / 8, axis(8 * beam.cells, beam.width / 8)
    along = np.linspace(-1.5, 1.5, 3001)[:, None]
    px = s * np.cos(theta) - along * np.sin(theta)
    py = s * np.sin(theta) + along * np.cos(theta)
    hit = (np.abs(px - 0.25) < 0.25) & (np.abs(py - 0.25) < 0.25)
    want = hit.mean(0).reshape(-1, 8).mean(1) * 3
    np.testing.assert_allclose(got, want, atol=3e-3)


def test_an_ellipse_has_its_closed_form_sinogram():
    """The error falls with the pixel, in the mean at first order or better."""
    errors = []
    for n in (16, 48):
        beam = ParallelBeam(n, 9)
        y = np.asarray(jax.jit(beam.forward)(as_batch(image_of(ellipse(*SHAPE), n))))[0, :, :, 0]
        errors.append(np.abs(y - chords(beam, *SHAPE)).mean())
    assert errors[0] < 0.02 and errors[1] < errors[0] / 4


@pytest.fixture(scope="module")
def project():
    return jax.jit(BEAM.forward), jax.jit(BEAM.adjoint)


@pytest.mark.parametrize("precision,tolerance", [("float64", 1e-13), ("float32", 1e-6)])
def test_adjoint(precision, tolerance, project):
    with jax.enable_x64(precision == "float64"):
        r = np.random.default_rng(0)
        x = jnp.asarray(r.standard_normal((2, 32, 32, 3)), precision)
        y = jnp.asarray(r.standard_normal((2, 12, BEAM.cells, 3)), precision)
        ax, ay = project[0](x), project[1](y)
        assert ax.dtype == ay.dtype == x.dtype
        scale = float(jnp.linalg.norm(ax) * jnp.linalg.norm(y))
        assert abs(float(jnp.vdot(ax, y)) - float(jnp.vdot(x, ay))) < tolerance * scale


def test_the_gradient_is_the_adjoint(project):
    r = np.random.default_rng(1)
    x, y = r.standard_normal((1, 32, 32, 1)), r.standard_normal((1, 12, BEAM.cells, 1))
    x, y = jnp.asarray(x, jnp.float32), jnp.asarray(y, jnp.float32)
    got = jax.jit(jax.grad(lambda x: jnp.vdot(BEAM.forward(x), y)))(x)
    np.testing.assert_allclose(got, project[1](y), atol=1e-5)


def test_mass_is_conserved_at_every_angle(project):
    x = np.random.default_rng(2).random((1, 32, 32, 1))
    mass = project[0](jnp.asarray(x, jnp.float32)).sum(2) * BEAM.width
    np.testing.assert_allclose(mass, x.sum() * (2 / 32) ** 2, rtol=1e-5)
    np.testing.assert_allclose(BEAM.white().sum(2) * BEAM.width, 4, rtol=1e-5)


def test_white_is_the_image_of_ones(project):
    np.testing.assert_allclose(BEAM.white(), project[0](jnp.ones((1, 32, 32, 1))), atol=1e-5)


def test_a_quarter_turn_moves_the_views(project):
    """Counter-clockwise: what was seen at theta is seen at theta + 90 degrees."""
    x = jnp.asarray(np.random.default_rng(3).random((1, 32, 32, 1)), jnp.float32)
    y, turned = project[0](x), project[0](jnp.rot90(x, axes=(1, 2)))
    np.testing.assert_allclose(turned[:, 6:], y[:, :6], atol=1e-5)
    np.testing.assert_allclose(turned[:, :6], y[:, 6:, ::-1], atol=1e-5)


def test_a_disc_looks_the_same_from_everywhere():
    beam = ParallelBeam(64, 10)
    y = beam.forward(as_batch(image_of(ellipse(0, 0, 0.7, 0.7, 0), 64)))[0, :, :, 0]
    assert float(jnp.abs(y - y.mean(0)).max()) < 0.03 and float(y.max()) > 1.38


def test_fourier_slice():
    """The transform of a view is the image's on a line through 0, times those of pixel and cell."""
    x = image_of(ellipse(*SHAPE), 32)
    y = np.asarray(BEAM.forward(as_batch(x)), np.float64)[0, :, :, 0]
    f, at, s = np.arange(-5, 6) * 0.8, axis(32, 2 / 32), axis(BEAM.cells, BEAM.width)
    for k in (0, 2, 5, 9):
        theta = np.pi * k / 12
        cos, sin = np.cos(theta), np.sin(theta)
        wave = np.exp(-2j * np.pi * f[:, None, None] * (at * cos - at[:, None] * sin))
        want = (wave * x).sum((1, 2)) * (2 / 32) ** 2
        want *= np.sinc(2 / 32 * f * cos) * np.sinc(2 / 32 * f * sin) * np.sinc(BEAM.width * f)
        got = (np.exp(-2j * np.pi * f[:, None] * s) * y[k]).sum(1) * BEAM.width
        edge = np.abs(got - want).max() / np.abs(want).max()
        assert edge < 0.01, (k, edge)  # the cells' sampling folds high frequencies in


def test_filtered_back_projection_is_of_second_order():
    """As pixels and angles grow together: of a Gaussian blob, whose views are Gaussians."""
    std, x0, y0, errors = 0.18, 0.15, 0.1, []
    for n in (16, 32):
        beam, at = ParallelBeam(n, n), axis(n, 2 / n)
        blob = np.exp(-((at - x0) ** 2 + (-at[:, None] - y0) ** 2) / (2 * std**2))
        theta = np.arange(n)[:, None] * np.pi / n
        t = axis(beam.cells, beam.width) - (x0 * np.cos(theta) + y0 * np.sin(theta))
        p = np.sqrt(2 * np.pi) * std * np.exp(-(t**2) / (2 * std**2))
        y = 2 * p[None, :, :, None] - np.asarray(beam.white())
        got = jax.jit(beam.start)(jnp.asarray(y, jnp.float32))
        got = (np.asarray(got)[0, :, :, 0] + 1) / 2
        errors.append(np.abs(got - blob).mean())
    assert errors[0] > 3.6 * errors[1] and errors[1] < 0.0015


def test_kept_views_are_those_of_a_scan_without_the_rest():
    beam, few = ParallelBeam(16, 8), ParallelBeam(16, 4)
    x = jnp.asarray(2 * as_batch(image_of(ellipse(*SHAPE), 16)) - 1, jnp.float32)
    start, y = jax.jit(beam.start), beam.forward(x)
    keep = (jnp.arange(8) % 2 == 0).astype(jnp.float32)[None]
    want = few.start(few.forward(x))
    np.testing.assert_allclose(start(y, keep), want, atol=2e-5)
    error = lambda image: float(jnp.square(image - x).mean())
    assert error(start(y, jnp.ones((1, 8)))) < error(want) / 1.5


def test_noise_belongs_to_the_image_not_to_its_place_or_device():
    beam = ParallelBeam(8, 4, photons=100.0, sigma=0.1)
    keys = rng.image_keys(jax.random.key(0), 8)
    x = jax.random.uniform(jax.random.key(1), (8, 8, 8, 1), minval=-1)
    run = jax.jit(beam.corrupt)
    y = run(keys, x)
    np.testing.assert_allclose(run(keys[::-1], x[::-1]), y[::-1], atol=1e-6)
    put = lambda a: jax.device_put(a, batch_sharding(make_mesh(data=-1)))
    np.testing.assert_allclose(run(put(keys), put(x)), y, atol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match=r"needs size >= 1, angles >= 1.*got 8, 0, 0 and 1.0"):
        ParallelBeam(8, 0)
    with pytest.raises(ValueError, match=r"projects images \(b, 8, 8, c\), got \(1, 9, 9, 1\)"):
        ParallelBeam(8, 4).forward(jnp.zeros((1, 9, 9, 1)))
    with pytest.raises(ValueError, match=r"projections are \(b, 4, 13, c\), got \(1, 4, 9, 1\)"):
        ParallelBeam(8, 4).adjoint(jnp.zeros((1, 4, 9, 1)))
    with pytest.raises(ValueError, match="sigma is the standard deviation"):
        ParallelBeam(8, 4, sigma=-1.0)

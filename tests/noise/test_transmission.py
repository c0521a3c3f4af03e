"""Photon counts: bias and variance of the logarithm, what a scan of nothing is, windows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.noise import backprojection, transmission
from jaxgen.noise.parallel_beam import ParallelBeam


def test_counts_and_their_logarithm():
    keys = rng.image_keys(jax.random.key(0), 4)
    p = jnp.broadcast_to(jnp.array([0.0, 1.0, 2.0])[:, None], (4, 3, 20_000))
    count = jax.jit(lambda k, p: transmission.counts(k, p, 500.0))(keys, p)
    mean = 500 * np.exp(-np.array([0.0, 1.0, 2.0]))
    np.testing.assert_allclose(count.mean((0, 2)), mean, rtol=3e-3)
    np.testing.assert_allclose(count.var((0, 2)), mean, rtol=0.03)
    noisy = np.asarray(transmission.log_ratio(count, 500.0), np.float64)
    np.testing.assert_allclose(noisy.var((0, 2)), 1 / mean, rtol=0.06)
    bias = noisy.mean((0, 2)) - [0, 1, 2]
    np.testing.assert_allclose(bias, 1 / (2 * mean), atol=4 * (1 / mean.min() / 80_000) ** 0.5)


def test_a_ray_without_photons():
    assert float(transmission.log_ratio(jnp.float32(0), 100.0)) == pytest.approx(np.log(100))


def test_more_photons_less_noise_in_units_of_y():
    """The noise of y is that of p divided by density / 2."""
    x, keys = jnp.zeros((64, 8, 8, 1)), rng.image_keys(jax.random.key(0), 64)
    found = {}
    for photons, density in ((1e3, 1.0), (1e4, 2.0)):
        beam = ParallelBeam(8, 2, detectors=9, photons=photons, density=density)
        noise = np.asarray(jax.jit(beam.corrupt)(keys, x) - beam.forward(x[:1]))
        found[photons, density] = noise[:, 0, 4].std()  # a ray of length 2: p = density
    want = 2 / np.sqrt(1e3 * np.exp(-1.0)), 2 / 2 / np.sqrt(1e4 * np.exp(-2.0))
    np.testing.assert_allclose(list(found.values()), want, rtol=0.25)


@pytest.mark.parametrize("window", backprojection.WINDOWS)
def test_the_filter_is_symmetric_positive_and_has_its_response(window):
    m = backprojection.matrix(48, 0.1, window)
    np.testing.assert_array_equal(m, m.T)
    assert np.linalg.eigvalsh(m).min() > 0
    f = 2.5  # half of the Nyquist frequency: far from the ends of the row
    i = np.arange(48) * 0.1
    got = (m[24] * np.exp(2j * np.pi * f * (i - 2.4))).sum()
    want = f * backprojection.WINDOWS[window](np.array(0.5))
    np.testing.assert_allclose([got.real, got.imag], [want, 0], atol=0.2)


def test_the_impulse_response_of_ram_lak():
    row = backprojection.matrix(8, 0.5)[0] / 0.5
    want = [1 / (4 * 0.25), *(-1 / (np.pi * n * 0.5) ** 2 * (n % 2) for n in range(1, 8))]
    np.testing.assert_allclose(row, want, atol=1e-12)


def test_along_any_axis():
    y = jnp.asarray(np.random.default_rng(0).standard_normal((2, 3, 8, 4)), jnp.float32)
    want = np.einsum("ij,bajc->baic", backprojection.matrix(8, 0.5), y)
    np.testing.assert_allclose(backprojection.ramp(y, 0.5, axis=2), want, atol=1e-5)


def test_errors():
    with pytest.raises(ValueError, match=r"no window 'han'; did you mean 'hann'\?"):
        backprojection.matrix(8, 1.0, "han")
    with pytest.raises(ValueError, match="photons that enter a ray must be > 0, got 0"):
        transmission.counts(rng.image_keys(jax.random.key(0), 1), jnp.zeros((1, 2)), 0)
    with pytest.raises(ValueError, match=r"photons >= 0 .* density > 0, got -1.0 and 1.0"):
        ParallelBeam(8, 4, photons=-1.0)

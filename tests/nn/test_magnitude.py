"""Magnitude-preserving layers do preserve magnitudes; resampling is adjoint; gradients at 0."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn import magnitude as mp

RNG = np.random.default_rng(0)


def draw(*shape):
    return RNG.standard_normal(shape).astype("f4")


def square(x):
    return float(np.mean(np.square(x)))


def test_operations_keep_unit_second_moment():
    a, b = draw(400, 300), draw(400, 300)
    assert square(mp.mp_silu(a)) == pytest.approx(1, abs=0.01)
    for t in (0.1, 0.3, 0.5):
        assert square(mp.mp_sum(a, b, t)) == pytest.approx(1, abs=0.02)
    w = {"params": {"w": 7 * draw(300, 64)}}
    assert square(mp.MPConv(64).apply(w, a)) == pytest.approx(1, abs=0.03)


def test_cat_weighs_its_parts_by_t_whatever_their_widths():
    a, b = draw(5000, 60), draw(5000, 20)
    for t in (0.3, 0.5, 0.8):
        y = mp.mp_cat(a, b, t)
        assert square(y) == pytest.approx(1, abs=0.03)
        y = np.asarray(y)
        share = np.sum(y[:, 60:] ** 2) / np.sum(y[:, :60] ** 2)
        assert float(share) == pytest.approx((t / (1 - t)) ** 2, rel=0.05)


def test_fourier_features_are_a_gaussian_kernel():
    """E[f(x) f(y)] = E cos(2 pi N(0, 1) (x - y)) = exp(-(2 pi (x - y))^2 / 2)."""
    params = {"freqs": 2 * np.pi * draw(40_000), "phases": 2 * np.pi * RNG.random(40_000)}
    x = np.float32([0.0, 0.1, 0.3])
    f = np.asarray(mp.MPFourier(40_000).apply({"params": params}, x))
    want = np.exp(-((2 * np.pi * (x[:, None] - x)) ** 2) / 2)
    np.testing.assert_allclose(f @ f.T / 40_000, want, atol=0.03)


def test_gradients_of_a_weight_stay_on_its_sphere():
    """Only the direction of a weight matters, so its gradient is orthogonal to it."""
    w, x = 3 * draw(30, 8), draw(16, 30)
    loss = lambda w: jnp.sum(jnp.sin(mp.MPConv(8).apply({"params": {"w": w}}, x)))
    g = jax.jit(jax.grad(loss))(w)
    g, w = np.asarray(g), np.asarray(w)
    cosine = np.sum(g * w, 0) / np.linalg.norm(g, axis=0) / np.linalg.norm(w, axis=0)
    np.testing.assert_allclose(cosine, 0, atol=1e-3)


def test_normalisation_has_a_fixed_point_and_a_gradient_at_zero():
    """rms r goes to r / (eps + r), which 1 - eps stays."""
    w = {"layer": {"w": 5 * draw(64, 8)}, "gain": jnp.float32(3)}
    project = jax.jit(mp.project)
    once = project(w)
    twice = project(once)
    assert float(twice["gain"]) == 3
    rms = lambda w: np.sqrt(np.mean(np.asarray(w["layer"]["w"], np.float64) ** 2, 0))
    np.testing.assert_allclose(rms(once), rms(w) / (mp.EPS + rms(w)), rtol=1e-6)
    np.testing.assert_allclose(rms(twice), 1 - mp.EPS, rtol=1e-6)
    g = jax.jit(jax.grad(lambda x: mp.pixel_norm(x).sum()))(jnp.zeros((2, 5)))
    np.testing.assert_allclose(g, 1 / mp.EPS, rtol=1e-5)  # x / eps there


@pytest.mark.parametrize("taps", [(1, 3), (1, 2, 3, 4)])
def test_up_is_four_times_the_adjoint_of_down(taps):
    x, y, ones = draw(1, 6, 6, 2), draw(1, 12, 12, 2), np.ones((1, 12, 12, 2), "f4")
    up, down, flat = jax.jit(
        lambda: (
            mp.resample(x, "up", taps),
            mp.resample(y, "down", taps),
            mp.resample(ones, "down", taps),
        )
    )()
    assert up.shape == y.shape and down.shape == x.shape
    np.testing.assert_allclose(np.vdot(up, y), 4 * np.vdot(x, down), rtol=1e-4)
    # Away from the zeros beyond the border, a constant stays.
    np.testing.assert_allclose(np.asarray(flat)[0, 2:-2, 2:-2], 1, rtol=1e-6)


def test_the_paper_s_filter_is_the_mean_and_the_nearest_neighbour():
    """The short form of [1, 1] is the general one."""
    x = draw(2, 4, 4, 3)
    pairs = jax.jit(
        lambda: [(mp.resample(x, m), mp.resample(x, m, (0, 1, 1, 0))) for m in ("up", "down")]
    )()
    for short, general in pairs:
        np.testing.assert_allclose(short, general, atol=1e-6)
    assert mp.resample(x, "keep", (1, 3, 3, 1)) is x


def test_odd_filters_are_refused():
    with pytest.raises(ValueError, match=r"even number of taps, got \(1, 2, 1\)"):
        mp.resample(jnp.ones((1, 4, 4, 1)), "up", (1, 2, 1))

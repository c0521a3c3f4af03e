"""Equivariance: waves that move exactly, images that do not move, what moved images know."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.metrics import equivariance as eq

N = 40
# Cycles an image: of a pixel at most 0.2, which Lanczos filters pass.
FREQS = np.random.default_rng(0).uniform(-5.5, 5.5, (6, 2))


def waves(ws, transform):
    """Images (b, N, N, 1) of waves with phases ws (b, 6), at transformed points: equivariant."""
    at = (np.arange(N) - (N - 1) / 2) / N
    x, y = np.meshgrid(at, at)
    points = np.stack([x, y, np.ones_like(x)], -1) @ np.asarray(transform, np.float64).T
    angles = 2 * np.pi * (points[..., :2] @ FREQS.T) + np.asarray(ws)[:, None, None]
    return jnp.asarray(np.sin(angles).mean(-1, keepdims=True), jnp.float32)


STYLES = [np.random.default_rng(i).uniform(0, 6, (2, 6)) for i in (1, 2)]
STILL = waves(STYLES[0], np.eye(3))


def test_what_moves_exactly_has_high_values():
    """Whole pixels lose rounding only; Lanczos filters and those of rotations are not ideal."""
    found = eq.measure(waves, STYLES)
    assert found["eq_t"] > 110 and found["eq_t_frac"] > 45 and found["eq_r"] > 40
    assert found == eq.measure(waves, STYLES) != eq.measure(waves, STYLES, seed=1)


def test_what_does_not_move_has_low_values():
    stuck = lambda ws, transform: waves(ws, np.eye(3))
    assert max(eq.measure(stuck, STYLES).values()) < 20
    constant = lambda ws, transform: jnp.ones((2, N, N, 3))
    assert eq.measure(constant, STYLES)["eq_t"] == np.inf


def test_the_definition():
    """All errors and all counts are summed before the logarithm; peak to peak is 2."""
    total = np.array([[4.0, 100.0], [8.0, 2.0], [0.0, 1.0]])
    np.testing.assert_allclose(eq.decibels(total), [20.0, 0.0, np.inf], atol=1e-12)
    off = lambda ws, t: waves(ws, t) + 0.2 * (np.abs(t - np.eye(3)).max() > 0)
    draw = eq.Draw(np.array([0.9, 0.2]), np.array([0.3, 0.6]), 0.8)
    got = eq.errors(off, STYLES[0], draw)
    moved = np.rint((2 * draw.shift - 1) / 8 * N)  # x, y
    known = 2 * np.prod(N - np.abs(moved))
    np.testing.assert_allclose(got[0], [0.04 * known, known], rtol=1e-4)
    np.testing.assert_allclose(got[:, 0] / got[:, 1], 0.04, rtol=0.02)


@pytest.mark.parametrize("angle", [0.0, 0.3, -1.2, np.pi / 2, 3.0])
def test_the_filter_of_a_rotation(angle):
    """1 well inside of both squares of frequencies, 0 well outside of one; constants stay."""
    f = eq.low_pass(angle, 4)
    assert f.shape == (48, 48) and not f[0].any() and not f[:, 0].any()
    np.testing.assert_allclose(f[1:, 1:], f[:0:-1, :0:-1], atol=1e-12)
    for i in range(4):
        for j in range(4):
            assert f[i::4, j::4].sum() == pytest.approx(1 / 16, abs=1e-9)
    at = np.arange(-24, 24) / 4
    k = np.random.default_rng(0).uniform(-1, 1, (400, 2))
    response = np.einsum("kx,yx,ky->k", np.exp(2j * np.pi * k[:, :1] * at), f,
                         np.exp(2j * np.pi * k[:, 1:] * at)).real  # fmt: skip
    c, s = np.cos(angle), np.sin(angle)
    turned = np.abs(k @ np.array([[c, -s], [s, c]])).max(1)
    far = np.maximum(np.abs(k).max(1), turned)
    np.testing.assert_allclose(response[far < 0.3], 1, atol=0.03)
    np.testing.assert_allclose(response[far > 0.75], 0, atol=0.03)
    edge = eq.low_pass(angle, 1)
    assert edge.shape == (12, 12) and edge.sum() == pytest.approx(1, abs=1e-9)


def test_the_ideal_filter_is_a_fourier_integral():
    x, y = np.array([0.0, 0.3, -1.7]), np.array([0.0, -2.2, 0.4])
    at = (np.arange(2000) + 0.5) / 2000 - 0.5
    kx, ky = np.meshgrid(at, at)
    both = np.maximum(abs(kx * 0.8 + ky * 0.6), abs(ky * 0.8 - kx * 0.6)) < 0.5  # 3, 4, 5
    want = [(both * np.cos(2 * np.pi * (kx * i + ky * j))).mean() for i, j in zip(x, y)]
    np.testing.assert_allclose(eq._in_both(x, y, np.arctan2(0.6, 0.8)), want, atol=2e-4)


def test_a_quarter_turn_and_whole_fractions():
    turned, known = eq.rotate(STILL, np.pi / 2)
    want = jnp.rot90(STILL, 1, (1, 2))  # shows at (x, y) what was at (-y, x)
    np.testing.assert_allclose(turned[:, known], want[:, known], atol=5e-3)
    assert 0.4 < known.mean() < 0.6
    whole, known = eq.shift(STILL, np.array([3, -2]))
    part, fewer = eq.shift_fractional(STILL, np.array([3.0, -2.0]))
    np.testing.assert_allclose(part, whole, atol=1e-6)
    assert known.sum() == 37 * 38 and (known | ~fewer).all()


def test_errors():
    with pytest.raises(ValueError, match="at least one batch, of images larger than 12 pixels"):
        eq.measure(waves, [])
    small = lambda ws, t: jnp.zeros((1, 12, 12, 1))
    with pytest.raises(ValueError, match="no pixel was compared"):
        eq.measure(small, STYLES)

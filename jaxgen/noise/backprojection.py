"""Ramp filter: what makes back-projection an inverse, band-limited (doi:10.1073/pnas.68.9.2236).

The filter |f| below the detector's Nyquist frequency 1 / (2 s), s the spacing of cells, is

    h(0) = 1 / (4 s^2) ,   h(n) = -1 / (pi n s)^2 for odd n ,   0 for even n ,

and filtered projections are q_i = s sum_j h(i - j) p_j. Windows multiply it in frequency; with
t = 2 s |f| in [0, 1] they are 1 (ram-lak), sin(pi t / 2) / (pi t / 2) (shepp-logan),
cos(pi t / 2) (cosine), 0.54 + 0.46 cos(pi t) (hamming) and (1 + cos(pi t)) / 2 (hann).
"""

import difflib
from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np

WINDOWS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "ram-lak": np.ones_like,
    "shepp-logan": lambda t: np.sinc(t / 2),
    "cosine": lambda t: np.cos(np.pi * t / 2),
    "hamming": lambda t: 0.54 + 0.46 * np.cos(np.pi * t),
    "hann": lambda t: 0.5 + 0.5 * np.cos(np.pi * t),
}


def check(window: str) -> None:
    """Raises ValueError for a window that is not in WINDOWS, with the nearest name."""
    if window not in WINDOWS:
        near = difflib.get_close_matches(window, WINDOWS, 1, cutoff=0.0)[0]
        raise ValueError(
            f"there is no window {window!r}; did you mean {near!r}? They are {list(WINDOWS)}"
        )


@lru_cache(maxsize=32)
def matrix(cells: int, spacing: float, window: str = "ram-lak") -> np.ndarray:
    """The filter as a symmetric matrix (cells, cells), float64; no wrap-around.

    Raises:
      ValueError: for an unknown window.
    """
    check(window)
    period = 4 * cells  # room for what a window makes of the impulse response
    n = np.fft.fftfreq(period, 1 / period)
    h = np.where(n % 2 == 1, -1.0 / np.square(np.pi * spacing * np.where(n == 0, 1, n)), 0.0)
    h[0] = 1 / (4 * spacing**2)
    response = np.fft.rfft(h) * WINDOWS[window](2 * np.fft.rfftfreq(period))
    h = np.fft.irfft(response, period)
    i = np.arange(cells)
    return spacing * h[np.abs(i[:, None] - i)]


def ramp(y: jax.Array, spacing: float, window: str = "ram-lak", axis: int = -1) -> jax.Array:
    """Filters projections along `axis`, whose cells are `spacing` apart; any shape."""
    m = jnp.asarray(matrix(y.shape[axis], spacing, window), y.dtype)
    return jnp.moveaxis(jnp.moveaxis(y, axis, -1) @ m, -1, axis)

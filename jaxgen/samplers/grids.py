"""Noise-level grids: the sequence of sigma that a sampler visits (arXiv:2206.00364, Table 1).

Each gives n levels from sigma_max down to sigma_min, then 0: (n + 1,) float64. A network that
supports fewer levels needs its range passed: an iDDPM network begins at u_(M-1) = 0.0064, say, and
knows the levels of its table only, see `rounded`.
"""

from collections.abc import Callable

import numpy as np

from jaxgen.noise import iddpm as tables
from jaxgen.noise import vp as times

EPSILON_S = 1e-3  # the time that VP sampling ends at; training goes down to 1e-5


def edm(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> np.ndarray:
    """n levels from sigma_max down to sigma_min, then 0: (n + 1,) float64.

    sigma_i = (sigma_max^(1/rho) + i / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho.

    Raises:
      ValueError: for n < 2 or levels out of order.
    """
    _check(n, sigma_min, sigma_max)
    a, b = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.append((a + np.arange(n) / (n - 1) * (b - a)) ** rho, 0.0)


def geometric(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0) -> np.ndarray:
    """sigma_i = sigma_max (sigma_min / sigma_max)^(i / (n - 1)), then 0: (n + 1,) float64.

    Uniform in ln sigma, that is in log-SNR, as DPM-Solver takes it (arXiv:2211.01095).

    Raises:
      ValueError: for n < 2 or levels out of order.
    """
    _check(n, sigma_min, sigma_max)
    return np.append(sigma_max * (sigma_min / sigma_max) ** (np.arange(n) / (n - 1)), 0.0)


def ve(n: int, sigma_min: float = 0.02, sigma_max: float = 100.0) -> np.ndarray:
    """`geometric` over the range of VE networks."""
    return geometric(n, sigma_min, sigma_max)


def vp_betas(
    sigma_min: float, sigma_max: float, epsilon_s: float = EPSILON_S
) -> tuple[float, float]:
    """(beta_d, beta_min) with which sigma(epsilon_s) = sigma_min and sigma(1) = sigma_max."""
    low, high = np.log1p(sigma_min**2), np.log1p(sigma_max**2)
    beta_d = 2 * (high - low / epsilon_s) / (1 - epsilon_s)
    return float(beta_d), float(high - beta_d / 2)


def vp(
    n: int,
    sigma_min: float = float(times.sigma(EPSILON_S)),
    sigma_max: float = float(times.sigma(1.0)),
    epsilon_s: float = EPSILON_S,
) -> np.ndarray:
    """Levels of evenly spaced times, 1 to epsilon_s, then 0: (n + 1,) float64.

    beta_d and beta_min are 19.9 and 0.1 for the default range; for another they are solved for
    again, so that both ends are met.

    Raises:
      ValueError: for n < 2 or levels out of order.
    """
    _check(n, sigma_min, sigma_max)
    t = 1 + np.arange(n) / (n - 1) * (epsilon_s - 1)
    return np.append(times.sigma(t, *vp_betas(sigma_min, sigma_max, epsilon_s)), 0.0)


def iddpm(
    n: int,
    sigma_min: float = 0.002,
    sigma_max: float = 81.0,
    M: int = 1000,
    C_1: float = 0.001,
    C_2: float = 0.008,
) -> np.ndarray:
    """n of the levels u_j inside of [sigma_min, sigma_max], evenly by index, then 0: (n + 1,).

    The first is the highest inside, 80.2 of 81. Indices are rounded, halves to even.

    Raises:
      ValueError: for n < 2, levels out of order, or more levels than the table has inside.
    """
    _check(n, sigma_min, sigma_max)
    u = tables.table(M, C_1, C_2)
    u = u[(u >= sigma_min) & (u <= sigma_max)]
    if n > len(u):
        raise ValueError(
            f"the iDDPM table has {len(u)} levels from {sigma_min} to {sigma_max}, not n={n}"
        )
    return np.append(u[np.round((len(u) - 1) / (n - 1) * np.arange(n)).astype(int)], 0.0)


def rounded(sigmas: np.ndarray, round_sigma: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """A grid's levels as a network knows them (Family.round_sigma), then 0.

    Levels that become equal to the one before, or 0, are dropped: the result may be shorter.
    """
    s = round_sigma(np.asarray(sigmas[:-1], np.float64))
    return np.append(s[(np.diff(s, prepend=np.inf) < 0) & (s > 0)], 0.0)


def _check(n: int, sigma_min: float, sigma_max: float) -> None:
    if n < 2 or not 0 < sigma_min < sigma_max < np.inf:
        raise ValueError(
            f"a grid needs n >= 2 and 0 < sigma_min < sigma_max, got n={n}, sigma_min={sigma_min}, "
            f"sigma_max={sigma_max}"
        )


GRIDS: dict[str, Callable[..., np.ndarray]] = {
    "edm": edm,
    "geometric": geometric,
    "vp": vp,
    "ve": ve,
    "iddpm": iddpm,
}

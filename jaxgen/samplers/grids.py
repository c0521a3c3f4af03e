"""Noise-level grids: the sequence of sigma that a sampler visits (arXiv:2206.00364, Eq. 5)."""

import numpy as np


def edm(n: int, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: float = 7.0) -> np.ndarray:
    """n levels from sigma_max down to sigma_min, then 0: (n + 1,) float64.

    sigma_i = (sigma_max^(1/rho) + i / (n - 1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho.

    Raises:
      ValueError: for n < 2 or levels out of order.
    """
    if n < 2 or not 0 < sigma_min < sigma_max:
        raise ValueError(
            f"a grid needs n >= 2 and 0 < sigma_min < sigma_max, got n={n}, sigma_min={sigma_min}, "
            f"sigma_max={sigma_max}"
        )
    a, b = sigma_max ** (1 / rho), sigma_min ** (1 / rho)
    return np.append((a + np.arange(n) / (n - 1) * (b - a)) ** rho, 0.0)

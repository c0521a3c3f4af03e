"""iDDPM noise: a table of levels, u_0 > ... > u_M = 0, cosine schedule (arXiv:2102.09672, Eq. 17).

As rewritten for images that are not scaled (arXiv:2206.00364, Table 1):

    u_(j-1) = sqrt((u_j^2 + 1) / max(abar_(j-1) / abar_j, C_1) - 1),
    abar_j = sin^2(pi / 2  j / (M (C_2 + 1)))
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


@functools.lru_cache(maxsize=8)
def table(M: int = 1000, C_1: float = 0.001, C_2: float = 0.008) -> np.ndarray:
    """u (M + 1,), decreasing, in float64 and read-only.

    Published iDDPM networks run this recursion in float32 and differ by up to 4.8e-4 relative.
    """
    abar = np.sin(np.pi / 2 * np.arange(M + 1) / (M * (C_2 + 1))) ** 2
    u = np.zeros(M + 1)
    for j in range(M, 0, -1):
        u[j - 1] = np.sqrt((u[j] ** 2 + 1) / max(abar[j - 1] / abar[j], C_1) - 1)
    u.flags.writeable = False
    return u


def nearest(sigma: jax.Array | np.ndarray | float, u: np.ndarray) -> jax.Array | np.ndarray:
    """argmin_j |u_j - sigma|, int32 of sigma's shape; the larger level where two are as near."""
    between = (u[:-1] + u[1:]) / 2
    if isinstance(sigma, jax.Array):
        return (sigma[..., None] < jnp.asarray(between, sigma.dtype)).sum(-1, dtype=jnp.int32)
    return (np.asarray(sigma, np.float64)[..., None] < between).sum(-1, dtype=np.int32)

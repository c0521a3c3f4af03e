"""VP noise: beta rises linearly in time; levels sigma for times t and back (arXiv:2011.13456).

    1 + sigma(t)^2 = exp(beta_d t^2 / 2 + beta_min t),  t in [0, 1]

in images that are not scaled, x / s(t) with s = 1 / sqrt(1 + sigma^2) (arXiv:2206.00364, Table 1).
Written with log1p and expm1: near 0 the textbook forms lose 1% of t in float32.
Functions of numpy arrays answer in float64, functions of jax arrays on the device.
"""

import jax
import jax.numpy as jnp
import numpy as np

BETA_D, BETA_MIN = 19.9, 0.1


def sigma(
    t: jax.Array | np.ndarray | float, beta_d: float = BETA_D, beta_min: float = BETA_MIN
) -> jax.Array | np.ndarray:
    """sigma(t) = sqrt(exp(beta_d t^2 / 2 + beta_min t) - 1) for times t in [0, 1], any shape."""
    xp = jnp if isinstance(t, jax.Array) else np
    return xp.sqrt(xp.expm1((beta_d / 2 * t + beta_min) * t))


def time(
    sigma: jax.Array | np.ndarray | float, beta_d: float = BETA_D, beta_min: float = BETA_MIN
) -> jax.Array | np.ndarray:
    """t(sigma) = (sqrt(beta_min^2 + 2 beta_d ln(1 + sigma^2)) - beta_min) / beta_d, the inverse."""
    xp = jnp if isinstance(sigma, jax.Array) else np
    log = xp.log1p(xp.square(sigma))
    return 2 * log / (xp.sqrt(beta_min**2 + 2 * beta_d * log) + beta_min)

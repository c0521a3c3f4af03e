"""Corruption operators: Gaussian noise of a level or a range of levels (arXiv:1803.04189, 3.1).

Images are in [-1, 1]; levels are in grey levels of 0..255, as denoising papers state them: sigma 25
is a standard deviation of 25 / 127.5 in [-1, 1]. Nothing is clipped or rounded after the noise.
"""

import jax
import jax.numpy as jnp

from jaxgen.common import rng

GREY = 127.5  # grey levels in one unit of [-1, 1]
Level = float | tuple[float, float]


def levels(keys: jax.Array, sigma: Level) -> jax.Array:
    """Levels (b,) in grey levels: `sigma` itself, or uniform between its two ends, one an image.

    Raises:
      ValueError: for a negative level, or a range that is not (low, high).
    """
    low, high = sigma if isinstance(sigma, (tuple, list)) and len(sigma) == 2 else (sigma, sigma)
    if isinstance(low, (tuple, list)) or low < 0 or high < low:
        raise ValueError(
            "sigma is a level >= 0 in grey levels of 0..255, or a range (low, high) of them, got "
            f"{sigma!r}"
        )
    if low == high:
        return jnp.full(keys.shape, low, jnp.float32)
    return low + (high - low) * rng.uniform(keys)


def gaussian(keys: jax.Array, x: jax.Array, sigma: Level) -> jax.Array:
    """x + n, n ~ N(0, (sigma / 127.5)^2), independent of the batch an image is in.

    Args:
      keys: (b,) typed keys. x: images (b, h, w, c) in [-1, 1].
      sigma: grey levels of 0..255, or a range (low, high) from which each image draws its own.
    Returns:
      (b, h, w, c), outside [-1, 1] where the noise takes it.
    """
    level, noise = rng.split(keys, 2)
    std = levels(level, sigma) / GREY
    return x + std[:, None, None, None] * rng.normal(noise, x.shape[1:])

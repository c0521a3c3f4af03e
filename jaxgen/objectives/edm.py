"""EDM loss: weighted denoising score matching at random levels (arXiv:2206.00364, Eq. 2 and 8).

L = sum_pixels  lambda(sigma) |D(y + n; sigma) - y|^2,  n ~ N(0, sigma^2 I)
"""

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise.levels import Draw, Weight
from jaxgen.noise.precondition import Cond, Denoise, expand


def loss(
    denoise: Denoise, y: jax.Array, keys: jax.Array, cond: Cond, draw: Draw, weight: Weight
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss at a level and noise of its own for each image.

    Args:
      denoise: D. y: clean images (b, h, w, c). keys: (b,) typed keys. cond: conditions of denoise.
      draw: keys (b,) -> sigma (b,). weight: lambda, sigma (b,) -> (b,). See `levels.training`.
    Returns:
      (per-example loss (b,), summed over pixels as in the paper; {"mse": weighted error per pixel
      (b,)}).
    """
    level, noise = rng.split(keys, 2)
    return loss_at(denoise, y, draw(level), rng.normal(noise, y.shape[1:]), cond, weight)


def loss_at(
    denoise: Denoise, y: jax.Array, sigma: jax.Array, eps: jax.Array, cond: Cond, weight: Weight
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`loss` at given levels sigma (b,) and unit normals eps (b, h, w, c)."""
    x0 = denoise(y + expand(sigma, y) * eps, sigma, cond)
    weighted = expand(weight(sigma), y) * jnp.square(x0 - y)
    axes = tuple(range(1, y.ndim))
    return weighted.sum(axes), {"mse": weighted.mean(axes)}

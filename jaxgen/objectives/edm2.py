"""EDM2 loss: denoising score matching weighed by learned uncertainty (arXiv:2312.02696, Eq. 14-21).

    L = sum_pixels  lambda(sigma) / e^u(sigma) |D(y + n; sigma) - y|^2 + u(sigma),  n ~ N(0, s^2 I)

The weight of every noise level is balanced by u, which tends to the log of the level's loss.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise import levels
from jaxgen.noise.precondition import Cond, Denoise
from jaxgen.objectives import edm


def loss(
    denoise: Denoise,
    uncertainty: Callable[[jax.Array], jax.Array],
    y: jax.Array,
    keys: jax.Array,
    cond: Cond = None,
    *,
    P_mean: float = -0.4,
    P_std: float = 1.0,
    sigma_data: float = 0.5,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """The loss at a level and noise of its own for each image.

    Args:
      denoise: D. uncertainty: sigma (b,) -> u (b,); `lambda s: 0 * s` gives the EDM loss.
      y: clean images (b, h, w, c). keys: (b,) typed keys. cond: conditions of denoise.
      P_mean, P_std: of ln sigma. sigma_data: standard deviation of y.
    Returns:
      (per-example loss (b,), summed over pixels as in the paper; {"mse": weighted error per pixel
      (b,), before the uncertainty}).
    """
    level, noise = rng.split(keys, 2)
    sigma = levels.lognormal(level, P_mean, P_std)
    return loss_at(denoise, uncertainty, y, sigma, rng.normal(noise, y.shape[1:]), cond, sigma_data)


def loss_at(
    denoise: Denoise,
    uncertainty: Callable[[jax.Array], jax.Array],
    y: jax.Array,
    sigma: jax.Array,
    eps: jax.Array,
    cond: Cond = None,
    sigma_data: float = 0.5,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`loss` at given levels sigma (b,) and unit normals eps (b, h, w, c)."""
    weight = lambda sigma: levels.edm_weight(sigma, sigma_data)
    each, metrics = edm.loss_at(denoise, y, sigma, eps, cond, weight)
    u = uncertainty(sigma)
    return each / jnp.exp(u) + u * y[0].size, metrics

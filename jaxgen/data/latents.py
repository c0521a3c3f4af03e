"""Latents of an autoencoder: drawn anew at each look, scaled to zero mean and deviation 1/2.

A latent data set holds moments (h, w, 2 c): the mean and the standard deviation of each latent.
"""

import jax
import jax.numpy as jnp

from jaxgen.common import rng

# Of the Stable Diffusion autoencoder's latents of ImageNet-512 (arXiv:2312.02696, App. A).
MEAN = (5.81, 3.25, 0.12, -2.15)
STD = (4.17, 4.62, 3.71, 3.28)
SIGMA_DATA = 0.5


def draw(
    keys: jax.Array,
    moments: jax.Array,
    mean: tuple[float, ...] = MEAN,
    std: tuple[float, ...] = STD,
) -> jax.Array:
    """Latents (b, h, w, c) ~ N(m, s^2), then (. - mean) / std / 2, from moments (b, h, w, 2 c).

    Raises:
      ValueError: when moments do not have twice the channels of `mean`.
    """
    c = len(mean)
    if moments.shape[-1] != 2 * c:
        raise ValueError(
            f"latents of {c} channels come as moments of {2 * c} channels (mean, deviation), got "
            f"{moments.shape}"
        )
    m, s = moments[..., :c].astype(jnp.float32), moments[..., c:].astype(jnp.float32)
    x = m + s * rng.normal(keys, m.shape[1:])
    return (x - jnp.asarray(mean)) / jnp.asarray(std) * SIGMA_DATA

"""Style mixing: two latents share the layers of an image (arXiv:1812.04948, Sec. 3.1).

Layers learn not to count on the styles of others.
"""

import jax
import jax.numpy as jnp

from jaxgen.common import rng


def mix(
    keys: jax.Array, first: jax.Array, second: jax.Array, num_ws: int, prob: float = 0.9
) -> jax.Array:
    """Styles of every layer: `first` up to a random layer, `second` from there on.

    Args:
      keys: (b,) typed keys. first, second: styles (b, w) of independent latents and equal labels.
      num_ws: L, layers that take a style. prob: share of images that are mixed.
    Returns:
      (b, L, w). The crossover is uniform over layers 1 to L - 1; not mixed means `first` alone.
      It is drawn for each image, where the authors' code draws it for a batch.
    """
    gate, layer = rng.uniform(keys, (2,)).T
    cutoff = jnp.where(gate < prob, 1 + jnp.floor(layer * (num_ws - 1)), num_ws)
    return mix_at(first, second, cutoff, num_ws)


def mix_at(first: jax.Array, second: jax.Array, cutoff: jax.Array, num_ws: int) -> jax.Array:
    """`mix` with `second` from layer cutoff (b,) on: (b, L, w)."""
    coarse = jnp.arange(num_ws)[:, None] < cutoff[:, None, None]
    return jnp.where(coarse, first[:, None], second[:, None])

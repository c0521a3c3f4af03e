"""Augmentations: pure functions of one key an image."""

import jax
import jax.numpy as jnp

from jaxgen.common import rng


def hflip(keys: jax.Array, x: jax.Array) -> jax.Array:
    """Each image mirrored left to right with probability 1/2.

    Args:
      keys: (b,) typed keys. x: (b, h, w, c), any dtype.
    Returns:
      (b, h, w, c), image i depending on keys[i] and x[i] only.
    """
    flip = rng.uniform(keys) < 0.5
    return jnp.where(flip[:, None, None, None], x[:, :, ::-1], x)

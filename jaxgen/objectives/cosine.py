"""Cosine schedule: from one value to another over a number of images (arXiv:2501.05441)."""

import math

import jax
import jax.numpy as jnp


def schedule(nimg: jax.Array | float, start: float, end: float, images: float) -> jax.Array:
    """start + (end - start) (1 - cos(pi t)) / 2 with t = min(nimg / images, 1): ().

    R3GAN moves its learning rate, gamma, beta2, the half-life of the average and the probability of
    augmentation so.

    Args:
      nimg: images seen. start, end: values at 0 and from `images` on.
    """
    t = jnp.clip(jnp.asarray(nimg, jnp.float32) / images, 0, 1)
    s = jnp.square(jnp.sin(0.5 * math.pi * t))  # (1 - cos(pi t)) / 2, exact for small t
    return start * (1 - s) + end * s

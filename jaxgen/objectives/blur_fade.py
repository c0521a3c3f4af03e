"""Blur fade-in: a discriminator sees blurred images first (arXiv:2106.12423, App. F).

A generator without aliasing learns slowly where a discriminator attends to fine detail from the
start. Real and generated images are blurred alike, before any augmentation, by

    k(i) = 2^-(i / sigma)^2 for |i| <= floor(3 sigma), of unit sum,
    sigma = start max(1 - nimg / images, 0)
"""

import math

import jax
import jax.numpy as jnp
import numpy as np


def sigma_at(nimg: jax.Array | float, start: float = 10.0, images: float = 200_000) -> jax.Array:
    """sigma () in pixels after nimg images: from `start` to 0 over `images`."""
    return start * jnp.maximum(1 - jnp.asarray(nimg, jnp.float32) / images, 0)


def blur(
    x: jax.Array, nimg: jax.Array | float, *, start: float = 10.0, images: float = 200_000
) -> jax.Array:
    """Images (b, h, w, c) as the discriminator sees them after nimg images; zero beyond the edges.

    One compiled program serves all of training: the kernel is a matrix of each axis, made from the
    traced sigma, and skipped by a conditional once floor(3 sigma) = 0.
    """
    sigma = sigma_at(nimg, start, images)
    radius = jnp.floor(3 * sigma)
    sigma = jnp.maximum(sigma, 1e-3)  # of the branch not taken: no division by zero

    def kernel(i: np.ndarray) -> jax.Array:
        return jnp.where(abs(i) <= radius, jnp.exp2(-jnp.square(i / sigma)), 0)

    def blurred(x: jax.Array) -> jax.Array:
        reach = math.floor(3 * start)
        total = kernel(np.arange(-reach, reach + 1)).sum()
        rows, cols = (
            kernel(np.subtract.outer(np.arange(n), np.arange(n))) / total for n in x.shape[1:3]
        )
        return jnp.einsum("ih,bhwc,jw->bijc", rows, x, cols, precision="highest")

    return jax.lax.cond(radius > 0, blurred, lambda x: x, x)

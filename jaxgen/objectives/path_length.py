"""Path length: a step in w should change the image equally everywhere (arXiv:1912.04958, sec. 3.2).

    L = weight (|J_w^T y| - a)^2,   y ~ N(0, I) / sqrt(h w),   a: moving mean of lengths |J_w^T y|

The regulariser is dear, and half of a batch does: `shrink` takes it, and `spread` gives the whole
batch its values, since a loss returns one an image.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.common import rng


def penalty(
    synthesize: Callable[[jax.Array], jax.Array],
    ws: jax.Array,
    keys: jax.Array,
    pl_mean: jax.Array,
    *,
    weight: float = 2.0,
    decay: float = 0.01,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The penalty, the lengths, and the new mean.

    Args:
      synthesize: styles (b, L, w) -> images (b, h, w, c). ws: styles, one a layer.
      keys: (b,) for y. pl_mean: () moving mean a, 0 at the start.
      weight: gamma_pl. decay: how far the mean moves towards the batch's.
    Returns:
      (penalty (b,), lengths (b,), new pl_mean ()). The penalty is against the *new* mean and its
      gradient flows through it; what is returned to be stored does not carry a gradient.
      A length is sqrt(mean over layers of the squared norm over w).
    """
    images, back = jax.vjp(synthesize, ws)
    y = rng.normal(keys, images.shape[1:]) / float(images.shape[1] * images.shape[2]) ** 0.5
    return penalty_at(back(y.astype(images.dtype))[0], pl_mean, weight, decay)


def penalty_at(
    gradient: jax.Array, pl_mean: jax.Array, weight: float = 2.0, decay: float = 0.01
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """`penalty` of given J_w^T y (b, L, w)."""
    lengths = jnp.sqrt(jnp.square(gradient).sum(2).mean(1))
    mean = pl_mean + decay * (lengths.mean() - pl_mean)
    return weight * jnp.square(lengths - mean), lengths, jax.lax.stop_gradient(mean)


def shrink(tree: Any, factor: int = 2) -> Any:
    """Every factor-th row of each array (b, ...): keys, labels, latents of the smaller batch.

    Strided, so that devices which share the batch keep equal shares of it.

    Raises:
      ValueError: when the factor does not divide the batch.
    """

    def rows(x: jax.Array) -> jax.Array:
        if len(x) % factor:
            raise ValueError(
                f"the batch shrink of path length must divide the batch, got {factor} for "
                f"{len(x)} images"
            )
        return x.reshape(len(x) // factor, factor, *x.shape[1:])[:, 0]

    return jax.tree.map(rows, tree)


def spread(each: jax.Array, factor: int = 2) -> jax.Array:
    """Values (b / factor,) of a shrunken batch as (b,), of equal mean."""
    return jnp.repeat(each, factor)

"""Batch normalisation, plain or conditional (arXiv:1502.03167; arXiv:1707.00683).

    y = gain (x - mean) / sqrt(var + eps) + shift

In training mean and (biased) variance are those of the batch and its pixels, and the kept ones move
towards them by `momentum`, the unbiased variance in place of the biased one; otherwise the kept
ones are used. They are tracked leaves (`common.params`). Where a batch is sharded over devices, the
moments are of all of it: XLA sees one array.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import ones, param, track, tracked, training, zeros
from jaxgen.nn.layers import Dense

MEAN, VAR = "mean", "var"  # the tracked leaves' names


def moments(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean and biased variance (c,) of x (..., c) over all axes but the last, in float32."""
    axes = tuple(range(x.ndim - 1))
    x = x.astype(jnp.float32)
    mean = x.mean(axes)
    return mean, jnp.square(x - mean).mean(axes)


def normalise(
    module: nn.Module,
    x: jax.Array,
    gain: jax.Array,
    shift: jax.Array,
    eps: float = 1e-5,
    momentum: float = 0.1,
) -> jax.Array:
    """Normalises x (b, h, w, c) with the moments that `module` keeps; see the first lines.

    Args:
      gain, shift: (c,), or of each image (b, c). momentum: the share of the batch in what is kept.
    Returns:
      (b, h, w, c), float32.
    Raises:
      ValueError: in training, for a batch that is one value a channel.
    """
    c = x.shape[-1]
    mean, var = tracked(module, MEAN, zeros, (c,)), tracked(module, VAR, ones, (c,))
    if training(module):
        n = x.size // c
        if n < 2:
            raise ValueError(
                f"batch normalisation needs more than one value a channel, got {x.shape}; enlarge "
                "the batch"
            )
        kept, (mean, var) = (mean, var), moments(x)
        for name, old, new in zip((MEAN, VAR), kept, (mean, var * n / (n - 1))):
            track(module, name, old + momentum * (new - old))
    a = gain * jax.lax.rsqrt(var + eps)
    offset = shift - mean * a
    return x * a.reshape(-1, 1, 1, c) + offset.reshape(-1, 1, 1, c)


class BatchNorm(nn.Module):
    """Batch normalisation of (b, h, w, c) with a learned gain `w` and shift `b` a channel."""

    eps: float = 1e-5
    momentum: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w, b = (param(self, n, f, x.shape[-1:]) for n, f in (("w", ones), ("b", zeros)))
        return normalise(self, x, w, b, self.eps, self.momentum).astype(self.dtype)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with gain 1 + y w_gain and shift y w_shift of a condition y (b, k).

    For one-hot labels that is a gain and a shift a class.

    Args:
      dense: makes the two linear maps, of `features`, `use_bias=False` and `name`.
    """

    dense: Callable[..., nn.Module] = Dense
    eps: float = 1e-5
    momentum: float = 0.1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, y: jax.Array) -> jax.Array:
        gain, shift = (
            self.dense(x.shape[-1], use_bias=False, name=name)(y) for name in ("gain", "shift")
        )
        return normalise(self, x, 1 + gain, shift, self.eps, self.momentum).astype(self.dtype)

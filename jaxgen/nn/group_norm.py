"""Group normalisation in one pass of statistics and one of scaling (arXiv:1803.08494)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import ones, param, zeros


def statistics(x: jax.Array, groups: int) -> tuple[jax.Array, jax.Array]:
    """Mean and variance (b, groups, 1) of x (b, h, w, c) over pixels and a group's channels.

    The sums over pixels come first, of each channel and of its square; groups are made of those few
    numbers.
    """
    b, _, _, c = x.shape
    mean, square = x.mean((1, 2)), jnp.square(x).mean((1, 2))
    mean, square = (
        m.reshape(b, groups, c // groups).mean(-1, keepdims=True) for m in (mean, square)
    )
    return mean, jnp.maximum(square - jnp.square(mean), 0.0)


class GroupNorm(nn.Module):
    """(x - mean) / sqrt(var + eps) w + b over min(32, c / 4) groups of channels.

    Statistics are float32, the result has the compute dtype.
    """

    eps: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, scale: jax.Array | None = None, shift: jax.Array | None = None
    ) -> jax.Array:
        """x (b, h, w, c) normalised, then times 1 + scale (b, c) plus shift (b, c) if given."""
        b, _, _, c = x.shape
        groups = min(32, c // 4)
        if not groups or c % groups:
            raise ValueError(
                f"group normalisation makes min(32, channels / 4) groups of equal width, got {c} "
                "channels; choose widths that are multiples of 4, and of 32 above 128"
            )
        w, bias = param(self, "w", ones, (c,)), param(self, "b", zeros, (c,))
        # There and back changes nothing, but the gradients of the three uses of x are then added up
        # here and not one by one outside. On a CPU, XLA would otherwise compute the sums of all
        # blocks below again in every block.
        x = x.astype(jnp.float32).reshape(b, -1, c).reshape(x.shape)
        mean, var = statistics(x, groups)
        a = (jax.lax.rsqrt(var + self.eps) * w.reshape(groups, -1)).reshape(b, c)
        if scale is not None:
            a, bias = a * (1 + scale), bias * (1 + scale)
        if shift is not None:
            bias = bias + shift
        offset = bias - (mean * a.reshape(b, groups, -1)).reshape(b, c)
        return (x * a[:, None, None] + offset[:, None, None]).astype(self.dtype)

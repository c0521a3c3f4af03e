"""3D U-Net: 3x3x3 convolutions and 2x2x2 pooling with skips, small (arXiv:1606.06650).

Volumes are (b, h, w, slices). A 3x3x3 convolution is a 3x3 one of every slice, whose input channels
are those of the slice and of its two neighbours, zeros beyond the ends.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nn.layers import Conv, lrelu

Cond = Mapping[str, jax.Array] | None


class Conv3D(nn.Module):
    """(b, d, h, w, c) -> (b, d, h, w, features)."""

    features: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, d, *shape, _ = x.shape
        padded = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0), (0, 0)))
        x = jnp.concatenate([padded[:, :-2], x, padded[:, 2:]], -1)
        x = Conv(self.features, dtype=self.dtype, name="conv")(x.reshape(b * d, *shape, -1))
        return x.reshape(b, d, *shape, -1)


def _pool(x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (2, 2, 2), (2, 2, 2))


def _double(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by 2 of slices, rows and columns."""
    for axis in (1, 2, 3):
        x = jnp.repeat(x, 2, axis)
    return x


class UNet3D(nn.Module):
    """Volumes (b, h, w, slices) to restored volumes of the same shape: x + network(x).

    Args:
      features: channels of the first level; each pooling doubles them. depth: poolings; sizes that
        2^depth does not divide are padded at the end by the edge and cropped again.
      dtype: of activations; parameters and the result are float32.
    """

    features: int = 16
    depth: int = 2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        if cond:
            raise ValueError(f"unet3d knows no conditions, got {sorted(cond)}; leave them out")

        def convs(x: jax.Array, level: int, name: str) -> jax.Array:
            for part in "ab":
                layer = Conv3D(self.features * 2**level, self.dtype, name=f"{name}{level}{part}")
                x = lrelu(layer(x), slope=0.1, gain=1.0)
            return x

        size = x.shape[1:]
        edges = [(0, 0), *((0, -n % 2**self.depth) for n in size)]
        y = jnp.pad(x, edges, mode="edge").transpose(0, 3, 1, 2)[..., None]
        skips = []
        for level in range(self.depth):
            y = convs(y, level, "enc")
            skips.append(y)
            y = _pool(y)
        y = convs(y, self.depth, "enc")
        for level in reversed(range(self.depth)):
            y = convs(jnp.concatenate([_double(y), skips.pop()], -1), level, "dec")
        y = Conv3D(1, self.dtype, name="out")(y)[..., 0].transpose(0, 2, 3, 1)
        return x + y[:, : size[0], : size[1], : size[2]].astype(jnp.float32)

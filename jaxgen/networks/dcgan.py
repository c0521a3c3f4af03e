"""DCGAN: strided convolutions and batch norm, without pooling (arXiv:1511.06434).

z is projected to 4x4; transposed convolutions of stride 2 double the size while the features halve
(Fig. 1), and the discriminator does the reverse. Batch norm follows every layer but the generator's
last and the discriminator's first and last; the generator has ReLU and a last tanh, the
discriminator leaky ReLU of slope 0.2; all weights start as N(0, 0.02^2) (Sec. 3). The paper's z is
uniform in [-1, 1]^100. It shows no discriminator: this one mirrors the generator. Labels are not
the paper's: they are appended to z (arXiv:1411.1784) and projected on the features
(arXiv:1802.05637).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import param, scaled_normal, zeros
from jaxgen.networks.stylegan2_mapping import Cond, label_of
from jaxgen.nn.batch_norm import BatchNorm
from jaxgen.nn.convolution import conv
from jaxgen.nn.layers import Conv, Dense

FIXED = (r"/(mean|var)$",)
START = scaled_normal(0.02)


def check(resolution: int) -> None:
    """Raises ValueError unless resolution is a power of two from 8."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(
            f"dcgan: resolution must be a power of two and at least 8, got {resolution}; pad the "
            "images"
        )


def up2_conv(x: jax.Array, w: jax.Array) -> jax.Array:
    """Transposed convolution of stride 2, w (k, k, c, o): (b, h, w, c) -> (b, 2h, 2w, o).

    The same as zeros after each sample, k // 2 and (k - 1) // 2 zeros before and after, and a plain
    convolution; each parity of the output position sees only every second row and column of w, so
    four smaller convolutions do without the zeros.
    """
    k = w.shape[0]

    def parity(p: int) -> tuple[slice, tuple[int, int]]:
        """The rows of w that meet samples at 2m + p, and how many of them lie before and after."""
        first = (k // 2 + p) % 2
        before = (k // 2 - p - first) // 2
        return slice(first, None, 2), (before, len(range(first, k, 2)) - 1 - before)

    parts = [parity(p) for p in (0, 1)]
    rows = [[conv(x, w[r, c], 1, (above, left)) for c, left in parts] for r, above in parts]
    y = jnp.stack([jnp.stack(row, 3) for row in rows], 2)  # (b, h, 2, w, 2, o)
    return y.reshape(x.shape[0], 2 * x.shape[1], 2 * x.shape[2], w.shape[-1])


class UpConv(nn.Module):
    """`up2_conv` with a kernel of its own."""

    features: int
    kernel: int
    use_bias: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", START, (self.kernel, self.kernel, x.shape[-1], self.features))
        y = up2_conv(x.astype(self.dtype), w)
        if self.use_bias:
            y = y + param(self, "b", zeros, (self.features,)).astype(y.dtype)
        return y


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, resolution, resolution, channels), float32, in [-1, 1].

    Args:
      resolution: a power of two from 8. label_dim: 0 for no label. width: features at half the
        resolution; they double with each halving, up to channel_max. kernel: of the convolutions.
    """

    resolution: int
    channels: int = 3
    label_dim: int = 0
    z_dim: int = 100
    width: int = 128
    channel_max: int = 1024
    kernel: int = 5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, cond: Cond = None, keys: jax.Array | None = None) -> jax.Array:
        del keys  # nothing but z is random
        check(self.resolution)
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        label = label_of(cond, self.label_dim)
        z = z if label is None else jnp.concatenate([z, label.astype(z.dtype)], -1)
        features = lambda s: min(self.width * self.resolution // (2 * s), self.channel_max)
        norm = lambda s, x: jax.nn.relu(BatchNorm(dtype=self.dtype, name=f"b{s}_norm")(x))
        dense = Dense(16 * features(4), False, START, self.dtype, name="b4_project")
        x = norm(4, dense(z).reshape(-1, 4, 4, features(4)))
        for s in (2**k for k in range(3, self.resolution.bit_length() - 1)):
            x = norm(s, UpConv(features(s), self.kernel, dtype=self.dtype, name=f"b{s}_conv")(x))
        name = f"b{self.resolution}_conv"
        last = UpConv(self.channels, self.kernel, use_bias=True, dtype=self.dtype, name=name)
        return jnp.tanh(last(x).astype(jnp.float32))


class Discriminator(nn.Module):
    """Images (b, resolution, resolution, c) -> logits (b,), float32; arguments as in Generator."""

    resolution: int
    label_dim: int = 0
    width: int = 128
    channel_max: int = 1024
    kernel: int = 5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        check(self.resolution)
        label = label_of(cond, self.label_dim)
        if x.ndim != 4 or x.shape[1:3] != (self.resolution,) * 2:
            raise ValueError(
                f"expected images of size {self.resolution}, got {x.shape}; pad or crop"
            )
        features = lambda s: min(self.width * self.resolution // (2 * s), self.channel_max)
        of = {"w_init": START, "dtype": self.dtype}
        for s in (2**k for k in range(self.resolution.bit_length() - 2, 1, -1)):
            first = 2 * s == self.resolution
            x = Conv(features(s), self.kernel, 2, use_bias=first, **of, name=f"b{s}_conv")(x)
            x = x if first else BatchNorm(dtype=self.dtype, name=f"b{s}_norm")(x)
            x = jax.nn.leaky_relu(x, 0.2)
        x = x.reshape(len(x), -1).astype(jnp.float32)
        logits = Dense(1, w_init=START, name="out")(x)[:, 0]
        if label is None:
            return logits
        embedded = Dense(x.shape[-1], use_bias=False, w_init=START, name="embed")(label)
        return logits + (x * embedded).sum(-1)

"""Noise2Noise U-Net: 3x3 convolutions, max-pooling, upsampling, skips (arXiv:1803.04189).

The network of the paper's appendix.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nn.layers import Conv, lrelu

Cond = Mapping[str, jax.Array] | None


def pool(x: jax.Array) -> jax.Array:
    """Maxima of 2x2 pixels; written out, since XLA's CPU backend is slow at a window's gradient."""
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    upper = jnp.maximum(x[:, :, 0, :, 0], x[:, :, 0, :, 1])
    return jnp.maximum(upper, jnp.maximum(x[:, :, 1, :, 0], x[:, :, 1, :, 1]))


def double(x: jax.Array) -> jax.Array:
    """Nearest-neighbour upsampling by 2."""
    b, h, w, c = x.shape
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def reflect_to_multiple(x: jax.Array, n: int) -> jax.Array:
    """Pads the lower and right edges of (b, h, w, c) by reflection up to multiples of n."""
    _, h, w, _ = x.shape
    return jnp.pad(x, ((0, 0), (0, -h % n), (0, -w % n), (0, 0)), mode="reflect")


class N2NUNet(nn.Module):
    """Images (b, h, w, c) to restored images of the same shape; any h and w of at least 2.

    Args:
      features: channels of the encoder; the decoder has twice as many. depth: poolings; sizes that
        2^depth does not divide are padded by reflection and cropped again. The paper's network is
        features 48, depth 5, last_features (64, 32): 991,203 parameters for c = 3.
      last_features: channels of the two convolutions before the last.
      out_channels: of the result; 0: as many as the input has.
      dtype: of activations; parameters and the result are float32.
    """

    features: int = 48
    depth: int = 5
    last_features: tuple[int, int] = (64, 32)
    out_channels: int = 0
    dtype: jnp.dtype = jnp.float32

    @property
    def multiple(self) -> int:
        """Shifts by so many pixels move the result with the image: the period of the pooling."""
        return 2**self.depth

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        if cond:
            raise ValueError(f"n2n_unet knows no conditions, got {sorted(cond)}; leave them out")
        _, h, w, c = x.shape

        def conv(x: jax.Array, features: int, name: str) -> jax.Array:
            x = Conv(features, dtype=self.dtype, name=name)(x)
            return lrelu(x, slope=0.1, gain=1.0)

        n = self.features
        x = reflect_to_multiple(x, 2**self.depth)
        skips = [x]
        x = conv(x, n, "enc_conv0")
        for i in range(1, self.depth + 1):
            x = pool(conv(x, n, f"enc_conv{i}"))
            skips.append(x)
        x = conv(x, n, f"enc_conv{self.depth + 1}")
        skips.pop()
        for i in range(self.depth, 0, -1):
            x = jnp.concatenate([double(x), skips.pop().astype(x.dtype)], -1)
            a, b = (2 * n, 2 * n) if i > 1 else self.last_features
            x = conv(conv(x, a, f"dec_conv{i}a"), b, f"dec_conv{i}b")
        x = Conv(self.out_channels or c, dtype=self.dtype, name="dec_conv1c")(x)
        return x[:, :h, :w].astype(jnp.float32)

"""Blind-spot network: four rotated half-plane U-Nets see all but the own pixel (arXiv:1901.10277).

Section 2 and the appendix. One U-Net sees only the rows at or above its output's: 3x3 windows end
in the centre's row, and pooling follows a shift down by one row, without which the upper of two
pooled pixels would see the lower one. A last shift takes the own row away. Four rotations of the
image make four such half-planes, together everything but the pixel; 1x1 layers combine them.

Sizes that are not a square multiple of 2^depth are padded below and on the right. By reflection, as
the paper's test images are, a pixel near these two edges sees its own mirror image in the padding,
and training would learn to copy it. Zeros keep the promise for every pixel, and are the default. A
trained network knows no such copies, and at these edges restores better by reflection (the numbers
are in experiments/blindspot-posterior).
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common import params as parameters
from jaxgen.nn.layers import Conv, Dense, lrelu
from jaxgen.nn.magnitude import resample
from jaxgen.nn.sagan_attention import max_pool2

Cond = Mapping[str, jax.Array] | None
UP = ((2, 0), (1, 1))  # padding of a 3x3 window that ends in the centre's row


def shift_down(x: jax.Array) -> jax.Array:
    """Each row of (b, h, w, c) becomes the one above it; the first is 0, the last is lost."""
    return jnp.pad(x, ((0, 0), (1, 0), (0, 0), (0, 0)))[:, :-1]


def rotations(x: jax.Array) -> jax.Array:
    """The four quarter turns of square images (b, n, n, c), one after the other: (4 b, n, n, c)."""
    return jnp.concatenate([jnp.rot90(x, k, (1, 2)) for k in range(4)])


def unrotated(x: jax.Array) -> jax.Array:
    """Undoes `rotations` and puts the four side by side: (4 b, n, n, c) to (b, n, n, 4 c)."""
    return jnp.concatenate(
        [jnp.rot90(part, -k, (1, 2)) for k, part in enumerate(jnp.split(x, 4))], -1
    )


class BlindSpot(nn.Module):
    """Images (b, h, w, c) to maps (b, h, w, out_channels); any h and w of at least 2.

    Args:
      features: channels of encoder and decoder. depth: poolings. The paper's network is (48, 96)
        and 5: 1,269,129 parameters for c = 3 and 9 maps, and 1,102,953 of its plain twin.
      out_channels: 0: as many as the input has.
      blind: False: the plain twin, one U-Net without shifts, which sees its own pixel.
      reflect: how sizes are padded: by reflection, or with zeros (see above). The plain twin pads
        by reflection.
      zero_last: the last layer starts at 0 (an estimator of a noise parameter).
      dtype: of activations; parameters and the result are float32.
    """

    features: tuple[int, int] = (48, 96)
    depth: int = 5
    out_channels: int = 0
    blind: bool = True
    reflect: bool = False
    zero_last: bool = False
    dtype: jnp.dtype = jnp.float32

    @property
    def multiple(self) -> int:
        """The network's result moves with the image, if by multiples of so many pixels."""
        return 2**self.depth

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        if cond:
            raise ValueError(f"blindspot knows no conditions, got {sorted(cond)}; leave them out")
        _, h, w, c = x.shape
        wide = self.features[1]
        x = self._fitted(x.astype(self.dtype))
        x = shift_down(self._unet(rotations(x))) if self.blind else self._unet(x)
        x = unrotated(x) if self.blind else x
        for name, channels in (("nin_a", x.shape[-1]), ("nin_b", wide)):
            layer = Dense(channels, w_init=parameters.he_normal(), dtype=self.dtype, name=name)
            x = lrelu(layer(x), slope=0.1, gain=1.0)
        last = parameters.zeros if self.zero_last else parameters.he_normal(1.0)
        x = Dense(self.out_channels or c, w_init=last, dtype=self.dtype, name="nin_c")(x)
        return x[:, :h, :w].astype(jnp.promote_types(self.dtype, jnp.float32))

    def _fitted(self, x: jax.Array) -> jax.Array:
        """Padded below and on the right to multiples of 2^depth, squares for the rotations."""
        _, h, w, _ = x.shape
        n = 2**self.depth
        high, wide = -(-h // n) * n, -(-w // n) * n
        if self.blind:
            high = wide = max(high, wide)
        edges = ((0, 0), (0, high - h), (0, wide - w), (0, 0))
        return jnp.pad(x, edges, "reflect" if self.reflect or not self.blind else "constant")

    def _unet(self, x: jax.Array) -> jax.Array:
        n, wide = self.features
        skips = [x]
        x = self._conv(x, n, "enc_conv0")
        for i in range(1, self.depth + 1):
            x = self._conv(x, n, f"enc_conv{i}")
            x = max_pool2(shift_down(x) if self.blind else x)
            skips.append(x)
        x = self._conv(x, n, f"enc_conv{self.depth + 1}")
        skips.pop()
        for i in range(self.depth, 0, -1):
            x = jnp.concatenate([resample(x, "up"), skips.pop()], -1)
            x = self._conv(self._conv(x, wide, f"dec_conv{i}a"), wide, f"dec_conv{i}b")
        return x

    def _conv(self, x: jax.Array, features: int, name: str) -> jax.Array:
        padding = UP if self.blind else "SAME"
        x = Conv(features, padding=padding, dtype=self.dtype, name=name)(x)
        return lrelu(x, slope=0.1, gain=1.0)

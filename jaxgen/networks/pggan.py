"""Progressive GAN: networks that grow, with equalised weights and pixel norm (arXiv:1710.10196).

Both networks work at a `size` that doubles while they train. Layers are named by the size at which
they work and have the same shapes at any `size`, so that a grown network takes over what the
smaller one learned. A new size fades in by `alpha` from 0 to 1 (Fig. 2):

    G: image = (1 - alpha) up(rgb_{s/2}(h_{s/2})) + alpha rgb_s(h_s)
    D: h_{s/2} = (1 - alpha) features_{s/2}(down(image)) + alpha block_s(features_s(image))

with h_s the features at size s, so at alpha = 0 both are what they were before. up repeats pixels,
down averages them, which are the two filters of box shape (1, 1). Parameters are those of one size;
without `alpha` nothing fades, and the layers that are needed only for that are not there.

As in StyleGAN, leaky ReLUs have the gain sqrt 2 that the paper puts into the weights' scale. Labels
are not the paper's: they are embedded beside z, and projected on the features (arXiv:1802.05637).
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import param, zeros
from jaxgen.networks.stylegan2_mapping import Cond, label_of, second_moment_norm
from jaxgen.nn.convolution import conv
from jaxgen.nn.layers import EqualizedConv, EqualizedDense, equalized, lrelu, matmul
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.nn.resample import down2, up2, up2_conv

BOX = (1, 1)
FIXED: tuple[str, ...] = ()
Alpha = jax.Array | float | None


def fade(old: jax.Array, new: jax.Array, alpha: jax.Array | float) -> jax.Array:
    """(1 - alpha) old + alpha new, exact at both ends."""
    return (1 - alpha) * old + alpha * new


def fade_real(x: jax.Array, size: int, alpha: Alpha = None) -> jax.Array:
    """Real images as a discriminator of `size` sees them while that size fades in.

    Args:
      x: (b, r, r, c), r = size times a power of two. alpha: 0 for the content of half the size, 1
        or None for all of it.
    Returns:
      (b, size, size, c): averages of r / size pixels, faded as generated images are.
    Raises:
      ValueError: for images of another shape.
    """
    halvings = (x.shape[1] // size).bit_length() - 1
    if x.ndim != 4 or x.shape[1] != x.shape[2] or x.shape[1] != size << max(halvings, 0):
        raise ValueError(
            f"fade_real expects images (b, r, r, c), r = {size} times a power of two, got "
            f"{x.shape}; pad or crop"
        )
    for _ in range(halvings):
        x = down2(x, BOX)
    return x if alpha is None else fade(up2(down2(x, BOX), BOX), x, alpha)


def current_size(resolution: int, size: int | None, alpha: Alpha) -> int:
    """The size to work at, `resolution` for None.

    Raises:
      ValueError: unless both are powers of two, resolution at least 8 and size from 4 to it; for
        an alpha at size 4, before which there is nothing.
    """
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(
            f"resolution must be a power of two and at least 8, got {resolution}; pad the images"
        )
    size = resolution if size is None else size
    if not 4 <= size <= resolution or size & (size - 1):
        raise ValueError(f"size must be a power of two from 4 to {resolution}, got {size}")
    if size == 4 and alpha is not None:
        raise ValueError("size 4 is the first: nothing fades, so alpha must be None")
    return size


class Conv(nn.Module):
    """Equalised 3x3 convolution and bias; `up` doubles the size first, with the filter `taps`."""

    features: int
    up: bool = False
    taps: tuple[int, ...] = BOX
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = equalized(self, (3, 3, x.shape[-1], self.features))
        x = x.astype(self.dtype)
        y = up2_conv(x, w, self.taps) if self.up else conv(x, w)
        return y + param(self, "b", zeros, (self.features,)).astype(y.dtype)


class First(nn.Module):
    """Equalised 4x4 convolution of one pixel: z (b, d) -> (b, 4, 4, features)."""

    features: int

    @nn.compact
    def __call__(self, z: jax.Array) -> jax.Array:
        w = equalized(self, (4, 4, z.shape[-1], self.features))
        y = matmul(z, jnp.moveaxis(w, 2, 0).reshape(z.shape[-1], -1))
        return y.reshape(-1, 4, 4, self.features) + param(self, "b", zeros, (self.features,))


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, size, size, channels), float32, nominally in [-1, 1].

    Args:
      resolution: the largest size, a power of two from 8. label_dim: 0 for no label.
        channel_base, channel_max: features at size s are min(channel_base // s, channel_max).
        dtype: of the features from 8x8 on.
    """

    resolution: int
    channels: int = 3
    label_dim: int = 0
    z_dim: int = 512
    channel_base: int = 16384
    channel_max: int = 512
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        cond: Cond = None,
        keys: jax.Array | None = None,
        size: int | None = None,
        alpha: Alpha = None,
    ) -> jax.Array:
        """keys are not used: nothing but z is random. size, alpha: see above."""
        del keys
        size = current_size(self.resolution, size, alpha)
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        features = lambda s: min(self.channel_base // s, self.channel_max)
        norm = lambda y: second_moment_norm(lrelu(y.astype(jnp.float32)))
        rgb = lambda s, x: EqualizedConv(self.channels, kernel=1, name=f"b{s}_torgb")(x)
        z, label = second_moment_norm(z), label_of(cond, self.label_dim)
        if label is not None:
            embedded = EqualizedDense(self.z_dim, name="embed")(label)
            z = jnp.concatenate([z, second_moment_norm(embedded)], -1)
        x = norm(First(features(4), name="b4_conv0")(z))
        x = norm(Conv(features(4), name="b4_conv1")(x))
        small = x
        for s in (2**k for k in range(3, size.bit_length())):
            small, of = x, {"features": features(s), "dtype": self.dtype}
            x = norm(Conv(**of, up=True, name=f"b{s}_conv0")(x))
            x = norm(Conv(**of, name=f"b{s}_conv1")(x))
        image = rgb(size, x)
        return image if alpha is None else fade(up2(rgb(size // 2, small), BOX), image, alpha)


class Discriminator(nn.Module):
    """Images (b, size, size, c) -> logits (b,), float32.

    Args:
      group_size: images whose variation is measured together; None is the whole batch, as in the
        paper. taps: filter before features are halved. Other arguments as in Generator.
    """

    resolution: int
    label_dim: int = 0
    channel_base: int = 16384
    channel_max: int = 512
    group_size: int | None = None
    taps: tuple[int, ...] = BOX
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        cond: Cond = None,
        size: int | None = None,
        alpha: Alpha = None,
    ) -> jax.Array:
        size = current_size(self.resolution, size, alpha)
        label = label_of(cond, self.label_dim)
        if x.ndim != 4 or x.shape[1:3] != (size, size):
            raise ValueError(f"expected images of size {size}, got {x.shape}; see fade_real")
        features = lambda s: min(self.channel_base // s, self.channel_max)
        of_rgb = lambda s, x: lrelu(
            EqualizedConv(features(s), kernel=1, dtype=self.dtype, name=f"b{s}_fromrgb")(x)
        )
        image, x = x, of_rgb(size, x)
        for s in (2**k for k in range(size.bit_length() - 1, 2, -1)):
            y = lrelu(Conv(features(s), dtype=self.dtype, name=f"b{s}_conv0")(x))
            y = lrelu(Conv(features(s // 2), dtype=self.dtype, name=f"b{s}_conv1")(y))
            x = down2(y, self.taps)
            if s == size and alpha is not None:
                x = fade(of_rgb(s // 2, down2(image, BOX)), x, alpha)
        x, d = minibatch_std(x.astype(jnp.float32), self.group_size), features(4)
        x = lrelu(Conv(d, name="b4_conv0")(x)).reshape(len(x), -1)
        x = lrelu(EqualizedDense(d, name="b4_conv1")(x))  # 4x4 on 4x4 pixels, without padding
        logits = EqualizedDense(1, name="out")(x)[:, 0]
        if label is None:
            return logits
        embedded = EqualizedDense(d, use_bias=False, name="embed")(label)
        return logits + (x * embedded).sum(-1) / d**0.5

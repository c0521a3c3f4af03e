"""StyleGAN: a mapping network and styles that act by AdaIN, growing (arXiv:1812.04948).

Synthesis starts from a learned constant of 4x4. Each layer adds noise, with a learned scale for
each channel, and bias to its features, and after the leaky ReLU the style w of the layer sets mean
and deviation of every channel (Eq. 1, `adain`). Resampling is bilinear: by the box of progressive
GANs and the binomial filter (1, 2, 1), which together are (1, 3, 3, 1). Growing, the names of
layers and the discriminator are those of `pggan`; the paper starts from size 8.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.common.params import normal, ones, param, zeros
from jaxgen.networks import pggan
from jaxgen.networks.pggan import BOX, Alpha, current_size, fade, fade_real
from jaxgen.networks.stylegan2_mapping import Cond, Mapping, label_of, truncate
from jaxgen.nn.convolution import conv
from jaxgen.nn.layers import EqualizedConv, EqualizedDense, equalized, lrelu
from jaxgen.nn.resample import TAPS, up2, up2_conv

__all__ = ["Discriminator", "Generator", "Mapping", "Synthesis", "adain", "fade_real", "truncate"]

FIXED = (r"noise_const$",)


def adain(x: jax.Array, y_s: jax.Array, y_b: jax.Array) -> jax.Array:
    """y_s (x - mean(x)) / std(x) + y_b, moments over the pixels of each channel (Eq. 1).

    Args:
      x: (b, h, w, c). y_s, y_b: (b, c).
    Returns:
      (b, h, w, c) float32; a channel of one value becomes y_b.
    """
    x = x.astype(jnp.float32)
    x = x - x.mean((1, 2), keepdims=True)
    x = x * jax.lax.rsqrt(jnp.square(x).mean((1, 2), keepdims=True) + 1e-8)
    return y_s[:, None, None] * x + y_b[:, None, None]


def num_layers(size: int) -> int:
    """Layers that take a style in a network of this size: two for each from 4x4 on."""
    return 2 * size.bit_length() - 4


class StyleLayer(nn.Module):
    """3x3 convolution (none: of the constant), noise, bias, leaky ReLU, AdaIN."""

    features: int
    kind: str  # "constant", "plain" or "up", which doubles the size first
    use_noise: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: jax.Array, w: jax.Array, noise: jax.Array | None, add_noise: bool = True
    ) -> jax.Array:
        x = x.astype(self.dtype)
        if self.kind != "constant":
            kernel = equalized(self, (3, 3, x.shape[-1], self.features))
            x = up2_conv(x, kernel, TAPS) if self.kind == "up" else conv(x, kernel)
        if self.use_noise:
            constant = param(self, "noise_const", normal, x.shape[1:3])
            strength = param(self, "noise_strength", zeros, (self.features,))
            if add_noise:
                noise = constant if noise is None else noise
                x = x + (strength * noise[..., None]).astype(x.dtype)
        x = lrelu(x + param(self, "b", zeros, (self.features,)).astype(x.dtype))
        y_s = EqualizedDense(self.features, bias_init=1.0, name="scale")(w)
        return adain(x, y_s, EqualizedDense(self.features, name="shift")(w))


class Synthesis(nn.Module):
    """Styles ws (b, num_layers(size), w_dim) to images (b, size, size, channels)."""

    resolution: int
    channels: int = 3
    channel_base: int = 16384
    channel_max: int = 512
    use_noise: bool = True
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self,
        ws: jax.Array,
        keys: jax.Array | None,
        add_noise: bool = True,
        size: int | None = None,
        alpha: Alpha = None,
    ) -> jax.Array:
        size = current_size(self.resolution, size, alpha)
        if ws.ndim != 3 or ws.shape[1] != num_layers(size):
            raise ValueError(
                f"expected ws (b, {num_layers(size)}, w_dim) at size {size}, got {ws.shape}"
            )
        features = lambda s: min(self.channel_base // s, self.channel_max)
        rgb = lambda s, x: EqualizedConv(self.channels, kernel=1, name=f"b{s}_torgb")(x)
        sizes = [2**k for k in range(2, size.bit_length())]
        noise = self.noise_planes([s for s in sizes for _ in range(2)], keys)
        x = param(self, "b4_const", ones, (4, 4, features(4)))
        x = small = jnp.broadcast_to(x, (len(ws), *x.shape))
        for i, s in enumerate(sizes):
            small, dtype = x, self.dtype if s > 4 else jnp.float32
            for j, kind in enumerate(("up" if i else "constant", "plain")):
                layer = StyleLayer(features(s), kind, self.use_noise, dtype, name=f"b{s}_conv{j}")
                x = layer(x, ws[:, 2 * i + j], noise[2 * i + j], add_noise)
        image = rgb(size, x)
        return image if alpha is None else fade(up2(rgb(size // 2, small), BOX), image, alpha)

    def noise_planes(self, sizes: list[int], keys: jax.Array | None) -> list[jax.Array | None]:
        """Planes (b, s, s) for s in sizes: one draw for all, because drawing is slow to compile."""
        if keys is None or not self.use_noise:
            return [None] * len(sizes)
        ends = np.cumsum([s * s for s in sizes])
        parts = jnp.split(rng.normal(keys, (int(ends[-1]),)), ends[:-1], axis=1)
        return [p.reshape(-1, s, s) for p, s in zip(parts, sizes)]


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, size, size, channels), float32, nominally in [-1, 1].

    Args:
      resolution: the largest size, a power of two from 8. label_dim: 0 for no label.
        channel_base, channel_max: features at size s are min(channel_base // s, channel_max).
        use_noise: noise in each layer; its scales are learned and start at 0. dtype: of the
        convolutions from 8x8 on.
    """

    resolution: int
    channels: int = 3
    label_dim: int = 0
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 16384
    channel_max: int = 512
    use_noise: bool = True
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        layers, m = self.mapping_layers, self.mapping_lr_multiplier
        self._mapping = Mapping(self.w_dim, layers, m, name="mapping")
        self._synthesis = Synthesis(
            self.resolution,
            self.channels,
            self.channel_base,
            self.channel_max,
            self.use_noise,
            self.dtype,
            name="synthesis",
        )

    @property
    def num_ws(self) -> int:
        """The number of styles at full size, 2 log2(resolution) - 2."""
        return num_layers(self.resolution)

    def mapping(self, z: jax.Array, cond: Cond = None) -> jax.Array:
        """z (b, z_dim) -> w (b, w_dim)."""
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        return self._mapping(z, label_of(cond, self.label_dim))

    def synthesis(
        self,
        ws: jax.Array,
        keys: jax.Array | None = None,
        add_noise: bool = True,
        size: int | None = None,
        alpha: Alpha = None,
    ) -> jax.Array:
        """Styles to images: one for all layers (b, w_dim) or each (b, num_layers(size), w_dim).

        keys: (b,) for noise drawn for each image; None for the constant noise kept in the params.
        add_noise: False leaves either out. size, alpha: see `pggan`.
        """
        if ws.ndim == 2:
            n = num_layers(size or self.resolution)
            ws = jnp.broadcast_to(ws[:, None], (ws.shape[0], n, ws.shape[1]))
        return self._synthesis(ws, keys, add_noise, size, alpha)

    def __call__(
        self,
        z: jax.Array,
        cond: Cond = None,
        keys: jax.Array | None = None,
        size: int | None = None,
        alpha: Alpha = None,
    ) -> jax.Array:
        return self.synthesis(self.mapping(z, cond), keys, True, size, alpha)


class Discriminator(pggan.Discriminator):
    """Images (b, size, size, c) -> logits (b,), float32: pggan's, with bilinear resampling."""

    taps: tuple[int, ...] = TAPS

"""StyleGAN2: modulated synthesis from styles, in three architectures (arXiv:1912.04958).

The generator starts from a learned 4x4 tensor and doubles the size with each block; every block
adds an RGB image of its own to the upsampled one of the block before ("skip"). In two variants of
sec. 4.1 only the last block makes an image, and blocks are residual ("resnet") or not ("orig").
Images are not squashed: the network learns to stay in [-1, 1]. All weights are equalised
(nn.layers). In half precision (arXiv:2006.06676) weights and styles are normalised before they are
multiplied, and activations are clamped.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.common.params import normal, param, zeros
from jaxgen.networks.stylegan2_discriminator import Discriminator
from jaxgen.networks.stylegan2_mapping import (
    Cond,
    Mapping,
    activate,
    block_dtype,
    check,
    clip,
    label_of,
    truncate,
)
from jaxgen.nn.layers import EqualizedConv, EqualizedDense
from jaxgen.nn.modulated import modulated_conv
from jaxgen.nn.resample import TAPS, up2

__all__ = ["Discriminator", "Generator", "Mapping", "Synthesis", "truncate"]


class StyleLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, activation, clamp; `up` doubles the size first."""

    features: int
    up: bool = False
    use_noise: bool = True
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32
    activation: str = "lrelu"
    clamp: float | None = None

    @nn.compact
    def __call__(
        self, x: jax.Array, w: jax.Array, noise: jax.Array | None, add_noise: bool = True
    ) -> jax.Array:
        s = EqualizedDense(x.shape[-1], bias_init=1.0, name="affine")(w)
        kernel = param(self, "w", normal, (3, 3, x.shape[-1], self.features))
        if jnp.finfo(self.dtype).bits < 32:
            kernel, s = prenormalise(kernel, s)
        y = modulated_conv(x.astype(self.dtype), kernel, s, up=self.up, taps=self.taps)
        if self.use_noise:
            constant = param(self, "noise_const", normal, y.shape[1:3])
            strength = param(self, "noise_strength", zeros, ())
            if add_noise:
                noise = constant if noise is None else noise
                y = y + (strength * noise).astype(y.dtype)[..., None]
        b = param(self, "b", zeros, (self.features,))
        return activate(y + b.astype(y.dtype), self.activation, self.clamp)


def prenormalise(w: jax.Array, s: jax.Array) -> tuple[jax.Array, jax.Array]:
    """w / (sqrt(fan_in) max|w|) by output and s / max|s| by image: float16 has no room for more.

    Demodulation takes these factors out again, up to its epsilon.

    Args:
      w: (k, k, i, o). s: (b, i).
    """
    fan_in = float(np.prod(w.shape[:3]))
    w = w / (fan_in**0.5 * jnp.abs(w).max((0, 1, 2), keepdims=True))
    return w, s / jnp.abs(s).max(-1, keepdims=True)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: styles divided by sqrt(fan_in) instead."""

    channels: int
    dtype: jnp.dtype = jnp.float32
    clamp: float | None = None

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        c = x.shape[-1]
        s = EqualizedDense(c, bias_init=1.0, name="affine")(w) / float(np.sqrt(c))
        kernel = param(self, "w", normal, (1, 1, c, self.channels))
        y = modulated_conv(x.astype(self.dtype), kernel, s, demodulate=False)
        return clip(y.astype(jnp.float32) + param(self, "b", zeros, (self.channels,)), self.clamp)


class Synthesis(nn.Module):
    """Styles ws (b, num_ws, w_dim) to images (b, resolution, resolution, channels)."""

    resolution: int
    channels: int = 3
    channel_base: int = 16384
    channel_max: int = 512
    use_noise: bool = True
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32
    architecture: str = "skip"
    activation: str = "lrelu"
    clamp: float | None = None
    half_blocks: int | None = None

    @nn.compact
    def __call__(self, ws: jax.Array, keys: jax.Array | None, add_noise: bool = True) -> jax.Array:
        style_layer = partial(
            StyleLayer,
            use_noise=self.use_noise,
            taps=self.taps,
            activation=self.activation,
            clamp=self.clamp,
        )
        features = lambda res: min(self.channel_base // res, self.channel_max)
        sizes = [2**k for k in range(3, self.resolution.bit_length())]
        noise = iter(self.noise_planes([4, *(r for r in sizes for _ in range(2))], keys))
        x = param(self, "b4_const", normal, (4, 4, features(4)))
        x = jnp.broadcast_to(x, (ws.shape[0], *x.shape))
        x = style_layer(features(4), name="b4_conv1")(x, ws[:, 0], next(noise), add_noise)
        image = None
        if self.architecture == "skip":
            image = ToRGB(self.channels, clamp=self.clamp, name="b4_torgb")(x, ws[:, 1])
        for i, res in enumerate(sizes):
            # A block's ToRGB shares its style with the next block's first layer.
            w0, w1, w2 = ws[:, 2 * i + 1], ws[:, 2 * i + 2], ws[:, 2 * i + 3]
            b, dtype = f"b{res}", block_dtype(res, self.resolution, self.dtype, self.half_blocks)
            layer = partial(style_layer, features(res), dtype=dtype)
            y = layer(up=True, name=f"{b}_conv0")(x, w0, next(noise), add_noise)
            y = layer(name=f"{b}_conv1")(y, w1, next(noise), add_noise)
            if self.architecture == "resnet":
                skip = EqualizedConv(
                    features(res), kernel=1, use_bias=False, dtype=dtype, name=f"{b}_skip"
                )
                y = (y + up2(skip(x), self.taps)) * 0.5**0.5
            x = y
            if self.architecture == "skip" or res == self.resolution:
                rgb = ToRGB(self.channels, dtype, self.clamp, name=f"{b}_torgb")(x, w2)
                image = rgb if image is None else up2(image, self.taps) + rgb
        return image

    def noise_planes(self, sizes: list[int], keys: jax.Array | None) -> list[jax.Array | None]:
        """Planes (b, r, r) for r in sizes: one draw for all, because drawing is slow to compile."""
        if keys is None or not self.use_noise:
            return [None] * len(sizes)
        ends = np.cumsum([r * r for r in sizes])
        parts = jnp.split(rng.normal(keys, (int(ends[-1]),)), ends[:-1], axis=1)
        return [p.reshape(-1, r, r) for p, r in zip(parts, sizes)]


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, resolution, resolution, channels), float32, nominally in [-1, 1].

    Args:
      resolution: a power of two from 8. channel_base, channel_max: a block of size r has
        min(channel_base // r, channel_max) channels. label_dim: 0 for no label. use_noise: noise in
        each layer; its strength is learned and starts at 0. taps: the resampling filter.
        dtype: of the synthesis network's activations in the `half_blocks` largest blocks; None for
        all but the 4x4 one, which is float32. architecture: skip, resnet or orig. activation:
        lrelu, relu or swish, of the synthesis. clamp: bound of activations after their gain.
        mapping_features, embed_features: widths inside the mapping network, w_dim if None.
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
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32
    architecture: str = "skip"
    activation: str = "lrelu"
    clamp: float | None = None
    half_blocks: int | None = None
    mapping_features: int | None = None
    embed_features: int | None = None
    mapping_activation: str = "lrelu"

    def setup(self):
        check(self.resolution, self.architecture, self.activation, self.mapping_activation)
        self._mapping = Mapping(
            self.w_dim,
            self.mapping_layers,
            self.mapping_lr_multiplier,
            self.mapping_features,
            self.embed_features,
            self.mapping_activation,
            name="mapping",
        )
        self._synthesis = Synthesis(
            self.resolution,
            self.channels,
            self.channel_base,
            self.channel_max,
            self.use_noise,
            self.taps,
            self.dtype,
            self.architecture,
            self.activation,
            self.clamp,
            self.half_blocks,
            name="synthesis",
        )

    @property
    def num_ws(self) -> int:
        """The number of styles that the synthesis network takes, 2 log2(resolution) - 2."""
        return 2 * (self.resolution.bit_length() - 1) - 2

    def mapping(self, z: jax.Array, cond: Cond = None) -> jax.Array:
        """z (b, z_dim) -> w (b, w_dim)."""
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        return self._mapping(z, label_of(cond, self.label_dim))

    def synthesis(
        self, ws: jax.Array, keys: jax.Array | None = None, add_noise: bool = True
    ) -> jax.Array:
        """One style for all layers (b, w_dim) or one a layer (b, num_ws, w_dim) to images.

        keys: (b,) for noise drawn for each image; None for the constant noise kept in the params.
        add_noise: False leaves either out.
        """
        if ws.ndim == 2:
            ws = jnp.broadcast_to(ws[:, None], (ws.shape[0], self.num_ws, ws.shape[1]))
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"expected ws (b, {self.num_ws}, {self.w_dim}), got {ws.shape}")
        return self._synthesis(ws, keys, add_noise)

    def __call__(self, z: jax.Array, cond: Cond = None, keys: jax.Array | None = None) -> jax.Array:
        return self.synthesis(self.mapping(z, cond), keys)

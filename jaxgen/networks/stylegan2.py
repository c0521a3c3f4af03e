"""StyleGAN2: mapping, modulated synthesis and a residual discriminator (arXiv:1912.04958).

The generator starts from a learned 4x4 tensor and doubles the size with each block; every block
adds an RGB image of its own to the upsampled one of the block before (skip). Images are not
squashed: the network learns to stay in [-1, 1]. All weights are equalised (nn.layers).
"""

from collections.abc import Mapping as Dict
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.common.params import normal, param, zeros
from jaxgen.nn.layers import EqualizedConv, EqualizedDense, lrelu
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.nn.modulated import modulated_conv
from jaxgen.nn.resample import TAPS, up2

Cond = Dict[str, jax.Array] | None


def label_of(cond: Cond, label_dim: int) -> jax.Array | None:
    """The label (b, label_dim) of a condition, None for an unconditional network.

    Raises:
      ValueError: for unknown names, a missing label, or one of another width.
    """
    cond = cond or {}
    unknown = sorted(set(cond) - {"label"})
    if unknown:
        raise ValueError(
            f"stylegan2 knows the condition 'label' only, got {unknown}; leave them out"
        )
    if ("label" in cond) != (label_dim > 0):
        raise ValueError(
            f"stylegan2 with label_dim={label_dim} expects cond "
            + ("{'label': (b, label_dim)}" if label_dim else "None")
            + f", got {sorted(cond) or None}"
        )
    if not label_dim:
        return None
    if cond["label"].shape[-1] != label_dim:
        raise ValueError(
            f"expected labels (b, {label_dim}), got {cond['label'].shape}; one-hot them"
        )
    return cond["label"]


def check_resolution(resolution: int) -> None:
    """Raises ValueError unless the resolution is a power of two from 8."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(
            f"stylegan2: resolution must be a power of two and at least 8, got {resolution}; "
            "pad the images"
        )


def second_moment_norm(x: jax.Array) -> jax.Array:
    """x / sqrt(mean(x^2) + 1e-8) over features."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-8)


class Mapping(nn.Module):
    """z (b, z) and label (b, k), embedded and each second-moment normalised, to w (b, w_dim).

    One of z and label may be None (the discriminator maps labels only). Always float32.
    """

    w_dim: int
    layers: int = 8
    lr_multiplier: float = 0.01

    @nn.compact
    def __call__(self, z: jax.Array | None, label: jax.Array | None) -> jax.Array:
        inputs = [] if z is None else [second_moment_norm(z)]
        if label is not None:
            embedded = EqualizedDense(self.w_dim, name="embed")(label)
            inputs.append(second_moment_norm(embedded))
        x = jnp.concatenate(inputs, -1)
        for i in range(self.layers):
            x = EqualizedDense(self.w_dim, lr_multiplier=self.lr_multiplier, name=f"fc{i}")(x)
            x = lrelu(x)
        return x


class StyleLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; `up` doubles the size first."""

    features: int
    up: bool = False
    use_noise: bool = True
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array, noise: jax.Array | None) -> jax.Array:
        s = EqualizedDense(x.shape[-1], bias_init=1.0, name="affine")(w)
        kernel = param(self, "w", normal, (3, 3, x.shape[-1], self.features))
        y = modulated_conv(x.astype(self.dtype), kernel, s, up=self.up, taps=self.taps)
        if self.use_noise:
            constant = param(self, "noise_const", normal, y.shape[1:3])
            noise = constant if noise is None else noise
            strength = param(self, "noise_strength", zeros, ())
            y = y + (strength * noise).astype(y.dtype)[..., None]
        b = param(self, "b", zeros, (self.features,))
        return lrelu(y + b.astype(y.dtype))


class ToRGB(nn.Module):
    """Modulated 1x1 convolution without demodulation: styles divided by sqrt(fan_in) instead."""

    channels: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        c = x.shape[-1]
        s = EqualizedDense(c, bias_init=1.0, name="affine")(w) / float(np.sqrt(c))
        kernel = param(self, "w", normal, (1, 1, c, self.channels))
        y = modulated_conv(x.astype(self.dtype), kernel, s, demodulate=False)
        return y.astype(jnp.float32) + param(self, "b", zeros, (self.channels,))


class Synthesis(nn.Module):
    """Styles ws (b, num_ws, w_dim) to images (b, resolution, resolution, channels)."""

    resolution: int
    channels: int = 3
    channel_base: int = 16384
    channel_max: int = 512
    use_noise: bool = True
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, ws: jax.Array, keys: jax.Array | None) -> jax.Array:
        layer = partial(StyleLayer, use_noise=self.use_noise, taps=self.taps, dtype=self.dtype)
        features = lambda res: min(self.channel_base // res, self.channel_max)
        sizes = [2**k for k in range(3, self.resolution.bit_length())]
        noise = iter(self.noise_planes([4, *(r for r in sizes for _ in range(2))], keys))
        x = param(self, "b4_const", normal, (4, 4, features(4)))
        x = jnp.broadcast_to(x, (ws.shape[0], *x.shape))
        x = layer(features(4), name="b4_conv1")(x, ws[:, 0], next(noise))
        image = ToRGB(self.channels, self.dtype, name="b4_torgb")(x, ws[:, 1])
        for i, res in enumerate(sizes):
            # A block's ToRGB shares its style with the next block's first layer.
            w0, w1, w2 = ws[:, 2 * i + 1], ws[:, 2 * i + 2], ws[:, 2 * i + 3]
            x = layer(features(res), up=True, name=f"b{res}_conv0")(x, w0, next(noise))
            x = layer(features(res), name=f"b{res}_conv1")(x, w1, next(noise))
            rgb = ToRGB(self.channels, self.dtype, name=f"b{res}_torgb")(x, w2)
            image = up2(image, self.taps) + rgb
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
        dtype: of the synthesis network's activations.
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

    def setup(self):
        check_resolution(self.resolution)
        self._mapping = Mapping(
            self.w_dim, self.mapping_layers, self.mapping_lr_multiplier, name="mapping"
        )
        self._synthesis = Synthesis(
            self.resolution,
            self.channels,
            self.channel_base,
            self.channel_max,
            self.use_noise,
            self.taps,
            self.dtype,
            name="synthesis",
        )

    @property
    def num_ws(self) -> int:
        """The number of styles that the synthesis network takes, 2 log2(resolution) - 2."""
        return 2 * (self.resolution.bit_length() - 1) - 2

    def mapping(self, z: jax.Array, cond: Cond = None) -> jax.Array:
        """z (b, z_dim) -> w (b, w_dim)."""
        return self._mapping(z, label_of(cond, self.label_dim))

    def synthesis(self, ws: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        """One style for all layers (b, w_dim) or one a layer (b, num_ws, w_dim) to images.

        keys: (b,) for noise drawn for each image; None for the constant noise kept in the params.
        """
        if ws.ndim == 2:
            ws = jnp.broadcast_to(ws[:, None], (ws.shape[0], self.num_ws, ws.shape[1]))
        if ws.shape[1] != self.num_ws:
            raise ValueError(f"expected ws (b, {self.num_ws}, w_dim), got {ws.shape}")
        return self._synthesis(ws, keys)

    def __call__(self, z: jax.Array, cond: Cond = None, keys: jax.Array | None = None) -> jax.Array:
        return self.synthesis(self.mapping(z, cond), keys)


class Discriminator(nn.Module):
    """Images (b, resolution, resolution, c) -> logits (b,), float32; residual, label by projection.

    logit = <features, map(label)> / sqrt(d) (arXiv:1802.05637), d the channels at 4x4.

    Args:
      mapping_layers: of the label's mapping network. group_size, std_channels: see minibatch_std;
        group_size 0 leaves it out. Other arguments as in Generator.
    """

    resolution: int
    label_dim: int = 0
    mapping_layers: int = 8
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 16384
    channel_max: int = 512
    group_size: int = 4
    std_channels: int = 1
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        check_resolution(self.resolution)
        label = label_of(cond, self.label_dim)
        if x.shape[1:3] != (self.resolution,) * 2:
            raise ValueError(
                f"expected images of size {self.resolution}, got {x.shape}; pad or crop"
            )
        features = lambda res: min(self.channel_base // res, self.channel_max)
        conv = partial(EqualizedConv, taps=self.taps, dtype=self.dtype)
        x = lrelu(conv(features(self.resolution), kernel=1, name=f"b{self.resolution}_fromrgb")(x))
        for k in range(self.resolution.bit_length() - 1, 2, -1):
            b, out = f"b{2**k}", features(2 ** (k - 1))
            skip = conv(out, kernel=1, down=True, use_bias=False, name=f"{b}_skip")(x)
            x = lrelu(conv(features(2**k), name=f"{b}_conv0")(x))
            x = lrelu(conv(out, down=True, name=f"{b}_conv1")(x))
            x = (x + skip) * 0.5**0.5
        if self.group_size:
            x = minibatch_std(x, self.group_size, self.std_channels)
        d = features(4)
        x = lrelu(conv(d, name="b4_conv")(x)).astype(jnp.float32)
        x = lrelu(EqualizedDense(d, name="b4_fc")(x.reshape(x.shape[0], -1)))
        if label is None:
            return EqualizedDense(1, name="b4_out")(x)[:, 0]
        x = EqualizedDense(d, name="b4_out")(x)
        mapping = Mapping(d, self.mapping_layers, self.mapping_lr_multiplier, name="mapping")
        return (x * mapping(None, label)).sum(-1) / float(np.sqrt(d))

"""StyleGAN3: an alias-free generator; T follows shifts, R rotations too (arXiv:2106.12423).

Feature maps stand for continuous signals on the unit square, sampled with a margin around it. They
start as Fourier features, which can be shifted and turned exactly, and are low-passed by each layer
to a cutoff that grows from layer to layer. Configuration R has 1x1 kernels, twice the channels, and
filters that treat all directions alike.

Each layer divides its input by the root of its tracked mean square, `magnitude`: a statistic that
is kept with the params and moves when `apply` is called with `mutable=["tracked"]` (see `FIXED` and
jaxgen.common.params). The discriminator is StyleGAN2's.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.params import Initializer, normal, ones, param, track, tracked, training, zeros
from jaxgen.networks.stylegan2_discriminator import Discriminator
from jaxgen.networks.stylegan2_mapping import Cond, Mapping, label_of
from jaxgen.nn.filtered_lrelu import filtered_lrelu
from jaxgen.nn.filters import lowpass
from jaxgen.nn.layers import EqualizedDense, matmul, uniform
from jaxgen.nn.modulated import modulated_conv, rms_normalised

__all__ = ["CONFIGS", "FIXED", "Discriminator", "Generator", "Layer", "Synthesis", "layer_table"]

FIXED = (r"freqs$", r"phases$", r"magnitude$")
CONFIGS = {  # arguments of Generator
    "T": {"kernel": 3, "radial": False, "channel_base": 32768, "channel_max": 512},
    "R": {"kernel": 1, "radial": True, "channel_base": 65536, "channel_max": 1024},
}


class Layer(NamedTuple):
    """One layer: frequencies in cycles, rates in samples, a unit square's side; sizes in samples.

    in_*, out_*: of its input and output. tmp_rate: where its nonlinearity is. up, down: from
    in_rate to it and from it to out_rate. *_taps: of the filters, 1 for none. padding: (before,
    after) at tmp_rate. radial: whether the second filter is. critical: sampled at twice its cutoff.
    low_precision: one of the large layers, which may be computed in a smaller dtype.
    """

    in_cutoff: float
    out_cutoff: float
    in_half_width: float
    out_half_width: float
    in_rate: int
    out_rate: int
    tmp_rate: int
    in_size: int
    out_size: int
    in_channels: int
    out_channels: int
    kernel: int
    up: int
    down: int
    up_taps: int
    down_taps: int
    padding: tuple[int, int]
    radial: bool
    critical: bool
    low_precision: bool
    rgb: bool

    def filters(self) -> tuple[np.ndarray, np.ndarray]:
        """The low-pass filters before and after the nonlinearity."""
        width = 2 * self.in_half_width, 2 * self.out_half_width
        return (
            lowpass(self.up_taps, self.in_cutoff, width[0], self.tmp_rate),
            lowpass(self.down_taps, self.out_cutoff, width[1], self.tmp_rate, self.radial),
        )


def layer_table(
    resolution: int,
    channels: int = 3,
    channel_base: int = 32768,
    channel_max: int = 512,
    kernel: int = 3,
    radial: bool = False,
    layers: int = 14,
    critical: int = 2,
    margin: int = 10,
    filter_size: int = 6,
    first_cutoff: float = 2.0,
    first_stopband: float = 2**2.1,
    last_stopband: float = 2**0.3,
    low_precision: int = 4,
) -> tuple[Layer, ...]:
    """Every layer and, last, the one to RGB (Sec. 3.2 and App. D).

    Cutoffs and stopbands grow geometrically over all but the last `critical` layers, to
    f_c = resolution / 2 and f_t = last_stopband f_c. Each layer's rate is the power of two that
    holds its stopband, at most the one that holds the resolution; an image whose size is no power
    of two shows a part of the unit square.

    Args:
      resolution: from 8. channel_base, channel_max: a layer has base / (2 f_c) channels, at most
        max. kernel, radial: see CONFIGS. margin: samples around the unit square. filter_size: taps
        for each factor of a filter. first_*: of layer 0; last_stopband is relative to its cutoff.
        low_precision: how many of the highest rates are `low_precision`.
    Raises:
      ValueError: for a resolution below 8, or not fewer critical layers than layers.
    """
    if resolution < 8:
        raise ValueError(f"stylegan3: resolution must be at least 8, got {resolution}")
    if not 0 <= critical < layers:
        raise ValueError(
            f"stylegan3: fewer critical layers than layers are needed, got {critical} of {layers}"
        )
    e = np.minimum(np.arange(layers + 1) / (layers - critical), 1)
    f_c = first_cutoff * (resolution / 2 / first_cutoff) ** e
    f_t = first_stopband * (resolution / 2 * last_stopband / first_stopband) ** e
    rate = np.exp2(np.ceil(np.log2(np.minimum(2 * f_t, resolution)))).astype(int)
    half_width = np.maximum(f_t, rate / 2) - f_c
    size = rate + 2 * margin
    size[-2:] = resolution
    width = np.rint(np.minimum(channel_base / 2 / f_c, channel_max)).astype(int)
    width[-1] = channels
    found = []
    for i in range(layers + 1):
        p, rgb, is_critical = max(i - 1, 0), i == layers, i >= layers - critical
        tmp = int(max(rate[p], rate[i])) * (1 if rgb else 2)
        up, down = tmp // int(rate[p]), tmp // int(rate[i])
        up_taps, down_taps = (1 if rgb or f == 1 else filter_size * f for f in (up, down))
        k = 1 if rgb else kernel
        total = (size[i] - 1) * down + 1 - (size[p] + k - 1) * up + up_taps + down_taps - 2
        before = int(total + up) // 2
        found.append(
            Layer(
                *(float(f) for f in (f_c[p], f_c[i], half_width[p], half_width[i])),
                *(int(r) for r in (rate[p], rate[i], tmp, size[p], size[i], width[p], width[i])),
                k, up, down, up_taps, down_taps,
                padding=(before, int(total) - before),
                radial=radial and not is_critical,
                critical=is_critical,
                low_precision=bool(rate[i] * 2**low_precision > resolution),
                rgb=rgb,
            )
        )  # fmt: skip
    return tuple(found)


@lru_cache(maxsize=64)
def _disc(radius: float) -> Initializer:
    """Points (c, 2), uniform on a disc: normal n, drawn to the radius exp(-|n|^2 / 4).

    |n|^2 / 2 is exponential, so that is the root of a uniform number.
    """

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        n = normal(key, shape)
        square = jnp.square(n).sum(1, keepdims=True)
        return radius * n * jax.lax.rsqrt(square) * jnp.exp(-square / 4)

    return draw


def _still(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """(1, 0, 0, 0): no rotation, no translation."""
    del key
    return jnp.zeros(shape).at[0].set(1.0)


class SynthesisInput(nn.Module):
    """w (b, w_dim) -> Fourier features (b, size, size, channels), moved as w and `transform` say.

    sin 2 pi (f p + phase) at points p of the unit square around 0, f within a disc of radius
    `bandwidth`; then mixed by a matrix. An affine map of w gives (cos, sin, x, y), scaled to unit
    length of the first two: a rotation and then a translation of the image; last comes `transform`,
    (3, 3) or (b, 3, 3), which maps points of the image to points p. Frequencies that a transform
    takes past the band fade out, and are gone at half the sampling rate.
    """

    size: int
    rate: int
    bandwidth: float
    channels: int

    @nn.compact
    def __call__(self, w: jax.Array, transform: jax.Array | None) -> jax.Array:
        c = self.channels
        freqs = jax.lax.stop_gradient(param(self, "freqs", _disc(self.bandwidth), (c, 2)))
        phases = jax.lax.stop_gradient(param(self, "phases", uniform(0.5), (c,)))
        a = param(self, "affine_w", zeros, (w.shape[-1], 4)) / math.sqrt(w.shape[-1])
        t = w @ a + param(self, "affine_b", _still, (4,))
        t = t / jnp.linalg.norm(t[:, :2], axis=1, keepdims=True)
        cos, sin, x, y = t.T
        turn = jnp.stack([jnp.stack([cos, -sin], 1), jnp.stack([sin, cos], 1)], 1)  # (b, 2, 2)
        shift = -jnp.stack([x, y], 1)
        # p = turn (q + shift), q = transform's image of the pixel.
        move = jnp.eye(3) if transform is None else jnp.asarray(transform, jnp.float32)
        linear = turn @ move[..., :2, :2]
        offset = (turn @ (move[..., :2, 2] + shift)[..., None])[..., 0]
        phases = phases + offset @ freqs.T  # (b, c)
        freqs = freqs @ linear  # (b, c, 2)
        past = jnp.linalg.norm(freqs, axis=2) - self.bandwidth
        amplitude = jnp.clip(1 - past / (self.rate / 2 - self.bandwidth), 0, 1)
        at = (np.arange(self.size, dtype=np.float32) - (self.size - 1) / 2) / self.rate
        across, along = (freqs[:, None, :, i] * at[:, None] for i in (0, 1))  # (b, size, c)
        angle = along[:, :, None] + across[:, None] + phases[:, None, None]
        features = jnp.sin(2 * np.pi * angle) * amplitude[:, None, None]
        m = param(self, "w", normal, (c, c)) / math.sqrt(c)
        return matmul(features, m)


class SynthesisLayer(nn.Module):
    """Modulated convolution and filtered leaky ReLU of `spec`; linear for RGB.

    In training the magnitude first goes to m + decay (magnitude - m), m the mean square of the
    input over the whole batch, decay = 0.5 ** (b / magnitude_halflife) for b images.
    """

    spec: Layer
    clamp: float | None = 256.0
    dtype: jnp.dtype = jnp.float32
    magnitude_halflife: float = 20_000

    @nn.compact
    def __call__(self, x: jax.Array, w: jax.Array) -> jax.Array:
        spec, k = self.spec, self.spec.kernel
        magnitude = tracked(self, "magnitude", ones, ())
        if training(self):
            m = jnp.square(jax.lax.stop_gradient(x).astype(jnp.float32)).mean()
            magnitude = m + 0.5 ** (x.shape[0] / self.magnitude_halflife) * (magnitude - m)
            track(self, "magnitude", magnitude)
        s = EqualizedDense(spec.in_channels, bias_init=1.0, name="affine")(w)
        kernel = param(self, "w", normal, (k, k, spec.in_channels, spec.out_channels))
        if spec.rgb:
            s = s / math.sqrt(spec.in_channels * k * k)
        else:
            kernel, s = rms_normalised(kernel, s)
        x = modulated_conv(
            x.astype(self.dtype if spec.low_precision else jnp.float32),
            kernel,
            s,
            demodulate=not spec.rgb,
            padding=((k - 1, k - 1),) * 2,
            gain=jax.lax.rsqrt(magnitude),
        )
        b = param(self, "b", zeros, (spec.out_channels,))
        gain, slope = (1.0, 1.0) if spec.rgb else (2.0**0.5, 0.2)
        of = spec.up, spec.down, (spec.padding,) * 2
        return filtered_lrelu(x, b, *spec.filters(), *of, gain, slope, self.clamp)


class Synthesis(nn.Module):
    """Styles ws (b, layers + 2, w_dim) to images."""

    table: tuple[Layer, ...]
    output_scale: float = 0.25
    clamp: float | None = 256.0
    dtype: jnp.dtype = jnp.float32
    magnitude_halflife: float = 20_000

    @nn.compact
    def __call__(self, ws: jax.Array, transform: jax.Array | None) -> jax.Array:
        first = self.table[0]
        x = SynthesisInput(
            first.in_size, first.in_rate, first.in_cutoff, first.in_channels, name="input"
        )(ws[:, 0], transform)
        for i, spec in enumerate(self.table):
            of = spec, self.clamp, self.dtype, self.magnitude_halflife
            x = SynthesisLayer(*of, name=f"L{i}")(x, ws[:, i + 1])
        return self.output_scale * x.astype(jnp.float32)


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, resolution, resolution, channels), float32, nominally in [-1, 1].

    Args:
      label_dim: 0 for no label. output_scale: of the image. clamp: bound of each layer's
        activations. magnitude_halflife: of the tracked magnitudes, in images. dtype: of the layers
        at the `low_precision` highest rates. The others: see `layer_table`, and CONFIGS for the
        paper's T and R.
    """

    resolution: int
    channels: int = 3
    label_dim: int = 0
    z_dim: int = 512
    w_dim: int = 512
    mapping_layers: int = 2
    mapping_lr_multiplier: float = 0.01
    channel_base: int = 32768
    channel_max: int = 512
    kernel: int = 3
    radial: bool = False
    num_layers: int = 14
    num_critical: int = 2
    margin: int = 10
    filter_size: int = 6
    first_cutoff: float = 2.0
    first_stopband: float = 2**2.1
    last_stopband: float = 2**0.3
    low_precision: int = 4
    output_scale: float = 0.25
    clamp: float | None = 256.0
    magnitude_halflife: float = 20_000
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self._mapping = Mapping(
            self.w_dim, self.mapping_layers, self.mapping_lr_multiplier, name="mapping"
        )
        self._synthesis = Synthesis(
            self.table(),
            self.output_scale,
            self.clamp,
            self.dtype,
            self.magnitude_halflife,
            name="synthesis",
        )

    def table(self) -> tuple[Layer, ...]:
        """Its layers."""
        return layer_table(
            self.resolution,
            self.channels,
            self.channel_base,
            self.channel_max,
            self.kernel,
            self.radial,
            self.num_layers,
            self.num_critical,
            self.margin,
            self.filter_size,
            self.first_cutoff,
            self.first_stopband,
            self.last_stopband,
            self.low_precision,
        )

    @property
    def num_ws(self) -> int:
        """The number of styles that synthesis takes: the input's, the layers', RGB's."""
        return self.num_layers + 2

    def mapping(self, z: jax.Array, cond: Cond = None) -> jax.Array:
        """z (b, z_dim) -> w (b, w_dim)."""
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        return self._mapping(z, label_of(cond, self.label_dim))

    def synthesis(
        self,
        ws: jax.Array,
        keys: jax.Array | None = None,
        transform: jax.Array | None = None,
    ) -> jax.Array:
        """One style for all layers (b, w_dim) or one a layer (b, num_ws, w_dim) to images.

        keys: there is no noise, they are not read. transform: (3, 3) or (b, 3, 3), of homogeneous
        points (x, y, 1) of the image, the unit square around 0, y downwards: an image shows at a
        point what it would have shown at the transformed one.
        """
        del keys
        if ws.ndim == 2:
            ws = jnp.broadcast_to(ws[:, None], (ws.shape[0], self.num_ws, ws.shape[1]))
        if ws.shape[1:] != (self.num_ws, self.w_dim):
            raise ValueError(f"expected ws (b, {self.num_ws}, {self.w_dim}), got {ws.shape}")
        return self._synthesis(ws, transform)

    def __call__(self, z: jax.Array, cond: Cond = None, keys: jax.Array | None = None) -> jax.Array:
        return self.synthesis(self.mapping(z, cond), keys)

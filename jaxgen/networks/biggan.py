"""BigGAN, and by other settings SAGAN and SN-GAN: residual networks of classes (arXiv:1809.11096).

The generator makes a 4x4 map of z, which residual blocks double in size; the class enters by
conditional batch normalisation. BigGAN embeds the class once for all of them ("shared"), and gives
each block a part of z of its own ("hierarchical"): gains and shifts are linear in both. The
discriminator's blocks halve the image; the class enters by projection. Both have SAGAN's attention
(arXiv:1805.08318) and spectral normalisation; SN-GAN (arXiv:1802.05957) has no attention, and
spectral norms in the discriminator only. `objectives.orthogonal` is BigGAN's regularisation, for
which the shared `embed` does not count.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.mesh import whole_rows
from jaxgen.common.params import Initializer, zeros
from jaxgen.common.sharding import DEFAULT
from jaxgen.networks.stylegan2_mapping import Cond, label_of
from jaxgen.nn import layers
from jaxgen.nn.batch_norm import BatchNorm, ConditionalBatchNorm
from jaxgen.nn.projection import ProjectionHead
from jaxgen.nn.resample import down2, up2
from jaxgen.nn.sagan_attention import SaganAttention
from jaxgen.nn.spectral_norm import Conv, Dense

FIXED = (r"(^|/)(u|mean|var)$",)  # vectors of power iterations, moments of batches
SHARDING = (  # the insides of residual blocks, and the values of attention
    (r"conv0/w$", "tensor_out"),
    (r"conv1/w$", "tensor_in"),
    (r"attention/g/w$", "tensor_out"),
    (r"attention/out/w$", "tensor_in"),
    *DEFAULT,
)
NEAREST = (1, 1)
Ints = Sequence[int]


def orthogonal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Columns, one an output, of length 1 and orthogonal; rows where there are more outputs."""
    return jax.nn.initializers.orthogonal()(key, shape)


STARTS: Mapping[str, Initializer] = {
    "orthogonal": orthogonal,
    "xavier": layers.xavier_uniform(),
}
_PLAIN = {"shared_dim": 0, "hierarchical": False, "start": "xavier"}
CONFIGS = {  # arguments of (Generator, Discriminator)
    "biggan128": (
        {"widths": (1536, 1536, 768, 384, 192, 96), "z_dim": 120, "attention": (64,)},
        {"widths": (96, 192, 384, 768, 1536, 1536), "down": 5, "attention": (64,)},
    ),
    "biggan32": (
        {"widths": (384,) * 4, "z_dim": 80, "attention": (16,)},
        {"widths": (384,) * 4, "down": 2, "attention": (16,)},
    ),
    "sagan128": (
        {"widths": (1024, 1024, 512, 256, 128, 64), "z_dim": 128, "attention": (32,), **_PLAIN},
        {"widths": (64, 128, 256, 512, 1024, 1024), "down": 5, "attention": (32,),
         "start": "xavier"},
    ),
    "sngan128": (
        {"widths": (1024, 1024, 512, 256, 128, 64), "z_dim": 128, "spectral": False, **_PLAIN},
        {"widths": (64, 128, 256, 512, 1024, 1024), "down": 5, "start": "xavier"},
    ),
    "sngan32": (
        {"widths": (256,) * 4, "z_dim": 128, "spectral": False, **_PLAIN},
        {"widths": (128,) * 4, "down": 2, "start": "xavier"},
    ),
}  # fmt: skip


class GeneratorBlock(nn.Module):
    """Doubles x (b, h, w, c): skip(up(x)) + conv1(relu(norm1(conv0(up(relu(norm0(x)))))))."""

    features: int
    norm: Any
    layer: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array, y: tuple[jax.Array, ...]) -> jax.Array:
        h = jax.nn.relu(self.norm(name="norm0")(x, *y))
        h = Conv(self.features, "up", **self.layer, name="conv0")(h)
        h = jax.nn.relu(self.norm(name="norm1")(h, *y))
        h = Conv(self.features, **self.layer, name="conv1")(h)
        return whole_rows(up2(Dense(self.features, **self.layer, name="skip")(x), NEAREST) + h)


class DiscriminatorBlock(nn.Module):
    """skip(x) + conv1(relu(conv0(relu(x)))), halved if `down`; the `first` one has no relu(x).

    The skip has a matrix if the size or the width changes.
    """

    features: int
    down: bool
    first: bool
    layer: Mapping[str, Any]

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        h = Conv(self.features, **self.layer, name="conv0")(x if self.first else jax.nn.relu(x))
        mode = "down" if self.down else "keep"
        h = Conv(self.features, mode, **self.layer, name="conv1")(jax.nn.relu(h))
        if self.down or x.shape[-1] != self.features:
            x = down2(x, NEAREST) if self.down else x
            x = Dense(self.features, **self.layer, name="skip")(x)
        return whole_rows(x + h)


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, resolution, resolution, channels), float32 in [-1, 1].

    Args:
      widths: channels at 4x4, 8x8, ... and the resolution. shared_dim: of the class embedding that
        all normalisations read; 0: each has a gain and shift a class. hierarchical: z in as many
        parts as there are widths, one for the 4x4 map and one for each block. attention: sizes of
        maps that have it. spectral: spectral normalisation of all but the embedding and what
        belongs to a class. start: of the weights, orthogonal or xavier. eps: of the batch
        normalisation. dtype: of all but the last layer.
    """

    resolution: int
    channels: int = 3
    label_dim: int = 0
    z_dim: int = 120
    widths: Ints = (64, 64, 64, 64)
    shared_dim: int = 128
    hierarchical: bool = True
    attention: Ints = ()
    spectral: bool = True
    start: str = "orthogonal"
    eps: float = 1e-4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, cond: Cond = None, keys: jax.Array | None = None) -> jax.Array:
        """`keys` are not read: nothing but z is random."""
        n = len(self.widths)
        if n < 2 or self.resolution != 2 << n:
            raise ValueError(
                "biggan: a generator's widths are those at 4, 8, ... and at last the resolution, a "
                f"power of two; got resolution {self.resolution} with {tuple(self.widths)}"
            )
        sizes = [8 << i for i in range(n - 1)]
        check(sizes, self.attention, self.start)
        label = label_of(cond, self.label_dim)
        first, parts = self.parts(z, label)
        w_init = STARTS[self.start]
        weights = {"spectral": self.spectral, "w_init": w_init}
        layer, bn = {**weights, "dtype": self.dtype}, {"eps": self.eps, "dtype": self.dtype}
        norm, dense = partial(BatchNorm, **bn), partial(Dense, **layer)
        if parts[0]:
            per_class = label is not None and not self.shared_dim
            maps = partial(Dense, **weights)
            maps = partial(layers.Dense, w_init=zeros) if per_class else maps
            norm = partial(ConditionalBatchNorm, maps, **bn)
        x = dense(16 * self.widths[0], name="b4_fc")(first)
        x = x.reshape(-1, 4, 4, self.widths[0])
        for size, width, y in zip(sizes, self.widths[1:], parts):
            x = GeneratorBlock(width, norm, layer, name=f"b{size}")(x, y)
            if size in self.attention:
                x = SaganAttention(dense, name=f"b{size}_attention")(x)
        x = jax.nn.relu(BatchNorm(self.eps, name="norm")(x))
        return jnp.tanh(Conv(self.channels, **weights, name="torgb")(x))

    def parts(
        self, z: jax.Array, label: jax.Array | None
    ) -> tuple[jax.Array, list[tuple[jax.Array, ...]]]:
        """What the 4x4 map is made of, and the condition of each block, (b, k) or nothing.

        Raises:
          ValueError: for latents of another width, or one that its parts do not divide.
        """
        n = len(self.widths)
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        if self.hierarchical and self.z_dim % n:
            raise ValueError(
                f"biggan: a hierarchical z has {n} equal parts, which z_dim={self.z_dim} is not a "
                "multiple of"
            )
        chunks = jnp.split(z, n, -1) if self.hierarchical else [z, *[None] * (n - 1)]
        if label is not None and self.shared_dim:
            embed = layers.Dense(
                self.shared_dim, use_bias=False, w_init=STARTS[self.start], name="embed"
            )
            label = embed(label)
        each = [[y for y in (chunk, label) if y is not None] for chunk in chunks[1:]]
        return chunks[0], [(jnp.concatenate(y, -1),) if y else () for y in each]


class Discriminator(nn.Module):
    """Images (b, resolution, resolution, c) -> logits (b,), float32; label by projection.

    Args:
      widths: channels of each block from the image on; the first `down` of them halve it.
        attention: sizes of maps that have it, after the first block that makes one.
        Other arguments as in Generator; all weights are spectrally normalised.
    """

    resolution: int
    label_dim: int = 0
    widths: Ints = (64, 64, 64, 64)
    down: int = 2
    attention: Ints = ()
    start: str = "orthogonal"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        if not 0 <= self.down <= len(self.widths) or self.resolution % 2**self.down:
            raise ValueError(
                f"biggan: {self.down} of a discriminator's {len(self.widths)} blocks cannot halve "
                f"images of {self.resolution}; change down or widths"
            )
        sizes = [self.resolution >> min(i + 1, self.down) for i in range(len(self.widths))]
        check(sizes, self.attention, self.start)
        label = label_of(cond, self.label_dim)
        if x.ndim != 4 or x.shape[1:3] != (self.resolution,) * 2:
            raise ValueError(
                f"expected images of size {self.resolution}, got {x.shape}; pad or crop"
            )
        weights = {"w_init": STARTS[self.start]}
        layer = {**weights, "dtype": self.dtype}
        for i, (size, width) in enumerate(zip(sizes, self.widths)):
            x = DiscriminatorBlock(width, i < self.down, i == 0, layer, name=f"block{i}")(x)
            if size in self.attention and size not in sizes[:i]:
                x = SaganAttention(partial(Dense, **layer), name=f"b{size}_attention")(x)
        return ProjectionHead(partial(Dense, **weights), name="head")(x, label)


def check(sizes: Ints, attention: Ints, start: str) -> None:
    """Raises ValueError for attention at a size that no block makes, or an unknown start."""
    if other := sorted(set(attention) - set(sizes)):
        raise ValueError(
            f"biggan: attention at {other}, but blocks make maps of {sorted(set(sizes))}"
        )
    if start not in STARTS:
        raise ValueError(f"biggan: start is one of {', '.join(STARTS)}, got {start!r}")

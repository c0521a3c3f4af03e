"""R3GAN: residual grouped convolutions without normalisation or tricks (arXiv:2501.05441).

Both networks are stages of residual blocks, one stage a size from 4x4 on, the discriminator's in
reverse order. A block widens, convolves in groups and narrows again,

    x + w2 lrelu(w1 * lrelu(w0 x + b0) + b1),

and starts as the identity: w2 = 0, and the others smaller the more blocks there are
(arXiv:1901.09321). Between stages maps are resampled by 2 with the filter `taps` and change their
width by a matrix. The generator starts from a learned 4x4 tensor whose channels are scaled by z and
the embedded label; the discriminator ends with one learned 4x4 window a channel. There is no
normalisation, no noise, no style and no statistic over the batch. They are trained with
relativistic pairs and both gradient penalties at each step.
"""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import he_normal, normal, param, zeros
from jaxgen.networks.stylegan2_mapping import Cond, block_dtype, label_of
from jaxgen.nn.grouped import GroupedConv
from jaxgen.nn.layers import Dense, lrelu
from jaxgen.nn.resample import TAPS, down2, up2

Ints = Sequence[int]
CONFIGS = {  # arguments of both networks; z_dim 64
    "cifar10": {
        "resolution": 32, "widths": (768,) * 4, "cardinality": (96,) * 4, "blocks": (2,) * 4,
    },
    "ffhq64": {
        "resolution": 64, "widths": (768, 768, 768, 768, 384),
        "cardinality": (96, 96, 96, 96, 48), "blocks": (2,) * 5,
    },
    "imagenet32": {
        "resolution": 32, "widths": (1536,) * 4, "cardinality": (96,) * 4, "blocks": (2,) * 4,
    },
    "imagenet64": {
        "resolution": 64, "widths": (1536,) * 5, "cardinality": (96,) * 5, "blocks": (2,) * 5,
    },
}  # fmt: skip
Linear = partial(Dense, use_bias=False, w_init=he_normal(1.0))  # no activation follows it


class Stage(NamedTuple):
    """The blocks of one image size: their width, groups and number."""

    size: int
    width: int
    groups: int
    blocks: int


def stages(
    resolution: int, widths: Ints, cardinality: Ints, blocks: Ints, expansion: int
) -> list[Stage]:
    """The stages from 4x4 to the resolution.

    Raises:
      ValueError: lists that do not fit the resolution, or groups that do not divide their width.
    """
    given = tuple(tuple(x) for x in (widths, cardinality, blocks))
    if any(4 << len(x) != 2 * resolution for x in given):
        raise ValueError(
            f"r3gan: widths, cardinality and blocks are those at 4, 8, 16, ... and at last the "
            f"resolution, a power of two; got resolution {resolution} with {given[0]}, {given[1]} "
            f"and {given[2]}"
        )
    found = [Stage(4 << i, *each) for i, each in enumerate(zip(*given))]
    for s in found:
        if s.width * expansion % s.groups:
            raise ValueError(
                f"r3gan: the cardinality must divide width x expansion, got {s.groups} for "
                f"{s.width} x {expansion} at {s.size}x{s.size}"
            )
    return found


class Block(nn.Module):
    """One of the `depth` residual blocks of a network, (b, h, w, c) -> the same.

    Its first two layers have the He variance for a slope of 0.2, times depth^-1/2: the standard
    deviation falls as L^(-1 / (2 m - 2)) with L blocks of m = 3 layers (arXiv:1901.09321).
    """

    expansion: int
    groups: int
    depth: int
    kernel: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c, hidden = x.shape[-1], x.shape[-1] * self.expansion
        start = {"w_init": he_normal(2 / 1.04 / self.depth**0.5), "dtype": self.dtype}
        y = lrelu(Dense(hidden, **start, name="conv0")(x), gain=1.0)
        y = lrelu(GroupedConv(hidden, self.groups, self.kernel, **start, name="conv1")(y), gain=1.0)
        return x + Dense(c, use_bias=False, w_init=zeros, dtype=self.dtype, name="conv2")(y)


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, resolution, resolution, channels), float32, nominally in [-1, 1].

    Args:
      widths, cardinality, blocks: channels, groups and number of the blocks at 4x4, 8x8, ... and
        the resolution. embed_dim: of the label, which is concatenated to z; None is z_dim.
        expansion, kernel: of the grouped convolution. taps: the resampling filter; 1 3 3 1 is
        1 2 1 interpolating. dtype: of the `half_blocks` largest stages (None: all) but 4x4.
    """

    resolution: int
    channels: int = 3
    label_dim: int = 0
    z_dim: int = 64
    widths: Ints = (64, 64)
    cardinality: Ints = (8, 8)
    blocks: Ints = (2, 2)
    embed_dim: int | None = None
    expansion: int = 2
    kernel: int = 3
    taps: Ints = TAPS
    dtype: jnp.dtype = jnp.float32
    half_blocks: int | None = None

    @nn.compact
    def __call__(self, z: jax.Array, cond: Cond = None, keys: jax.Array | None = None) -> jax.Array:
        """`keys` are not read: nothing but z is random."""
        table = stages(self.resolution, self.widths, self.cardinality, self.blocks, self.expansion)
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        label = label_of(cond, self.label_dim)
        if label is not None:
            z = jnp.concatenate([z, Linear(self.embed_dim or self.z_dim, name="embed")(label)], -1)
        x = None
        for s in table:
            dtype = block_dtype(s.size, self.resolution, self.dtype, self.half_blocks)
            if x is None:
                scale = Linear(s.width, name="b4_scale")(z)
                x = param(self, "b4_const", normal, (4, 4, s.width)) * scale[:, None, None]
            else:
                x = x.astype(dtype)
                if x.shape[-1] != s.width:
                    x = Linear(s.width, dtype=dtype, name=f"b{s.size}_width")(x)
                x = up2(x, self.taps)
            for i in range(s.blocks):
                fields = self.expansion, s.groups, sum(self.blocks), self.kernel, dtype
                x = Block(*fields, name=f"b{s.size}_block{i}")(x)
        return Linear(self.channels, name="torgb")(x)


class Discriminator(nn.Module):
    """Images (b, resolution, resolution, c) -> logits (b,), float32; label by projection.

    logit = <features, embed(label)>, both of embed_dim, by default the width at 4x4; the embedding
    starts smaller by embed_dim^-1/2. Arguments as in Generator, all from 4x4 on.
    """

    resolution: int
    label_dim: int = 0
    widths: Ints = (64, 64)
    cardinality: Ints = (8, 8)
    blocks: Ints = (2, 2)
    embed_dim: int | None = None
    expansion: int = 2
    kernel: int = 3
    taps: Ints = TAPS
    dtype: jnp.dtype = jnp.float32
    half_blocks: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        table = stages(self.resolution, self.widths, self.cardinality, self.blocks, self.expansion)
        label = label_of(cond, self.label_dim)
        if x.ndim != 4 or x.shape[1:3] != (self.resolution,) * 2:
            raise ValueError(
                f"expected images of size {self.resolution}, got {x.shape}; pad or crop"
            )
        x = Linear(table[-1].width, name="fromrgb")(x)
        for s, smaller in zip(reversed(table), [*reversed(table[:-1]), None]):
            dtype = block_dtype(s.size, self.resolution, self.dtype, self.half_blocks)
            x = x.astype(dtype)
            for i in range(s.blocks):
                fields = self.expansion, s.groups, sum(self.blocks), self.kernel, dtype
                x = Block(*fields, name=f"b{s.size}_block{i}")(x)
            if smaller:
                x = down2(x, self.taps)
                if x.shape[-1] != smaller.width:
                    x = Linear(smaller.width, dtype=dtype, name=f"b{smaller.size}_width")(x)
        window = param(self, "b4_window", he_normal(1.0), (4, 4, 1, x.shape[-1]))[:, :, 0]
        x = jnp.einsum("bhwc,hwc->bc", x, window)
        if label is None:
            return Linear(1, name="out")(x)[:, 0]
        d = self.embed_dim or table[0].width
        embedded = Linear(d, w_init=he_normal(1 / d), name="embed")(label)
        return (Linear(d, name="out")(x) * embedded).sum(-1)

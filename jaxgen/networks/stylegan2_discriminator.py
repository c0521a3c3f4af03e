"""StyleGAN2's discriminator: residual, with minibatch std and projection (arXiv:1912.04958).

"resnet" is the paper's choice; "orig" has no residual branches, and "skip" adds to every block
what it reads from a downsampled image (sec. 4.1).
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.networks.stylegan2_mapping import (
    Cond,
    Mapping,
    activate,
    block_dtype,
    check,
    label_of,
)
from jaxgen.nn.layers import EqualizedConv, EqualizedDense
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.nn.resample import TAPS, down2


class Discriminator(nn.Module):
    """Images (b, resolution, resolution, c) -> logits (b,), float32; label by projection.

    logit = <features, map(label)> / sqrt(d) (arXiv:1802.05637), d = cmap_dim or, if None, the
    channels at 4x4.

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
    group_size: int | None = 4
    std_channels: int = 1
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32
    architecture: str = "resnet"
    activation: str = "lrelu"
    clamp: float | None = None
    half_blocks: int | None = None
    cmap_dim: int | None = None
    mapping_features: int | None = None
    embed_features: int | None = None
    mapping_activation: str = "lrelu"

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        check(self.resolution, self.architecture, self.activation, self.mapping_activation)
        label = label_of(cond, self.label_dim)
        if x.ndim != 4 or x.shape[1:3] != (self.resolution,) * 2:
            raise ValueError(
                f"expected images of size {self.resolution}, got {x.shape}; pad or crop"
            )
        features = lambda res: min(self.channel_base // res, self.channel_max)
        act = partial(activate, activation=self.activation, clamp=self.clamp)
        image, x = x, None
        for k in range(self.resolution.bit_length() - 1, 2, -1):
            res, b, out = 2**k, f"b{2**k}", features(2 ** (k - 1))
            dtype = block_dtype(res, self.resolution, self.dtype, self.half_blocks)
            conv = partial(EqualizedConv, taps=self.taps, dtype=dtype)
            if x is None or self.architecture == "skip":
                y = act(conv(features(res), kernel=1, name=f"{b}_fromrgb")(image))
                x = y if x is None else x + y
            y = act(conv(features(res), name=f"{b}_conv0")(x))
            y = act(conv(out, down=True, name=f"{b}_conv1")(y))
            if self.architecture == "resnet":
                skip = conv(out, kernel=1, down=True, use_bias=False, name=f"{b}_skip")(x)
                y = (y + skip) * 0.5**0.5
            x = y
            if self.architecture == "skip":
                image = down2(image, self.taps)
        d, x = features(4), x.astype(jnp.float32)
        if self.architecture == "skip":
            y = EqualizedConv(d, kernel=1, name="b4_fromrgb")(image)
            x = x + activate(y, self.activation)
        if self.group_size != 0:
            x = minibatch_std(x, self.group_size, self.std_channels)
        x = act(EqualizedConv(d, name="b4_conv")(x))
        x = EqualizedDense(d, name="b4_fc")(x.reshape(x.shape[0], -1))
        x = activate(x, self.activation)
        if label is None:
            return EqualizedDense(1, name="b4_out")(x)[:, 0]
        cmap_dim = self.cmap_dim or d
        mapping = Mapping(
            cmap_dim,
            self.mapping_layers,
            self.mapping_lr_multiplier,
            self.mapping_features,
            self.embed_features,
            self.mapping_activation,
            name="mapping",
        )
        x = EqualizedDense(cmap_dim, name="b4_out")(x)
        return (x * mapping(None, label)).sum(-1) / float(np.sqrt(cmap_dim))

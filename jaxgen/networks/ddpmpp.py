"""DDPM++: the VP U-Net of score SDEs, as EDM trains it (arXiv:2011.13456, App. C.2).

Residual blocks with the embedding added, sums scaled by 2^-1/2, one head of attention: in every
encoder block of a listed size, in the decoder in the first block of all and in the last block of
such a size. networks/ncsnpp.py sets the fields otherwise.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.params import param
from jaxgen.nn import unet
from jaxgen.nn.embeddings import Fourier, conditions, drop_labels, positional
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.layers import Dense, Start, bias, xavier_uniform
from jaxgen.nn.resample import conv_down2
from jaxgen.nn.residual import Block, Style

HALF = 0.5**0.5
START = Start(xavier_uniform(), xavier_uniform(0.2**0.5), xavier_uniform(1e-5), False)
STYLE = Style(adaptive=False, skip_scale=HALF, eps=1e-6, project=True, start=START)


class Pyramid(nn.Module):
    """The next level of the input pyramid: low-pass, 3x3 convolution, halve (b, h, w, c)."""

    features: int
    taps: tuple[int, ...]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", START.w, (3, 3, x.shape[-1], self.features))
        y = conv_down2(x.astype(self.dtype), w, self.taps)
        return y + bias(self, w.shape, START.uniform_bias).astype(self.dtype)


class UNet(nn.Module):
    """The raw network F(c_in x, c_noise, cond); EDM's settings are in arXiv:2206.00364, Table 7.

    Attributes:
      channels: of the images. out_channels: of F, by default the same; iDDPM's preconditioning
        needs twice as many.
      model_channels: base width. channel_mult: width multiplier of each size, fine to coarse.
      channel_mult_emb, channel_mult_noise: multipliers for the embedding's and its input's width.
      num_blocks: residual blocks at each size (one more in the decoder).
      attn_resolutions: image sizes with attention.
      label_dim, augment_dim: widths of the conditions, 0 for none.
      dropout: rate in the blocks. label_dropout: rate at which training hides an image's label.
      embedding: of the noise level, "positional" or "fourier" (random and fixed frequencies).
      encoder: "standard", or "residual": the shrunken image is added at every size.
      taps: filter of down- and upsampling.
      dtype: of the feature maps; parameters, embeddings and the result are float32.
      remat: compute the inside of every block again in the backward pass, to save memory.
    """

    channels: int
    out_channels: int | None = None
    model_channels: int = 128
    channel_mult: Sequence[int] = (2, 2, 2)
    channel_mult_emb: int = 4
    channel_mult_noise: int = 1
    num_blocks: int = 4
    attn_resolutions: Sequence[int] = (16,)
    label_dim: int = 0
    augment_dim: int = 0
    dropout: float = 0.1
    label_dropout: float = 0.0
    embedding: str = "positional"
    encoder: str = "standard"
    taps: Sequence[int] = (1, 1)
    dtype: jnp.dtype = jnp.float32
    remat: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        c_noise: jax.Array,
        cond: Mapping[str, jax.Array] | None = None,
        train: bool = False,
    ) -> jax.Array:
        """F (b, h, w, out_channels) in float32.

        Args:
          x: (b, h, w, channels) scaled by c_in. c_noise: (b,).
          cond: "label" (b, label_dim) one-hot, "augment" (b, augment_dim); zeros where absent.
          train: needs an rng "dropout" if dropout or label_dropout is above 0.
        Raises:
          ValueError: for shapes that do not fit, unknown conditions and unknown settings.
        """
        unet.check("DDPM++", x, c_noise, self.channels, len(self.channel_mult))
        if self.encoder not in ("standard", "residual"):
            raise ValueError(f"encoder is 'standard' or 'residual', got {self.encoder!r}")
        size, widths = x.shape[1], [self.model_channels * m for m in self.channel_mult]
        emb = self._embed(c_noise, cond, train)
        make = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
        taps = tuple(self.taps)

        def block(x: jax.Array, part: unet.Part, attends: bool) -> jax.Array:
            heads = int(attends)
            options = (STYLE, part.mode, heads, self.dropout, taps, self.dtype)
            return make(part.features, *options, name=part.name)(x, emb, train)

        x = pyramid = x.astype(self.dtype)
        skips = []
        for part in unet.encoder(size, self.model_channels, widths, self.num_blocks):
            if part.role == "conv":
                x = START.conv(part.features, dtype=self.dtype, name=part.name)(x)
            else:
                x = block(x, part, part.role == "block" and part.size in self.attn_resolutions)
            if part.role == "down" and self.encoder == "residual":
                name = f"enc_{part.size}_pyramid"
                pyramid = Pyramid(part.features, taps, self.dtype, name=name)(pyramid)
                x = pyramid = (x + pyramid) * HALF
            skips.append(x)
        for part in unet.decoder(size, widths, self.num_blocks):
            if part.role == "block":
                x = jnp.concatenate([x, skips.pop()], -1)
            listed = part.last and part.size in self.attn_resolutions
            x = block(x, part, listed or part.role == "in0")
        x = nn.silu(GroupNorm(STYLE.eps, self.dtype, name="out_norm")(x))
        channels = self.out_channels or self.channels
        out = START.conv(channels, "last", dtype=self.dtype, name="out_conv")
        return out(x).astype(jnp.float32)

    def _embed(
        self, c_noise: jax.Array, cond: Mapping[str, jax.Array] | None, train: bool
    ) -> jax.Array:
        """Two dense layers over the sum of noise level, label and augmentation, float32."""
        b, features = len(c_noise), self.model_channels * self.channel_mult_noise
        label, augment = conditions("DDPM++", cond, b, self.label_dim, self.augment_dim)
        if self.embedding == "positional":
            emb = positional(c_noise, features, endpoint=True)
        elif self.embedding == "fourier":
            emb = Fourier(features, name="emb_fourier")(c_noise)
        else:
            raise ValueError(f"embedding is 'positional' or 'fourier', got {self.embedding!r}")
        emb = jnp.roll(emb, features // 2, axis=1)  # published weights expect [sin, cos]
        if self.label_dim:
            label = drop_labels(self, label, self.label_dropout, train)
            label = label * np.float32(np.sqrt(self.label_dim))
            emb += START.dense(features, name="emb_label")(label)
        if self.augment_dim:
            emb += Dense(features, use_bias=False, w_init=START.w, name="emb_augment")(augment)
        for i in (0, 1):
            width = self.model_channels * self.channel_mult_emb
            emb = nn.silu(START.dense(width, name=f"emb_layer{i}")(emb))
        return emb

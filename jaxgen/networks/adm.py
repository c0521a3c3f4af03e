"""ADM: the U-Net of guided diffusion, as EDM trains it (arXiv:2105.05233, Sec. 3 and App. A).

Residual blocks where the embedding scales and shifts the second norm, which also do the down- and
upsampling; attention with heads of 64 channels in every block of a listed size.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import normal, zeros
from jaxgen.nn import unet
from jaxgen.nn.attention import heads
from jaxgen.nn.embeddings import conditions, drop_labels, positional
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.layers import Dense, Start, fan_in_uniform
from jaxgen.nn.residual import Block, Style

START = Start(fan_in_uniform, fan_in_uniform, zeros, True)
STYLE = Style(adaptive=True, skip_scale=1.0, eps=1e-5, project=False, start=START)


class ADM(nn.Module):
    """The raw network F(c_in x, c_noise, cond); EDM's settings are in arXiv:2206.00364, Table 7.

    Attributes:
      channels: of the images. out_channels: of F, by default the same; iDDPM's preconditioning
        needs twice as many.
      model_channels: base width. channel_mult: width multiplier of each size, fine to coarse.
      channel_mult_emb: multiplier for the embedding's width.
      num_blocks: residual blocks at each size (one more in the decoder).
      attn_resolutions: image sizes with attention. middle_attention: also in the decoder's first
        block. channels_per_head: heads are at least this wide, and so must blocks with attention.
      label_dim, augment_dim: widths of the conditions, 0 for none.
      dropout: rate in the blocks. label_dropout: rate at which training hides an image's label.
      dtype: of the feature maps; parameters, embeddings and the result are float32.
      remat: compute the inside of every block again in the backward pass, to save memory.
    """

    channels: int
    out_channels: int | None = None
    model_channels: int = 192
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 3
    attn_resolutions: Sequence[int] = (32, 16, 8)
    middle_attention: bool = True
    channels_per_head: int = 64
    label_dim: int = 0
    augment_dim: int = 0
    dropout: float = 0.1
    label_dropout: float = 0.0
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
          ValueError: for shapes that do not fit, unknown conditions, and attention in blocks that
            are narrower than a head.
        """
        unet.check("ADM", x, c_noise, self.channels, len(self.channel_mult))
        size, widths = x.shape[1], [self.model_channels * m for m in self.channel_mult]
        emb = self._embed(c_noise, cond, train)
        make = nn.remat(Block, static_argnums=(3,)) if self.remat else Block

        def block(x: jax.Array, part: unet.Part) -> jax.Array:
            attends = part.role == "block" and part.size in self.attn_resolutions
            attends |= part.role == "in0" and self.middle_attention
            n = 0
            if attends:
                n = heads(part.features, self.channels_per_head, f"ADM's {part.name}")
            options = (STYLE, part.mode, n, self.dropout)
            return make(part.features, *options, dtype=self.dtype, name=part.name)(x, emb, train)

        x = x.astype(self.dtype)
        skips = []
        for part in unet.encoder(size, widths[0], widths, self.num_blocks):
            if part.role == "conv":
                x = START.conv(part.features, dtype=self.dtype, name=part.name)(x)
            else:
                x = block(x, part)
            skips.append(x)
        for part in unet.decoder(size, widths, self.num_blocks):
            if part.role == "block":
                x = jnp.concatenate([x, skips.pop()], -1)
            x = block(x, part)
        x = nn.silu(GroupNorm(STYLE.eps, self.dtype, name="out_norm")(x))
        channels = self.out_channels or self.channels
        out = START.conv(channels, "last", dtype=self.dtype, name="out_conv")
        return out(x).astype(jnp.float32)

    def _embed(
        self, c_noise: jax.Array, cond: Mapping[str, jax.Array] | None, train: bool
    ) -> jax.Array:
        """Two dense layers over noise level and augmentation, the label joining after, float32."""
        label, augment = conditions("ADM", cond, len(c_noise), self.label_dim, self.augment_dim)
        emb = positional(c_noise, self.model_channels)
        if self.augment_dim:
            emb += Dense(emb.shape[-1], use_bias=False, w_init=zeros, name="emb_augment")(augment)
        width = self.model_channels * self.channel_mult_emb
        emb = nn.silu(START.dense(width, name="emb_layer0")(emb))
        emb = START.dense(width, name="emb_layer1")(emb)
        if self.label_dim:
            label = drop_labels(self, label, self.label_dropout, train)
            emb += Dense(width, use_bias=False, w_init=normal, name="emb_label")(label)
        return nn.silu(emb)

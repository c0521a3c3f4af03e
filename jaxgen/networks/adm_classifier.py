"""Noisy classifier of ADM: the U-Net's downward half and attention pooling (arXiv:2105.05233).

Sec. 4 and App. H: trained on noisy images, its gradient guides a diffusion model.
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.networks.adm import START, STYLE
from jaxgen.nn import unet
from jaxgen.nn.attention import AttentionPool, heads
from jaxgen.nn.embeddings import positional
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.residual import Block


class Classifier(nn.Module):
    """Logits of the classes of a noisy image, given its noise level.

    Attributes:
      channels: of the images. num_classes: of them.
      model_channels, channel_mult, channel_mult_emb, num_blocks, attn_resolutions,
      channels_per_head, dropout, dtype, remat: as in `adm.ADM`; the pooling attends with heads of
      channels_per_head at the lowest resolution.
    """

    channels: int
    num_classes: int
    model_channels: int = 128
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    channel_mult_emb: int = 4
    num_blocks: int = 4
    attn_resolutions: Sequence[int] = (32, 16, 8)
    channels_per_head: int = 64
    dropout: float = 0.0
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
        """Logits (b, num_classes) in float32; the softmax of them is p(class | x, sigma).

        Args:
          x: (b, h, w, channels) scaled by c_in. c_noise: (b,). cond: nothing, or None.
          train: needs an rng "dropout" if dropout is above 0.
        Raises:
          ValueError: for shapes that do not fit, any condition, and attention in blocks that are
            narrower than a head.
        """
        unet.check("the classifier", x, c_noise, self.channels, len(self.channel_mult))
        if cond:
            raise ValueError(f"the classifier reads no conditions, got {sorted(cond)}")
        size, widths = x.shape[1], [self.model_channels * m for m in self.channel_mult]
        width = self.model_channels * self.channel_mult_emb
        emb = positional(c_noise, self.model_channels)
        for i in (0, 1):
            emb = nn.silu(START.dense(width, name=f"emb_layer{i}")(emb))
        make = nn.remat(Block, static_argnums=(3,)) if self.remat else Block

        x = x.astype(self.dtype)
        bottom = unet.bottom(size, widths, "mid")
        for part in [*unet.encoder(size, widths[0], widths, self.num_blocks), *bottom]:
            if part.role == "conv":
                x = START.conv(part.features, dtype=self.dtype, name=part.name)(x)
                continue
            listed = part.role == "block" and part.size in self.attn_resolutions
            n = 0
            if listed or part.role == "in0":
                n = heads(part.features, self.channels_per_head, f"the classifier's {part.name}")
            options = (STYLE, part.mode, n, self.dropout)
            x = make(part.features, *options, dtype=self.dtype, name=part.name)(x, emb, train)
        x = nn.silu(GroupNorm(STYLE.eps, self.dtype, name="out_norm")(x))
        n = heads(x.shape[-1], self.channels_per_head, "the classifier's pooling")
        pool = AttentionPool(self.num_classes, n, START, self.dtype, name="out_pool")
        return pool(x).astype(jnp.float32)

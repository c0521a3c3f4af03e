"""EDM2: the magnitude-preserving U-Net and its uncertainty head (arXiv:2312.02696, Fig. 21).

Encoder block: resample, 1x1 when the channels change, pixel norm, then

    x <- mp_sum(x, conv(drop(mp_silu(conv(mp_silu(x)) (1 + g linear(emb))))), 0.3),

attention where asked, clip. Decoder block: the same without pixel norm, its input joined with the
encoder's by mp_cat and the 1x1 on the main path only. A constant channel joins the input; noise
level and label meet in one embedding mp_silu(mp_sum(noise, label)).
"""

from collections.abc import Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.mesh import whole_rows
from jaxgen.common.sharding import DEFAULT
from jaxgen.nn.magnitude import (
    FIXED,
    Gain,
    MPConv,
    MPFourier,
    mp_cat,
    mp_silu,
    mp_sum,
    normalize,
    pixel_norm,
    project,
    resample,
)

__all__ = ["EDM2", "FIXED", "SHARDING", "Uncertainty", "project"]

# Heads are the outermost of qkv's output channels: a slice of them is whole heads.
SHARDING = (
    (r"attention/qkv/w$", "tensor_out"),
    (r"attention/proj/w$", "tensor_in"),
    (r"(conv0|/emb)/w$", "tensor_out"),
    (r"conv1/w$", "tensor_in"),
    *DEFAULT,
)


class Attention(nn.Module):
    """Cosine attention over all pixels: q, k and v have unit magnitude per head (Sec. 2.3)."""

    channels_per_head: int
    balance: float = 0.3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        heads = c // self.channels_per_head
        qkv = MPConv(3 * c, 1, self.dtype, name="qkv")(x)
        qkv = qkv.reshape(b, h * w, heads, c // heads, 3)
        q, k, v = (normalize(qkv[..., i], (-1,)) for i in range(3))
        y = jax.nn.dot_product_attention(q, k, v).reshape(b, h, w, c)
        return mp_sum(x, MPConv(c, 1, self.dtype, name="proj")(y), self.balance)


class Block(nn.Module):
    """One encoder or decoder block, see the module's first lines."""

    features: int
    decoder: bool
    mode: str = "keep"
    attention: bool = False
    channels_per_head: int = 64
    resample_filter: Sequence[float] = (1, 1)
    dropout: float = 0.0
    balance: float = 0.3
    attention_balance: float = 0.3
    clip: float = 256.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array, train: bool) -> jax.Array:
        def conv(features: int, kernel: int, name: str) -> MPConv:
            return MPConv(features, kernel, self.dtype, name=name)

        x = resample(x, self.mode, self.resample_filter)
        widen = x.shape[-1] != self.features
        if not self.decoder:
            x = conv(self.features, 1, "skip")(x) if widen else x
            x = pixel_norm(x)
        y = conv(self.features, 3, "conv0")(mp_silu(x))
        gain = Gain(name="emb_gain")()
        scale = 1 + MPConv(self.features, name="emb")(emb, gain)
        y = mp_silu(y * scale[:, None, None].astype(y.dtype))
        if self.dropout:
            y = nn.Dropout(self.dropout, name="dropout")(y, deterministic=not train)
        y = conv(self.features, 3, "conv1")(y)
        if self.decoder and widen:
            x = conv(self.features, 1, "skip")(x)
        x = mp_sum(x, y, self.balance)
        if self.attention and self.features >= self.channels_per_head:
            x = Attention(
                self.channels_per_head, self.attention_balance, self.dtype, name="attention"
            )(x)
        return whole_rows(jnp.clip(x, -self.clip, self.clip))


class EDM2(nn.Module):
    """The raw network F(c_in x, c_noise, cond); wrap it with `noise.precondition.edm`.

    Attributes:
      channels: channels of the image. model_channels: base width (192 for S).
      channel_mult: width multiplier of each resolution, fine to coarse. channel_mult_noise,
      channel_mult_emb: of the Fourier features (None: the first width) and of the embedding (None:
      the largest width).
      num_blocks: residual blocks at each resolution.
      attn_resolutions: image sizes with attention; the coarsest decoder input always has it.
      label_dim: classes, 0 for none. channels_per_head: attention heads are this wide; a block
      narrower than one head has no attention.
      resample_filter: taps, see nn.magnitude.resample. dropout: rate inside the blocks.
      label_balance, concat_balance, balance, attention_balance: the t of each mp_sum or mp_cat.
      clip: bound of block outputs. dtype: compute dtype of the feature maps; embeddings stay
      float32. remat: recompute the inside of every block in the backward pass: less memory, a third
      more work.
    """

    channels: int
    model_channels: int = 192
    channel_mult: Sequence[int] = (1, 2, 3, 4)
    channel_mult_noise: int | None = None
    channel_mult_emb: int | None = None
    num_blocks: int = 3
    attn_resolutions: Sequence[int] = (16, 8)
    label_dim: int = 0
    channels_per_head: int = 64
    resample_filter: Sequence[float] = (1, 1)
    dropout: float = 0.0
    label_balance: float = 0.5
    concat_balance: float = 0.5
    balance: float = 0.3
    attention_balance: float = 0.3
    clip: float = 256.0
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
        """x (b, h, w, c) scaled by c_in, c_noise (b,), cond {"label": (b, label_dim)} or None.

        Returns F (b, h, w, c) in float32. train=True needs an rng "dropout" when dropout > 0.
        """
        cond = dict(cond or {})
        label = cond.pop("label", None)
        if cond:
            raise ValueError(f"EDM2 reads the condition 'label' only, got also {sorted(cond)}")
        _, h, w, _ = x.shape
        levels = len(self.channel_mult)
        if h % 2 ** (levels - 1) or w % 2 ** (levels - 1):
            raise ValueError(
                f"EDM2 with {levels} resolutions needs height and width divisible by "
                f"{2 ** (levels - 1)}, got {h} x {w}; shorten channel_mult or pad the images"
            )
        widths = [self.model_channels * m for m in self.channel_mult]
        wide = lambda mult, default: default if mult is None else self.model_channels * mult
        noise_width = wide(self.channel_mult_noise, widths[0])
        emb_width = wide(self.channel_mult_emb, max(widths))

        emb = MPConv(emb_width, name="emb_noise")(
            MPFourier(noise_width, name="emb_fourier")(c_noise)
        )
        if self.label_dim:
            if label is None:
                label = jnp.zeros((x.shape[0], self.label_dim))
            if label.shape != (x.shape[0], self.label_dim):
                raise ValueError(
                    f"cond['label'] must be one-hot ({x.shape[0]}, {self.label_dim}), got "
                    f"{label.shape}"
                )
            label = label.astype(jnp.float32) * np.sqrt(self.label_dim).astype(np.float32)
            emb = mp_sum(emb, MPConv(emb_width, name="emb_label")(label), self.label_balance)
        emb = mp_silu(emb)

        # 3 is `train`, counting self; explicit names keep the parameters where they are.
        cls = nn.remat(Block, static_argnums=(3,)) if self.remat else Block

        def block(features: int, name: str, decoder: bool, mode: str = "keep", attn: bool = False):
            return cls(
                features,
                decoder,
                mode,
                attn,
                self.channels_per_head,
                self.resample_filter,
                self.dropout,
                self.balance,
                self.attention_balance,
                self.clip,
                self.dtype,
                name=name,
            )

        x = x.astype(self.dtype)
        x = jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)
        skips = []
        for level, features in enumerate(widths):
            size = h >> level
            attn = size in self.attn_resolutions
            if level == 0:
                x = MPConv(features, 3, self.dtype, name=f"enc_{size}_conv")(x)
            else:
                x = block(x.shape[-1], f"enc_{size}_down", False, "down")(x, emb, train)
            skips.append(x)
            for i in range(self.num_blocks):
                x = block(features, f"enc_{size}_block{i}", False, attn=attn)(x, emb, train)
                skips.append(x)
        for level, features in reversed(list(enumerate(widths))):
            size = h >> level
            attn = size in self.attn_resolutions
            if level == levels - 1:
                x = block(features, f"dec_{size}_in0", True, attn=True)(x, emb, train)
                x = block(features, f"dec_{size}_in1", True)(x, emb, train)
            else:
                x = block(x.shape[-1], f"dec_{size}_up", True, "up")(x, emb, train)
            for i in range(self.num_blocks + 1):
                x = mp_cat(x, skips.pop(), self.concat_balance)
                x = block(features, f"dec_{size}_block{i}", True, attn=attn)(x, emb, train)
        gain = Gain(name="out_gain")()
        return MPConv(self.channels, 3, self.dtype, name="out_conv")(x, gain).astype(jnp.float32)


class Uncertainty(nn.Module):
    """u(c_noise): the learned log-variance of the loss at each noise level (b,) (Eq. 14-21)."""

    features: int = 128

    @nn.compact
    def __call__(self, c_noise: jax.Array) -> jax.Array:
        return MPConv(1, name="linear")(MPFourier(self.features, name="fourier")(c_noise))[:, 0]

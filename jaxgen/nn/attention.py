"""Self-attention over pixels, and attention pooling to one vector (arXiv:1706.03762).

The weights of q, k and v are one matrix (c, 3 c): q of all heads, then k, then v.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import param, scaled_normal
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.layers import Start


def heads(channels: int, channels_per_head: int, where: str) -> int:
    """channels // channels_per_head, which must divide the channels.

    Raises:
      ValueError: for fewer channels than one head has, or heads that do not divide them.
    """
    n = channels // channels_per_head
    if n and channels % n == 0:
        return n
    raise ValueError(
        f"attention in {where}: {channels} channels cannot be split into heads of "
        f"channels_per_head={channels_per_head}; choose one that divides the width, or no "
        "attention there"
    )


def attend(qkv: jax.Array, heads: int) -> jax.Array:
    """softmax(q k^T / sqrt(d)) v for qkv (b, t, 3 c) to (b, t, c); the softmax is float32."""
    b, t, c = qkv.shape
    qkv = qkv.reshape(b, t, 3, heads, c // (3 * heads))
    q, k, v = (qkv[:, :, i] for i in range(3))
    return jax.nn.dot_product_attention(q, k, v).reshape(b, t, c // 3)


class SelfAttention(nn.Module):
    """gain proj(attend(qkv(norm(x)))) of images (b, h, w, c), which the caller adds to x."""

    heads: int
    eps: float
    start: Start
    gain: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        dense, dtype = self.start.dense, self.dtype
        y = GroupNorm(self.eps, dtype, name="norm")(x).reshape(b, h * w, c)
        y = attend(dense(3 * c, "qkv", dtype=dtype, name="qkv")(y), self.heads)
        return dense(c, "last", gain=self.gain, dtype=dtype, name="proj")(y).reshape(x.shape)


class AttentionPool(nn.Module):
    """(b, h, w, c) to (b, features): what the image's mean attends to.

    As in CLIP (arXiv:2103.00020, Sec. 2.4): the mean over pixels joins them as token 0, a learned
    vector is added at each position, and of one layer of attention the result at token 0 is kept.
    """

    features: int
    heads: int
    start: Start
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        x = x.reshape(b, h * w, c)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], 1)
        position = param(self, "position", scaled_normal(c**-0.5), (h * w + 1, c))
        dense, dtype = self.start.dense, self.dtype
        y = dense(3 * c, "qkv", dtype=dtype, name="qkv")(x + position.astype(x.dtype))
        return dense(self.features, dtype=dtype, name="proj")(attend(y, self.heads)[:, 0])

"""Residual block of DDPM++, NCSN++ and ADM: norm, silu, convolution, twice (arXiv:2011.13456).

    y = conv1(drop(silu(norm1(conv0(resample(silu(norm0(x)))), emb))))
    x <- s (skip(x) + y),   then with attention   x <- s (x + attention(x))

The embedding of noise level and conditions is added before norm1 (DDPM++, NCSN++; s = 2^-1/2) or
scales and shifts its result (ADM, arXiv:2105.05233, Sec. 3; s = 1).
"""

from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.mesh import whole_rows
from jaxgen.common.params import param
from jaxgen.common.sharding import DEFAULT
from jaxgen.nn.attention import SelfAttention
from jaxgen.nn.convolution import conv
from jaxgen.nn.dropout import dropout
from jaxgen.nn.group_norm import GroupNorm
from jaxgen.nn.layers import Start, bias, matmul
from jaxgen.nn.resample import down2, up2, up2_conv

# Not qkv: its channels are q, k and v of all heads in turn, so a slice would not be whole heads.
SHARDING = (
    (r"conv0/w$", "tensor_out"),
    (r"conv1/w$", "tensor_in"),
    *DEFAULT,
)


class Style(NamedTuple):
    """What the papers do differently.

    adaptive: the embedding scales and shifts, else it is added. skip_scale: s. eps: of the norms.
    project: resampled skips have a 1x1 convolution even between equal widths. start: of the layers.
    """

    adaptive: bool
    skip_scale: float
    eps: float
    project: bool
    start: Start


def resample(x: jax.Array, mode: str, taps: tuple[int, ...]) -> jax.Array:
    """Mode "keep", or "down" or "up" by 2 with the filter `taps`."""
    return {"keep": lambda x, _: x, "down": down2, "up": up2}[mode](x, taps)


class Skip(nn.Module):
    """gain times the 1x1 convolution of the resampled x, done on the smaller of the two grids."""

    features: int
    start: Start
    mode: str = "keep"
    taps: tuple[int, ...] = (1, 1)
    gain: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", self.start.w, (x.shape[-1], self.features))
        b = (bias(self, w.shape, self.start.uniform_bias) * self.gain).astype(self.dtype)
        x, w = x.astype(self.dtype), (w * self.gain).astype(self.dtype)
        if self.mode == "up":  # the bias comes last: filters lose some of a constant at the border
            return up2(matmul(x, w), self.taps) + b
        return matmul(resample(x, self.mode, self.taps), w) + b


class Conv(nn.Module):
    """3x3 convolution of the resampled x."""

    features: int
    start: Start
    mode: str = "keep"
    taps: tuple[int, ...] = (1, 1)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", self.start.w, (3, 3, x.shape[-1], self.features))
        b = bias(self, w.shape, self.start.uniform_bias).astype(self.dtype)
        x = x.astype(self.dtype)
        if self.mode == "up" and self.taps == (1, 1):
            # A quarter of the products; for longer filters the borders would differ.
            return up2_conv(x, w, self.taps) + b
        return conv(resample(x, self.mode, self.taps), w) + b


class Block(nn.Module):
    """One block, see the module's first lines; no attention with heads 0."""

    features: int
    style: Style
    mode: str = "keep"
    heads: int = 0
    dropout: float = 0.0
    taps: tuple[int, ...] = (1, 1)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, emb: jax.Array, train: bool) -> jax.Array:
        s, dtype = self.style, self.dtype
        y = nn.silu(GroupNorm(s.eps, dtype, name="norm0")(x))
        y = Conv(self.features, s.start, self.mode, self.taps, dtype, name="conv0")(y)
        shift = s.start.dense(self.features * (1 + s.adaptive), name="emb")(emb)
        norm1 = GroupNorm(s.eps, dtype, name="norm1")
        if s.adaptive:
            y = norm1(y, *jnp.split(shift, 2, axis=-1))
        else:
            y = norm1(y + shift[:, None, None].astype(dtype))
        y = dropout(self, nn.silu(y), self.dropout, train)
        # s goes into the parameters of each last layer: x is then added to what a product made.
        fields = {"gain": s.skip_scale, "dtype": dtype}
        y = s.start.conv(self.features, "last", name="conv1", **fields)(y)
        if x.shape[-1] != self.features or (s.project and self.mode != "keep"):
            x = Skip(self.features, s.start, self.mode, self.taps, name="skip", **fields)(x)
        else:
            x = resample(x, self.mode, self.taps) * s.skip_scale
        x = x + y
        if self.heads:
            y = SelfAttention(self.heads, s.eps, s.start, name="attention", **fields)(x)
            x = x * s.skip_scale + y
        return whole_rows(x)

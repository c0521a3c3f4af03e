"""Plain and equalised dense and convolution layers, parameters `w` and `b` (arXiv:1710.10196).

Equalised layers store w ~ N(0, 1) / m and use w * m / sqrt(fan_in) each time, biases b * m, so that
an optimizer with normalised updates (Adam) moves every layer at the same relative speed, and layers
with a learning-rate multiplier m < 1 more slowly.
"""

import math
from functools import lru_cache
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.mesh import rows
from jaxgen.common.params import Initializer, he_normal, param, scaled_normal, zeros
from jaxgen.nn.convolution import Padding, conv
from jaxgen.nn.resample import TAPS, conv_down2


@lru_cache(maxsize=64)
def constant(value: float) -> Initializer:
    """`value` everywhere."""
    return lambda key, shape: jnp.full(shape, value, jnp.float32)


@lru_cache(maxsize=64)
def uniform(bound: float) -> Initializer:
    """U(-bound, bound), drawn flat."""

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        u = jax.random.uniform(key, (math.prod(shape),), minval=-bound, maxval=bound)
        return u.reshape(shape)

    return draw


@lru_cache(maxsize=64)
def xavier_uniform(gain: float = 1.0) -> Initializer:
    """gain U(-a, a), a^2 = 6 / (fan_in + fan_out), the fans counting the window of a kernel."""

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        window = math.prod(shape[:-2])
        return uniform(gain * math.sqrt(6 / (window * (shape[-2] + shape[-1]))))(key, shape)

    return draw


def fan_in_uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """U(-a, a), a = fan_in^-1/2: variance 1 / (3 fan_in)."""
    return uniform(math.prod(shape[:-1]) ** -0.5)(key, shape)


def lrelu(x: jax.Array, slope: float = 0.2, gain: float = 2.0**0.5) -> jax.Array:
    """Leaky ReLU times sqrt 2, StyleGAN's activation."""
    return jnp.where(x >= 0, x * gain, x * (slope * gain))


def matmul(x: jax.Array, w: jax.Array) -> jax.Array:
    """x (..., c) @ w (c, d) as a product of matrices: for others XLA copies x in w's gradient."""
    y = rows(x).reshape(-1, x.shape[-1]) @ w
    return rows(y.reshape(*x.shape[:-1], w.shape[-1]))


def bias(module: nn.Module, shape: tuple[int, ...], uniformly: bool) -> jax.Array:
    """The bias (out,) of a layer whose weight has `shape`, output last: 0 or uniform at first."""
    start = uniform(math.prod(shape[:-1]) ** -0.5) if uniformly else zeros
    return param(module, "b", start, shape[-1:])


class Dense(nn.Module):
    """y = gain (x w + b) over the last axis; `w_init` draws w (in, out).

    On images (b, h, w, c) this is the 1x1 convolution. b starts at 0, or with `uniform_bias` as
    U(-fan_in^-1/2, fan_in^-1/2). The gain multiplies the parameters, which are smaller than y.
    """

    features: int
    use_bias: bool = True
    w_init: Initializer = he_normal(1.0)
    dtype: jnp.dtype = jnp.float32
    uniform_bias: bool = False
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", self.w_init, (x.shape[-1], self.features))
        y = matmul(x.astype(self.dtype), (w * self.gain).astype(self.dtype))
        if self.use_bias:
            y = y + (bias(self, w.shape, self.uniform_bias) * self.gain).astype(self.dtype)
        return y


class Conv(nn.Module):
    """Convolution kernel x kernel, (b, h, w, c) -> (b, h', w', features); `w_init` draws HWIO.

    Bias and gain are those of `Dense`.
    """

    features: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    w_init: Initializer = he_normal()
    dtype: jnp.dtype = jnp.float32
    uniform_bias: bool = False
    gain: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", self.w_init, (self.kernel, self.kernel, x.shape[-1], self.features))
        y = conv(x.astype(self.dtype), w * self.gain, self.stride, self.padding)
        if self.use_bias:
            y = y + (bias(self, w.shape, self.uniform_bias) * self.gain).astype(self.dtype)
        return y


class Start(NamedTuple):
    """How the layers of one network start; its methods make them.

    w: of ordinary weights. qkv: of attention's first layer. last: of the last layer of a residual
    branch or network, whose bias starts at 0. uniform_bias: of the others, see `Dense`.
    """

    w: Initializer
    qkv: Initializer
    last: Initializer
    uniform_bias: bool

    def dense(self, features: int, role: str = "w", **fields: Any) -> Dense:
        """A dense layer whose weights start as `role` ("w", "qkv" or "last") says."""
        return Dense(features, **self._of(role), **fields)

    def conv(self, features: int, role: str = "w", **fields: Any) -> Conv:
        """A 3x3 convolution, likewise."""
        return Conv(features, **self._of(role), **fields)

    def _of(self, role: str) -> dict[str, Any]:
        uniformly = self.uniform_bias and role != "last"
        return {"w_init": getattr(self, role), "uniform_bias": uniformly}


def equalized(module: nn.Module, shape: tuple[int, ...], lr_multiplier: float = 1.0) -> jax.Array:
    """The weight w * m / sqrt(fan_in) of a layer, w stored as N(0, 1) / m; output axis last."""
    w = param(module, "w", scaled_normal(1.0 / lr_multiplier), shape)
    return w * (lr_multiplier / float(np.sqrt(np.prod(shape[:-1]))))


class EqualizedDense(nn.Module):
    """y = x (w m / sqrt(in)) + b m; `bias_init` is the effective bias at the start."""

    features: int
    use_bias: bool = True
    bias_init: float = 0.0
    lr_multiplier: float = 1.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        m = self.lr_multiplier
        w = equalized(self, (x.shape[-1], self.features), m)
        y = matmul(x.astype(self.dtype), w.astype(self.dtype))
        if self.use_bias:
            b = param(self, "b", constant(self.bias_init / m), (self.features,))
            y = y + (b * m).astype(self.dtype)
        return y


class EqualizedConv(nn.Module):
    """Convolution with weight w m / sqrt(k k c), bias b m; `down` low-passes and halves."""

    features: int
    kernel: int = 3
    down: bool = False
    use_bias: bool = True
    lr_multiplier: float = 1.0
    taps: tuple[int, ...] = TAPS
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        m = self.lr_multiplier
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        w = equalized(self, shape, m)
        x = x.astype(self.dtype)
        if self.down:
            y = conv_down2(x, w, self.taps)
        else:
            y = conv(x, w)
        if self.use_bias:
            y = y + (param(self, "b", zeros, (self.features,)) * m).astype(self.dtype)
        return y

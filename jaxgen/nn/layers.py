"""Plain and equalised dense and convolution layers, parameters `w` and `b` (arXiv:1710.10196).

Equalised layers store w ~ N(0, 1) / m and use w * m / sqrt(fan_in) each time, biases b * m, so that
an optimizer with normalised updates (Adam) moves every layer at the same relative speed, and layers
with a learning-rate multiplier m < 1 more slowly.
"""

from functools import lru_cache

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.params import Initializer, he_normal, param, scaled_normal, zeros
from jaxgen.nn.resample import TAPS, Padding, conv, conv_down2


@lru_cache(maxsize=64)
def constant(value: float) -> Initializer:
    """`value` everywhere."""
    return lambda key, shape: jnp.full(shape, value, jnp.float32)


def lrelu(x: jax.Array, slope: float = 0.2, gain: float = 2.0**0.5) -> jax.Array:
    """Leaky ReLU times sqrt 2, StyleGAN's activation."""
    return jnp.where(x >= 0, x * gain, x * (slope * gain))


class Dense(nn.Module):
    """y = x w + b over the last axis; `w_init` draws w (in, out)."""

    features: int
    use_bias: bool = True
    w_init: Initializer = he_normal(1.0)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", self.w_init, (x.shape[-1], self.features))
        y = x.astype(self.dtype) @ w.astype(self.dtype)
        if self.use_bias:
            y = y + param(self, "b", zeros, (self.features,)).astype(self.dtype)
        return y


class Conv(nn.Module):
    """Convolution kernel x kernel, (b, h, w, c) -> (b, h', w', features); `w_init` draws HWIO."""

    features: int
    kernel: int = 3
    stride: int = 1
    padding: Padding = "SAME"
    use_bias: bool = True
    w_init: Initializer = he_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = param(self, "w", self.w_init, (self.kernel, self.kernel, x.shape[-1], self.features))
        y = conv(x.astype(self.dtype), w, self.stride, self.padding)
        if self.use_bias:
            y = y + param(self, "b", zeros, (self.features,)).astype(self.dtype)
        return y


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
        y = x.astype(self.dtype) @ w.astype(self.dtype)
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

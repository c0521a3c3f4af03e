"""Spectral normalisation: a weight over its largest singular value (arXiv:1802.05957, Alg. 1).

    v = W^T u / |W^T u|,   u <- W v / |W v|,   sigma = u^T W v,   W / sigma

with one row of W an output. One iteration a training step is enough, since W moves slowly and u is
kept: it is a tracked leaf (`common.params`), new in training and read alone otherwise. u and v are
constants to the gradient, which is exact where they are singular vectors.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.params import Initializer, normal, param, track, tracked, training, zeros
from jaxgen.nn.convolution import conv
from jaxgen.nn.layers import matmul, xavier_uniform
from jaxgen.nn.resample import conv_down2, up2_conv

U = "u"  # the tracked leaf's name
EPS = 1e-12


def unit(x: jax.Array, eps: float = EPS) -> jax.Array:
    """x / max(|x|, eps)."""
    return x / jnp.maximum(jnp.linalg.norm(x), eps)


def unit_normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Uniform on the sphere."""
    return unit(normal(key, shape))


def normalised(
    w: jax.Array, u: jax.Array, iterations: int = 1, eps: float = EPS
) -> tuple[jax.Array, jax.Array]:
    """w / sigma and the new u.

    Args:
      w: (..., out), all axes but the last what an output reads. u: (out,), of length 1.
      iterations: of the power method; 0 reads u as it is, and sigma is |W^T u|. eps: bound of the
        lengths that are divided by.
    """
    rows = w.reshape(-1, w.shape[-1]).astype(jnp.float32)  # W^T
    fixed = jax.lax.stop_gradient(rows)
    dot = partial(jnp.matmul, precision="highest")
    v = unit(dot(fixed, u), eps)
    for i in range(iterations):
        v = unit(dot(fixed, u), eps) if i else v
        u = unit(dot(v, fixed), eps)
    sigma = dot(dot(v, rows), u)
    return w / sigma, u


def spectral(module: nn.Module, w: jax.Array) -> jax.Array:
    """w / sigma of a module's weight (..., out), with the module's own tracked u."""
    u = tracked(module, U, unit_normal, w.shape[-1:])
    w, u = normalised(w, u, iterations=int(training(module)))
    track(module, U, u)
    return w


class Dense(nn.Module):
    """y = x w / sigma + b over the last axis; on images (b, h, w, c) the 1x1 convolution.

    Without `spectral` there is no sigma. `w_init` draws w (in, out); b starts at 0.
    """

    features: int
    use_bias: bool = True
    spectral: bool = True
    w_init: Initializer = xavier_uniform()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = weight(self, (x.shape[-1], self.features))
        y = matmul(x.astype(self.dtype), w.astype(self.dtype))
        return y + _bias(self) if self.use_bias else y


class Conv(nn.Module):
    """3x3 convolution with w / sigma, zeros beyond the border; without `spectral` no sigma.

    mode: "keep" the size; "up", double it by repeating pixels first; "down", halve it by the mean
    of every 2x2 pixels afterwards. Both at a quarter of the products.
    """

    features: int
    mode: str = "keep"
    spectral: bool = True
    w_init: Initializer = xavier_uniform()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        w = weight(self, (3, 3, x.shape[-1], self.features))
        run = {"keep": conv, "up": up2_conv, "down": conv_down2}[self.mode]
        filter_ = {} if self.mode == "keep" else {"taps": (1, 1)}
        return run(x.astype(self.dtype), w, **filter_) + _bias(self)


def weight(module: Dense | Conv, shape: tuple[int, ...]) -> jax.Array:
    """The weight that a layer uses: its parameter `w`, over sigma if it is spectral."""
    w = param(module, "w", module.w_init, shape)
    return spectral(module, w) if module.spectral else w


def _bias(module: Dense | Conv) -> jax.Array:
    return param(module, "b", zeros, (module.features,)).astype(module.dtype)

"""Magnitude-preserving layers: activations and weights keep unit size (arXiv:2312.02696, App. B).

Activations are expected to have unit variance; every operation divides by what it adds. Weights are
stored near unit magnitude per output, kept there by `project` after each update (forced weight
normalisation), and normalised again in the forward pass so that gradients stay on the sphere.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import trees
from jaxgen.common.mesh import rows
from jaxgen.common.params import normal, param, zeros
from jaxgen.nn.convolution import conv
from jaxgen.nn.layers import matmul
from jaxgen.nn.resample import down2, up2

EPS = 1e-4


def normalize(x: jax.Array, axes: tuple[int, ...]) -> jax.Array:
    """x / (eps + rms(x) over `axes`), statistics in float32 (Eq. 47, Eq. 66)."""
    # Far below eps^2 and above the smallest float32: keeps the gradient at 0 finite (and 0).
    square = jnp.mean(jnp.square(x.astype(jnp.float32)), axes, keepdims=True) + 1e-36
    return x / (EPS + jnp.sqrt(square)).astype(x.dtype)


def normalize_weight(w: jax.Array) -> jax.Array:
    """Every output (last axis) of a kernel (..., in, out) to unit rms."""
    return normalize(w, tuple(range(w.ndim - 1)))


def pixel_norm(x: jax.Array) -> jax.Array:
    """Normalises the channels of every pixel (Eq. 66's eps)."""
    return normalize(x, (-1,))


def mp_silu(x: jax.Array) -> jax.Array:
    """silu(x) / 0.596: unit variance in, unit second moment out (Eq. 81)."""
    return nn.silu(x) / 0.596


def mp_sum(a: jax.Array, b: jax.Array, t: float = 0.5) -> jax.Array:
    """((1 - t) a + t b) / sqrt((1 - t)^2 + t^2) (Eq. 88)."""
    return ((1 - t) * a + t * b) / float(np.hypot(1 - t, t))


def mp_cat(a: jax.Array, b: jax.Array, t: float = 0.5) -> jax.Array:
    """Concatenates channels so that a and b weigh (1 - t) : t (Eq. 103)."""
    na, nb = a.shape[-1], b.shape[-1]
    c = np.sqrt((na + nb) / ((1 - t) ** 2 + t**2))
    wa, wb = c / np.sqrt(na) * (1 - t), c / np.sqrt(nb) * t
    return jnp.concatenate([a * float(wa), b * float(wb)], -1)


class MPConv(nn.Module):
    """Magnitude-preserving linear layer or convolution, without bias (Eq. 47).

    kernel 0: (b, c) -> (b, features); kernel k: k x k convolution, zero padding, stride 1. The
    weight `w` is normalised in float32, scaled by gain / sqrt(fan_in), then cast to `dtype`.
    """

    features: int
    kernel: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, gain: jax.Array | float = 1.0) -> jax.Array:
        spatial = (self.kernel,) * 2 if self.kernel else ()
        w = param(self, "w", normal, (*spatial, x.shape[-1], self.features))
        fan_in = float(np.prod(w.shape[:-1]))
        w = (normalize_weight(w) * (gain / np.sqrt(fan_in))).astype(self.dtype)
        x = x.astype(self.dtype)
        if not spatial:
            return matmul(x, w)
        if spatial == (1, 1):
            return rows(jnp.einsum("bhwi,io->bhwo", rows(x), w[0, 0]))
        return conv(x, w)


class Gain(nn.Module):
    """A learned scalar that starts at 0 (Sec. 2.3); `gain` is not normalised."""

    @nn.compact
    def __call__(self) -> jax.Array:
        return param(self, "gain", zeros, ())


@lru_cache(maxsize=8)
def _frequencies(scale: float) -> Callable[..., jax.Array]:
    return lambda key, shape: 2 * np.pi * scale * jax.random.normal(key, shape)


def _phases(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return 2 * np.pi * jax.random.uniform(key, shape)


class MPFourier(nn.Module):
    """sqrt(2) cos(f x + phi), fixed random f = 2 pi bandwidth N(0, 1), phi = 2 pi U(0, 1) (Eq. 75).

    (b,) -> (b, features), float32. `freqs` and `phases` are never trained (see `FIXED`).
    """

    features: int
    bandwidth: float = 1.0

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        f = param(self, "freqs", _frequencies(self.bandwidth), (self.features,))
        phi = param(self, "phases", _phases, (self.features,))
        f, phi = jax.lax.stop_gradient((f, phi))
        return np.sqrt(2).astype(np.float32) * jnp.cos(jnp.outer(x.astype(jnp.float32), f) + phi)


FIXED = (r"(freqs|phases)$",)


def resample(x: jax.Array, mode: str, taps: Sequence[float] = (1, 1)) -> jax.Array:
    """Mode "keep", "down" or "up" by 2 with a separable filter, zeros beyond the borders (App. B).

    The paper's [1, 1] is the 2x2 mean and the nearest neighbour. `taps`, of even length, are scaled
    to sum 1 (down) and 2 (up) on each axis; up is four times the adjoint of down.

    Raises:
      ValueError: an odd number of taps.
    """
    if len(taps) % 2:
        raise ValueError(f"a resampling filter has an even number of taps, got {tuple(taps)}")
    if mode == "keep":
        return x
    if len(set(taps)) > 1 or len(taps) > 2:
        return up2(x, taps) if mode == "up" else down2(x, tuple(reversed(taps)))
    b, h, w, c = x.shape
    if mode == "down":
        return x.reshape(b, h // 2, 2, w // 2, 2, c).mean((2, 4))
    x = jnp.broadcast_to(x[:, :, None, :, None], (b, h, 2, w, 2, c))
    return x.reshape(b, 2 * h, 2 * w, c)


def project(params: Any) -> Any:
    """Forced weight normalisation: every `w` back to unit magnitude, the rest kept (Sec. 2.3)."""
    return trees.map_named(lambda n, x: normalize_weight(x) if _is_weight(n) else x, params)


def _is_weight(name: str) -> bool:
    return name == "w" or name.endswith("/w")

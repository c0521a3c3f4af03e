"""Preconditioning: a raw network F becomes a denoiser with unit-variance ends (arXiv:2206.00364).

    D(x; sigma) = c_skip x + c_out F(c_in x, c_noise)                                   (Eq. 7)

with the coefficients of Table 1.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Cond = Mapping[str, jax.Array] | None
Denoise = Callable[[jax.Array, jax.Array, Cond], jax.Array]


class Scaling(NamedTuple):
    """The four coefficients, each (b,)."""

    c_skip: jax.Array
    c_out: jax.Array
    c_in: jax.Array
    c_noise: jax.Array


def edm_scaling(sigma: jax.Array, sigma_data: float) -> Scaling:
    """The EDM column of Table 1 for noise levels sigma (b,) > 0."""
    total = sigma**2 + sigma_data**2
    root = jnp.sqrt(total)
    return Scaling(sigma_data**2 / total, sigma * sigma_data / root, 1 / root, jnp.log(sigma) / 4)


def expand(v: jax.Array, x: jax.Array) -> jax.Array:
    """(b,) to (b, 1, ..., 1) with the rank of x."""
    return v.reshape(v.shape + (1,) * (x.ndim - v.ndim))


def edm(
    raw: Callable[..., jax.Array], sigma_data: float, scaling: Callable[..., Scaling] = edm_scaling
) -> Denoise:
    """`denoise(x, sigma, cond, **kwargs)` around `raw(x, c_noise, cond, **kwargs)`.

    Args:
      raw: the network, any image size. sigma_data: standard deviation of the data (0.5).
      scaling: (sigma, sigma_data) -> Scaling.
    Returns:
      denoise: x (b, h, w, c) noisy, sigma (b,) its noise levels, to x0 of x's shape, float32.
    """

    def denoise(x: jax.Array, sigma: jax.Array, cond: Cond = None, **kwargs: Any) -> jax.Array:
        sigma = jnp.asarray(sigma, jnp.float32)
        if sigma.shape != x.shape[:1]:
            raise ValueError(
                f"sigma must have shape (b,) = {x.shape[:1]}, got {sigma.shape}; pass one level an "
                "image, not broadcast"
            )
        s = scaling(sigma, sigma_data)
        f = raw(expand(s.c_in, x) * x, s.c_noise, cond, **kwargs)
        return expand(s.c_skip, x) * x + expand(s.c_out, x) * f

    return denoise

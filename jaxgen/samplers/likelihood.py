"""Likelihood: the density of images by the probability-flow ODE (arXiv:2011.13456, Sec. D.2).

Along dx/dlambda = x - D(x; sigma), lambda = ln sigma, for images of d numbers,

    ln p(x) = ln N(x_max; 0, sigma_max^2) + int (d - tr dD/dx) dlambda

from sigma_min to sigma_max: the density of images with noise sigma_min. The trace is exact, d
products an evaluation, or Hutchinson's estimate e . (dD/dx) e with one Rademacher vector e an
image, drawn from its key. Integrated by classical Runge-Kutta in even steps of lambda, order 4,
where the paper takes an adaptive method.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise.precondition import Cond, Denoise


class _Stage(NamedTuple):
    """One evaluation: its level, how far the point is from the last slope, the slope's share."""

    sigma: np.ndarray
    reach: np.ndarray
    share: np.ndarray
    first: np.ndarray


def log_likelihood(
    denoise: Denoise,
    x: jax.Array,
    keys: jax.Array | None = None,
    cond: Cond = None,
    *,
    steps: int = 64,
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> tuple[jax.Array, jax.Array]:
    """ln p(x) in nats (b,), and the noise (b, ...) at sigma_max that x comes from.

    Args:
      x: (b, ...) in the units of the denoiser, of images in [-1, 1] say. keys: (b,) for
      Hutchinson's estimate, unbiased for the density; None takes the exact trace. steps: of four
      evaluations and their gradients each.
    Raises:
      ValueError: for steps < 1 or levels out of order.
    """
    if steps < 1 or not 0 < sigma_min < sigma_max < math.inf:
        raise ValueError(
            "a likelihood needs steps >= 1 and 0 < sigma_min < sigma_max, got "
            f"steps={steps}, sigma_min={sigma_min}, sigma_max={sigma_max}"
        )
    b, d = len(x), math.prod(x.shape[1:])
    if keys is not None:
        signs = jax.vmap(lambda k: jax.random.rademacher(k, (d,), x.dtype))(keys)
        probe = signs.reshape(x.shape)

    def slope(x: jax.Array, sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
        D, pull = jax.vjp(lambda x: denoise(x, jnp.broadcast_to(sigma, (b,)), cond), x)
        if keys is not None:
            trace = (pull(probe)[0] * probe).reshape(b, d).sum(1)
        else:
            row = lambda e: pull(jnp.broadcast_to(e.reshape(x.shape[1:]), x.shape))[0]
            rows = jax.vmap(row)(jnp.eye(d, dtype=x.dtype))  # (d, b, ...)
            trace = jnp.einsum("ibi->b", rows.reshape(d, b, d))
        return x - D, d - trace

    def body(state: tuple, stage: _Stage) -> tuple[tuple, None]:
        x, y, k, log = state
        x = jnp.where(stage.first, y, x)
        k, change = slope(x + stage.reach * k, stage.sigma)
        y = y + stage.share * k
        return (x, y, k, log + stage.share * change), None

    low, h = math.log(sigma_min), math.log(sigma_max / sigma_min) / steps
    at = np.array([0, 0.5, 0.5, 1])
    stages = _Stage(
        np.exp(low + h * (np.arange(steps)[:, None] + at)).ravel(),
        np.tile(h * at, steps),
        np.tile(h * np.array([1, 2, 2, 1]) / 6, steps),
        np.tile(at == 0, steps),
    )
    stages = jax.tree.map(lambda v: jnp.asarray(v, v.dtype if v.dtype == bool else x.dtype), stages)
    start = (x, x, jnp.zeros_like(x), jnp.zeros(b, x.dtype))
    (_, end, _, log), _ = jax.lax.scan(body, start, stages)
    normal = -(end.reshape(b, d) ** 2).sum(1) / (2 * sigma_max**2)
    return log + normal - d / 2 * math.log(2 * math.pi * sigma_max**2), end


def dequantize(x: jax.Array, u: jax.Array) -> jax.Array:
    """Images of 256 grey levels, u / 127.5 - 1, with uniform noise as wide as a level.

    Args:
      x: (b, h, w, c) in [-1, 1]. u: uniform in [0, 1), of the same shape.
    """
    return x + (u - 0.5) / 127.5


def bits_per_dim(log_p: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """(b,): -log2 of the density an 8-bit grey level, over the numbers of an image.

    log_p (b,) nats, of images in [-1, 1] with 127.5 levels a unit, shape (h, w, c).
    """
    return -log_p / (math.prod(shape) * math.log(2)) + math.log2(127.5)

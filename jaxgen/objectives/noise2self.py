"""Noise2Self: a function that predicts J from the rest cannot learn the noise (arXiv:1901.11365).

Section 3, Proposition 1. f is J-invariant if f(y)_J does not depend on y_J. With noise of mean 0
that is independent between J and the rest,

    E |f(y) - y|^2 = E |f(y) - x|^2 + E |y - x|^2 ,

so the self-supervised loss has the supervised one's minimiser among such functions. Any network g
becomes J-invariant with a grid J of every n-th pixel in both directions, of n^2 offsets:

    f(y)_J = g(y, those of J replaced by the mean of their neighbours)_J .

Training takes one J an image; `invariant` puts the n^2 together. g(y), of the image as it is, is
not J-invariant, sees more, and costs one evaluation.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.common import rng

Restore = Callable[[jax.Array], jax.Array]
WEIGHTS = (0.5, 1.0, 0.5), (1.0, 0.0, 1.0), (0.5, 1.0, 0.5)  # of the eight neighbours


def check(n: int) -> None:
    """Raises for a grid without pixels between those of J."""
    if n < 2:
        raise ValueError(f"noise2self: the grid takes every n-th pixel, n at least 2, got {n}")


def grid(offset: jax.Array, h: int, w: int, n: int) -> jax.Array:
    """J: pixels i, j with (i mod n, j mod n) = divmod(offset, n); bool (b, h, w, 1) of (b,)."""
    i, j = jnp.arange(h)[:, None, None], jnp.arange(w)[None, :, None]
    row, column = (v[:, None, None, None] for v in jnp.divmod(offset, n))
    return (i % n == row) & (j % n == column)


def neighbours(y: jax.Array) -> jax.Array:
    """The weighted mean of each pixel's eight neighbours, reflected at the borders."""
    _, h, w, _ = y.shape
    p = jnp.pad(y, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
    total = sum(map(sum, WEIGHTS))
    parts = ((v, i, j) for i, row in enumerate(WEIGHTS) for j, v in enumerate(row) if v)
    return sum(v / total * p[:, i : i + h, j : j + w] for v, i, j in parts)


def masked(y: jax.Array, j: jax.Array) -> jax.Array:
    """y with the pixels of J, bool (b, h, w, 1), replaced by the mean of their neighbours."""
    return jnp.where(j, neighbours(y), y)


def loss(restore: Restore, y: jax.Array, keys: jax.Array, n: int = 4) -> jax.Array:
    """The mean over J of (g(masked y) - y)^2, (b,), J at a random offset of each image.

    Args:
      restore: g, images (b, h, w, c) -> images. y: noisy images. keys: (b,). n: period of the grid.
    Raises:
      ValueError: for n < 2, or images smaller than n.
    """
    check(n)
    h, w = y.shape[1:3]
    if min(h, w) < n:
        raise ValueError(f"noise2self: a grid of every {n}-th pixel needs {n}x{n}, got {h}x{w}")
    j = grid(jnp.floor(rng.uniform(keys) * n * n).astype(jnp.int32), h, w, n)
    error = jnp.square(restore(masked(y, j)) - y).mean(-1, keepdims=True)
    return (error * j).sum((1, 2, 3)) / j.sum((1, 2, 3))


def invariant(restore: Restore, y: jax.Array, n: int = 4) -> jax.Array:
    """The J-invariant function f of g at y (b, h, w, c): g at n^2 masked images, one at a time."""
    check(n)
    b, h, w, _ = y.shape

    def add(out: jax.Array, offset: jax.Array) -> tuple[jax.Array, None]:
        j = grid(jnp.full((b,), offset), h, w, n)
        return jnp.where(j, restore(masked(y, j)), out), None

    return jax.lax.scan(add, jnp.zeros_like(y), jnp.arange(n * n))[0]

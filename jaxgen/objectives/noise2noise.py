"""Noise2Noise: regression on a second corruption, not the clean image (arXiv:1803.04189, Eq. 6).

    argmin E |f(x + n) - (x + n')|^2 = argmin E |f(x + n) - x|^2 ,  E n' = 0, n' independent of n,

because the minimiser of a squared loss is a conditional mean, which independent noise of the target
leaves as it is; the loss only gains the noise's variance. (An absolute loss finds the median.)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.common import rng

Restore = Callable[[jax.Array], jax.Array]
Corrupt = Callable[[jax.Array, jax.Array], jax.Array]


def regression(output: jax.Array, target: jax.Array, norm: str = "l2") -> jax.Array:
    """Mean over pixels of |output - target|^2 ("l2") or |output - target| ("l1"), (b,).

    Raises:
      ValueError: for another norm.
    """
    if norm not in ("l1", "l2"):
        raise ValueError(f"norm must be 'l1' or 'l2', got {norm!r}")
    error = output - target
    error = jnp.square(error) if norm == "l2" else jnp.abs(error)
    return error.mean(tuple(range(1, error.ndim)))


def loss(
    restore: Restore, corrupt: Corrupt, x: jax.Array, keys: jax.Array, norm: str = "l2"
) -> jax.Array:
    """The loss (b,) with both input and target corrupted, each with noise and a level of its own.

    Args:
      restore: f, corrupted images (b, h, w, c) -> images. corrupt: (keys (b,), x) -> corrupted x.
      x: clean images; used only to make the two corruptions. keys: (b,) typed keys.
    """
    first, second = rng.split(keys, 2)
    return regression(restore(corrupt(first, x)), corrupt(second, x), norm)


def supervised(
    restore: Restore, corrupt: Corrupt, x: jax.Array, keys: jax.Array, norm: str = "l2"
) -> jax.Array:
    """Noise2Clean, the baseline: the same input as `loss`, the clean image as target."""
    first, _ = rng.split(keys, 2)
    return regression(restore(corrupt(first, x)), x, norm)

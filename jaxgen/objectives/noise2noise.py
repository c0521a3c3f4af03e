"""Noise2Noise: regression on a second corruption, not the clean image (arXiv:1803.04189, Eq. 6).

    argmin E |f(x + n) - (x + n')|^2 = argmin E |f(x + n) - x|^2 ,  E n' = 0, n' independent of n,

because the minimiser of a squared loss is a conditional mean, which independent noise of the target
leaves as it is; the loss only gains the noise's variance. Other noise needs another loss whose
minimiser it leaves as it is: the absolute loss finds the median, the annealed one (3.2)

    |f - y|^gamma,   gamma falling from 2 to near 0,

the mode (impulse noise), and for unbounded noise of high dynamic range (3.3)

    (f - y)^2 / (f + 0.01)^2,   the denominator a constant to the gradient,

keeps the mean and weighs errors by brightness.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.common import rng

NORMS = ("l2", "l1", "l0", "hdr")


class Seen(NamedTuple):
    """A corrupted image and what is known of it.

    y: (b, h, w, c) in [-1, 1]. level: of the noise, (b,). weight: what each pixel counts as a
    target, (b, h, w, 1): 0 where the corruption took it. known: puts what was measured exactly
    into a result.
    """

    y: jax.Array
    level: jax.Array | None = None
    weight: jax.Array | None = None
    known: Callable[[jax.Array], jax.Array] = lambda result: result


Restore = Callable[[Seen], jax.Array]
Observe = Callable[[jax.Array, jax.Array], Seen]


def exponent(done: jax.Array) -> jax.Array:
    """gamma after a part `done` of the training: 2 - 2 done, at least 0.5, as the authors' code."""
    return jnp.maximum(0.5, 2.0 - 2.0 * done)


def tonemap(v: jax.Array) -> jax.Array:
    """Radiance v >= 0 to [0, 1): (v / (1 + v))^(1 / 2.2), what a network sees of such images."""
    v = jnp.maximum(v, 0.0)
    return (v / (1.0 + v)) ** (1.0 / 2.2)


def check(norm: str) -> None:
    """Raises for a norm that `regression` does not have."""
    if norm not in NORMS:
        raise ValueError(f"norm must be one of {NORMS}, got {norm!r}")


def regression(
    output: jax.Array,
    target: jax.Array,
    norm: str = "l2",
    gamma: jax.Array | float = 2.0,
    weight: jax.Array | None = None,
) -> jax.Array:
    """The mean error over pixels and channels, (b,).

    Args:
      output, target: (b, h, w, c) in [-1, 1].
      norm: "l2", "l1", "l0": (|output - target| + 1e-8)^gamma, or "hdr", in units of radiance
        (v + 1) / 2; there, a negative output counts as 0 in the denominator.
      weight: of pixels, broadcasts to (b, h, w, 1); the mean is over what has weight.
    Raises:
      ValueError: for another norm.
    """
    check(norm)
    error = output - target
    if norm == "l0":
        error = (jnp.abs(error) + 1e-8) ** gamma
    elif norm == "hdr":
        radiance = jnp.maximum((jax.lax.stop_gradient(output) + 1.0) / 2.0, 0.0)
        error = jnp.square(0.5 * error / (radiance + 0.01))
    else:
        error = jnp.square(error) if norm == "l2" else jnp.abs(error)
    axes = tuple(range(1, error.ndim))
    if weight is None:
        return error.mean(axes)
    weight = jnp.broadcast_to(weight, error.shape).astype(error.dtype)
    return (error * weight).sum(axes) / jnp.maximum(weight.sum(axes), 1.0)


def loss(
    restore: Restore,
    observe: Observe,
    x: jax.Array,
    keys: jax.Array,
    norm: str = "l2",
    gamma: jax.Array | float = 2.0,
) -> jax.Array:
    """The loss (b,) with both input and target corrupted, each with noise and a level of its own.

    Args:
      restore: f, what was seen -> images (b, h, w, c). observe: (keys (b,), x) -> corrupted x.
      x: clean images; used only to make the two corruptions. keys: (b,) typed keys.
    """
    first, second = rng.split(keys, 2)
    target = observe(second, x)
    return regression(restore(observe(first, x)), target.y, norm, gamma, target.weight)


def supervised(
    restore: Restore,
    observe: Observe,
    x: jax.Array,
    keys: jax.Array,
    norm: str = "l2",
    gamma: jax.Array | float = 2.0,
) -> jax.Array:
    """Noise2Clean, the baseline: the same input as `loss`, the clean image as target."""
    first, _ = rng.split(keys, 2)
    return regression(restore(observe(first, x)), x, norm, gamma)

"""Measured: Noise2Noise through a linear operator, no image is seen (arXiv:1803.04189, Eq. 6).

Of two measurements y, y' of an image x, y' = A x + n', a restorer f sees the first and has to
foretell the second:

    E |A f(y) - y'|^2 = E |A f(y) - A x|^2 + E |n'|^2

as n' has mean zero and is independent of y. So A f(y) becomes E[A x | y], and what A measures well
is learned as if from clean images. In the directions that A does not measure f has no gradient at
all: they stay what they were at the beginning, or what the other directions bring along.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise.corruption import Linear

Restore = Callable[[jax.Array], jax.Array]


def loss(restore: Restore, operator: Linear, x: jax.Array, keys: jax.Array) -> jax.Array:
    """Mean over measurements of (A f(start(y)) - y')^2, (b,).

    Args:
      restore: f, simple reconstructions (b, h, w, c) -> images. x: clean images, used only to
        measure them twice. keys: (b,) typed keys.
    """
    first, second = rng.split(keys, 2)
    y, other = operator.corrupt(first, x), operator.corrupt(second, x)
    return _mean(operator.forward(restore(operator.start(y))) - other)


def supervised(restore: Restore, operator: Linear, x: jax.Array, keys: jax.Array) -> jax.Array:
    """Mean over pixels of (f(start(y)) - x)^2, (b,): the same input as `loss`, the clean image."""
    first, _ = rng.split(keys, 2)
    return _mean(restore(operator.start(operator.corrupt(first, x))) - x)


def _mean(error: jax.Array) -> jax.Array:
    return jnp.square(error).mean(tuple(range(1, error.ndim)))

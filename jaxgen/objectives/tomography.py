"""Simulator-based self-supervision: held-out noisy projections are the target (arXiv:2212.07431).

The views y = A x + n of one scan are split. The network f gets a poor reconstruction of the input
views; its result is projected by the simulator A and compared with the others, "held":

    E |A_held f(y_input) - y_held|^2 = E |A_held f(y_input) - A_held x|^2 + E |n_held|^2

when the noise has mean zero and is independent from view to view, for any f. So no reference x is
needed; nor is it in the squared error e^T H e with the ramp filter H, where E n^T H n is as
constant. As A^T H A is nearly a multiple of the identity (filtered back-projection), e^T H e is
nearly the squared error of the image itself. The ramp is a choice made here.

Noise2Inverse (arXiv:2001.11801) compares with a poor reconstruction of the held views instead. Its
split is taken for both: one of every `parts` views is held out.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise.transmission import Scanner

Restore = Callable[[jax.Array], jax.Array]


def held(place: jax.Array, views: int, parts: int) -> jax.Array:
    """Which views are held out, float32 (b, views): k with k = place (b,) modulo parts.

    Raises:
      ValueError: unless there are at least 2 parts and as many views.
    """
    if not 2 <= parts <= views:
        raise ValueError(f"{views} views can be split into 2 to {views} parts, got {parts}")
    return (jnp.arange(views) % parts == place[:, None]).astype(jnp.float32)


def draw(keys: jax.Array, views: int, parts: int) -> jax.Array:
    """As `held`, with a random place of each scan."""
    place = jnp.floor(rng.uniform(keys) * parts).astype(jnp.int32)
    return held(jnp.minimum(place, parts - 1), views, parts)


def simulator(
    restore: Restore,
    scanner: Scanner,
    y: jax.Array,
    keys: jax.Array,
    parts: int = 4,
    sharpen: bool = True,
) -> jax.Array:
    """The loss (b,): mean squared error of the held views' projections.

    Args:
      restore: f, poor reconstructions -> images or volumes. y: scans (b, views, ...).
      keys: (b,), of the splits. sharpen: e^T H e in place of e^T e.
    """
    mask = draw(keys, scanner.views, parts)
    error = scanner.forward(restore(scanner.start(y, 1 - mask))) - y
    square = error * (scanner.ramp(error) if sharpen else error)
    each = square.mean(tuple(range(2, y.ndim)))
    return (mask * each).sum(1) / mask.sum(1)


def noise2inverse(
    restore: Restore, scanner: Scanner, y: jax.Array, keys: jax.Array, parts: int = 4
) -> jax.Array:
    """Noise2Inverse's loss (b,): mean squared difference to the held views' reconstruction."""
    mask = draw(keys, scanner.views, parts)
    return _mean(restore(scanner.start(y, 1 - mask)) - scanner.start(y, mask))


def supervised(restore: Restore, scanner: Scanner, y: jax.Array, x: jax.Array) -> jax.Array:
    """The upper bound's loss (b,): mean squared error to the reference x, from all views."""
    return _mean(restore(scanner.start(y)) - x)


def reconstruct(restore: Restore, scanner: Scanner, y: jax.Array, parts: int = 4) -> jax.Array:
    """The mean of the results from each of the `parts` inputs of training."""

    def one(place: jax.Array) -> jax.Array:
        mask = held(jnp.full(len(y), place), scanner.views, parts)
        return restore(scanner.start(y, 1 - mask))

    return jax.lax.map(one, jnp.arange(parts)).mean(0)


def _mean(error: jax.Array) -> jax.Array:
    return jnp.square(error).mean(tuple(range(1, error.ndim)))

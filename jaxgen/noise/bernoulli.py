"""Bernoulli: pixels lost at random, where the loss counts the others only (arXiv:1803.04189, 3.2).

    y = m x,   m = 1 with probability p, one draw a pixel for all channels,   E y = p x

A lost pixel is 0 in [-1, 1], the middle grey. A target of this noise goes into a loss with its
mask, which `observed` gives.
"""

import dataclasses
from typing import ClassVar

import jax

from jaxgen.common import rng
from jaxgen.noise.corruption import Level, Noise


@dataclasses.dataclass(frozen=True)
class Bernoulli(Noise):
    """x where a pixel is kept, 0 elsewhere; p: the probability that a pixel is kept."""

    p: Level = 0.5
    unit: ClassVar[str] = "the probability that a pixel is kept"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """x where `mask`, 0 elsewhere."""
        return x * self.mask(keys, x, level).astype(x.dtype)

    def mask(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """Whether a pixel is kept, bool (b, h, w, 1), with the keys and levels of `apply`."""
        u = rng.uniform(keys, (x.shape[1] * x.shape[2],))
        return (u < level[:, None]).reshape(*x.shape[:3], 1)

    def observed(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """The pixels that `corrupt` keeps with the same keys, bool (b, h, w, 1)."""
        first, second = rng.split(keys, 2)
        return self.mask(second, x, self.levels(first))

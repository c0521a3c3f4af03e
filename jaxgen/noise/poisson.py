"""Poisson: photon counts, the dominant noise of photographs (arXiv:1803.04189, 3.2).

    y01 = Poisson(lam x01) / lam,   E y01 = x01,   Var y01 = x01 / lam

with x01 = (x + 1) / 2 in [0, 1], and lam the expected count at white.
"""

import dataclasses
import math
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.noise.corruption import Level, Noise


@dataclasses.dataclass(frozen=True)
class Poisson(Noise):
    """Counts of x01 times lam; what is darker than black counts as black. Not clipped at white."""

    lam: Level = 30.0
    unit: ClassVar[str] = "the expected count at white"
    limits: ClassVar[tuple[float, float]] = (1e-3, 1e9)

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """2 Poisson(level x01) / level - 1."""
        n = math.prod(x.shape[1:])
        rate = level[:, None] * jnp.maximum((x.reshape(-1, n) + 1) / 2, 0)
        counts = jax.vmap(jax.random.poisson)(keys, rate).astype(x.dtype)
        return (2 * counts / level[:, None] - 1).reshape(x.shape)

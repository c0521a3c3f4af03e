"""Impulse: random-valued impulse noise, pixels replaced by random colours (arXiv:1803.04189, 3.2).

    y = (1 - m) x + m u,   m = 1 with probability alpha, one draw a pixel,   u ~ U[-1, 1]^c

E y = (1 - alpha) x: the mean is drawn to grey; the mode is x, which an annealed L0 loss finds.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise.corruption import Level, Noise


@dataclasses.dataclass(frozen=True)
class Impulse(Noise):
    """Uniform random colours in the place of pixels; alpha: the probability of it."""

    alpha: Level = 0.5
    unit: ClassVar[str] = "the probability that a pixel is replaced"
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """x, or a random colour with probability `level`."""
        b, h, w, c = x.shape
        u = rng.uniform(keys, (h * w * (c + 1),))  # one draw: the masks, then the colours
        replaced = (u[:, : h * w] < level[:, None]).reshape(b, h, w, 1)
        colour = (2 * u[:, h * w :] - 1).reshape(x.shape).astype(x.dtype)
        return jnp.where(replaced, colour, x)

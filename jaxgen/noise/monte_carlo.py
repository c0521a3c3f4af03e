"""Monte Carlo: the long-tailed noise of path-traced images (arXiv:1803.04189, 3.3).

A model of it: x01 = (x + 1) / 2 is read as linear radiance, and a pixel is the mean of `spp`
paths. Each finds the light with probability `hit`, and then brings x01 / hit times a long-tailed e:

    y01 = x01 / spp sum_i B_i e_i / hit,   B_i ~ Bernoulli(hit),   P(e > t) = (1 + t / (a - 1))^-a

E e = 1, so E y01 = x01, and with E e^2 = 2 (a - 1) / (a - 2)

    Var y01 = x01^2 (E e^2 / hit - 1) / spp.

Nothing is clipped: a few pixels are many times too bright ("fireflies"). A path carries all
channels, which are noisy together. The mean of tone-mapped values is not the tone-mapped mean, so
targets stay linear. The paper renders scenes; this needs none.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise.corruption import Level, Noise, ends


@dataclasses.dataclass(frozen=True)
class MonteCarlo(Noise):
    """The mean of spp paths a pixel; a range of spp draws a whole number for each image.

    Args:
      hit: the probability that a path finds the light, in (0, 1]. tail: a > 2; moments of order a
        and more are infinite.
    Raises:
      ValueError: for others.
    """

    spp: Level = 16
    hit: float = 0.3
    tail: float = 4.0
    unit: ClassVar[str] = "the number of paths a pixel"
    limits: ClassVar[tuple[float, float]] = (1, 4096)

    def __post_init__(self):
        super().__post_init__()
        if any(v != int(v) for v in ends(self.spp)):
            raise ValueError(f"spp is a whole number of paths or a range of them, got {self.spp}")
        if not 0 < self.hit <= 1:
            raise ValueError(f"hit is a probability in (0, 1], got {self.hit}")
        if not self.tail > 2:
            raise ValueError(f"tail must be above 2, else the variance is infinite: {self.tail}")

    def levels(self, keys: jax.Array) -> jax.Array:
        """Paths a pixel (b,), whole numbers."""
        low, high = ends(self.spp)
        if low == high:
            return jnp.full(keys.shape, low, jnp.float32)
        return jnp.floor(low + (high + 1 - low) * rng.uniform(keys))

    def path(self, u: jax.Array) -> jax.Array:
        """What a path brings, of mean 1, from u uniform in [0, 1): B e / hit by the inverse CDF."""
        t = jnp.maximum(u, 2.0**-24) / self.hit  # u = 0 would be infinite
        e = (self.tail - 1) * (t ** (-1 / self.tail) - 1)
        return jnp.where(u < self.hit, e / self.hit, 0.0)

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """Radiance of `level` paths a pixel, as an image of [-1, 1] that is not clipped."""
        pixels = x.shape[1] * x.shape[2]

        def add(i: jax.Array, total: jax.Array) -> jax.Array:
            fresh = jax.vmap(lambda k: jax.random.fold_in(k, i))(keys)
            brought = self.path(rng.uniform(fresh, (pixels,)))
            return total + jnp.where(i < level[:, None], brought, 0.0)

        zero = jnp.zeros((len(keys), pixels), jnp.float32)
        total = jax.lax.fori_loop(0, int(ends(self.spp)[1]), add, zero)
        gain = (total / level[:, None]).reshape(*x.shape[:3], 1).astype(x.dtype)
        return (x + 1) * gain - 1

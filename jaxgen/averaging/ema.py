"""Exponential moving average with a half-life in images, as in EDM (arXiv:2206.00364).

    theta_hat <- beta theta_hat + (1 - beta) theta,  beta = 2^(-batch / halflife)

With `ramp`, the half-life is at most `ramp` x the images seen before the step, so that early
averages do not remember the initialisation; the first step then copies the weights. A `schedule`
says what the half-life is instead (arXiv:2501.05441).
"""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True)
class HalfLife:
    """A tracked average with half-life `images`; `ramp` in (0, 1] or None.

    schedule: images seen before the step -> half-life in images, in place of both; `images` is then
    what the average is called by, where the schedule ends.
    """

    images: float
    ramp: float | None = 0.05
    schedule: Callable[[jax.Array], jax.Array] | None = None

    def __post_init__(self):
        if self.images <= 0 or (self.ramp is not None and self.ramp <= 0):
            raise ValueError(f"halflife images and ramp must be positive, got {self}")

    @property
    def name(self) -> str:
        """The profile's name, such as `halflife_500000`."""
        return f"halflife_{self.images:g}"

    def weight(self, nimg: jax.Array, batch: int) -> jax.Array:
        """1 - beta for the step that ends at `nimg` images."""
        halflife = jnp.float32(self.images)
        if self.schedule is not None:
            halflife = self.schedule(nimg - batch)
        elif self.ramp is not None:
            halflife = jnp.minimum(halflife, self.ramp * (nimg - batch))
        return -jnp.expm1(-math.log(2.0) * batch / jnp.maximum(halflife, 1e-8))

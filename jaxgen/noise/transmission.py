"""Transmission: photon counts behind an object and their logarithm (arXiv:2001.11801).

Of I_0 photons that enter a ray with line integral p, I ~ Poisson(I_0 exp(-p)) leave it, and the
scan gives p' = -log(I / I_0). With lambda = I_0 exp(-p) photons expected,

    E p' = p + 1 / (2 lambda) + O(lambda^-2) ,   Var p' = 1 / lambda + O(lambda^-2) ,

so the noise is independent from ray to ray, and its mean is zero as far as counts are large.
"""

import abc
import dataclasses

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise import backprojection
from jaxgen.noise.corruption import Linear


def counts(keys: jax.Array, p: jax.Array, photons: float) -> jax.Array:
    """Photons I (b, ...) behind line integrals p (b, ...) >= 0, by keys (b,); float32 integers.

    Raises:
      ValueError: when photons, those that enter each ray, are not positive.
    """
    if not photons > 0:
        raise ValueError(f"photons that enter a ray must be > 0, got {photons!r}")
    rate = photons * jnp.exp(-p.reshape(len(p), -1))
    return jax.vmap(jax.random.poisson)(keys, rate).astype(jnp.float32).reshape(p.shape)


def log_ratio(count: jax.Array, photons: float) -> jax.Array:
    """Line integrals -log(I / I_0); a ray without a photon counts as one with a single photon."""
    return -jnp.log(jnp.maximum(count, 1.0) / photons)


def scan(keys: jax.Array, p: jax.Array, photons: float) -> jax.Array:
    """Noisy line integrals (b, ...) of a scan with `photons` entering each ray."""
    return log_ratio(counts(keys, p, photons), photons)


@dataclasses.dataclass(frozen=True)
class Scanner(Linear):
    """A projector of images in [-1, 1] with photon noise, sigma, or both; y is (b, views, ...).

    `forward` and `adjoint` are linear. What attenuates is (x + 1) / 2 times `density`, so that -1
    is empty: line integrals p = density (y + white) / 2, `white` being the image of ones'
    projections. Noise of p is given in units of y.

    Args:
      photons: that enter each ray; 0 is no photon noise. density: attenuation of white on the way
      of a half-width, which the counts depend on. window: of the ramp filter (backprojection.py).
    """

    photons: float = dataclasses.field(default=0.0, kw_only=True)
    density: float = dataclasses.field(default=1.0, kw_only=True)
    window: str = dataclasses.field(default="ram-lak", kw_only=True)

    def __post_init__(self):
        super().__post_init__()
        if self.photons < 0 or not self.density > 0:
            raise ValueError(
                "a scan needs photons >= 0 (0 is no photon noise) and density > 0, got "
                f"{self.photons} and {self.density}"
            )
        backprojection.check(self.window)

    @property
    @abc.abstractmethod
    def views(self) -> int:
        """The number of projections."""

    @abc.abstractmethod
    def white(self, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        """The projections of an image of ones, to be broadcast over y."""

    @abc.abstractmethod
    def ramp(self, y: jax.Array) -> jax.Array:
        """Projections with each detector row filtered; linear, symmetric and never negative."""

    @abc.abstractmethod
    def start(self, y: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        """Filtered back-projection of y.

        Args:
          keep: (views,) or (b, views), 1 or 0: of some of the views, about equally spaced.
        """

    def corrupt(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """The measured y (b, views, ...) of images; keys (b,)."""
        count, noise = rng.split(keys, 2)
        y = self.forward(x)
        if self.photons:
            white, half = self.white(y.dtype), self.density / 2
            p = jnp.maximum(half * (y + white), 0)  # below 0 by rounding only, where it is empty
            y = scan(count, p, self.photons).astype(y.dtype) / half - white
        if self.sigma:
            y = y + self.sigma * rng.normal(noise, y.shape[1:]).astype(y.dtype)
        return y

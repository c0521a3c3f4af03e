"""Fourier: random undersampling of the spectrum, as in MRI (arXiv:1803.04189, 3.4).

Frequency k is measured with probability p(k) = exp(-lam |k|), |k| in units of the Nyquist
frequency, and weighted by 1 / p(k) ("Russian roulette"):

    y = F^-1(m F(x) / p),   E m = p,   so E y = x.

lam is such that a part `rate` of the frequencies is measured in expectation. k = 0 always is. k and
-k, which of a real image say the same, are measured together, so that y is real. `replace` puts the
measured frequencies into a result. `KSpace` is the linear operator of one fixed mask, whose
measurements are the frequencies.
"""

import dataclasses
import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.noise.corruption import Level, Linear, Noise, check_level

LAMBDAS = np.geomspace(1e-4, 1e4, 2001)


def radius(h: int, w: int) -> np.ndarray:
    """|k| (h, w) in units of the Nyquist frequency, in the order of numpy.fft."""
    return 2 * np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w)[None])


def negative(a: Any) -> Any:
    """a(-k) of a(k) (..., h, w)."""
    return a[..., ::-1, ::-1][..., _rolled(a.shape[-2]), :][..., _rolled(a.shape[-1])]


def _rolled(n: int) -> np.ndarray:
    return np.roll(np.arange(n), 1)


@functools.lru_cache(maxsize=32)
def rates(h: int, w: int) -> np.ndarray:
    """The expected part of measured frequencies at each of LAMBDAS, decreasing."""
    r, count = np.unique(radius(h, w), return_counts=True)
    return np.array([np.exp(-lam * r) @ count for lam in LAMBDAS]) / (h * w)


def probability(rate: jax.Array | np.ndarray, h: int, w: int) -> jax.Array | np.ndarray:
    """p(k), (b, h, w), of rates (b,); lam by interpolation of a table in ln lam."""
    xp = jnp if isinstance(rate, jax.Array) else np
    lam = xp.exp(xp.interp(rate, rates(h, w)[::-1], np.log(LAMBDAS)[::-1]))
    return xp.exp(-lam[:, None, None] * radius(h, w))


def symmetric(u: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """u (..., h, w) with the value of the lesser index at both of k and -k."""
    h, w = u.shape[-2:]
    index = np.arange(h * w).reshape(h, w)
    xp = jnp if isinstance(u, jax.Array) else np
    return xp.where(index <= negative(index), u, negative(u))


def transform(x: jax.Array) -> jax.Array:
    """The orthonormal spectrum (b, h, w, c) of images."""
    return jnp.fft.fft2(x, axes=(1, 2), norm="ortho")


def image(spectrum: jax.Array) -> jax.Array:
    """The real part of the image (b, h, w, c) of an orthonormal spectrum."""
    return jnp.fft.ifft2(spectrum, axes=(1, 2), norm="ortho").real


@dataclasses.dataclass(frozen=True)
class Fourier(Noise):
    """The image of a randomly sampled, reweighted spectrum; rate: the part that is measured."""

    rate: Level = 0.1
    unit: ClassVar[str] = "the expected part of the frequencies that are measured"
    limits: ClassVar[tuple[float, float]] = (1e-3, 1.0)

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """F^-1(m F(x) / p), one mask for all channels."""
        h, w = x.shape[1:3]
        weight = self.mask(keys, x, level)[..., 0] / probability(level, h, w)
        return image(transform(x) * weight[..., None]).astype(x.dtype)

    def mask(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """Whether a frequency is measured, bool (b, h, w, 1), with keys and levels of `apply`."""
        h, w = x.shape[1:3]
        u = symmetric(rng.uniform(keys, (h * w,)).reshape(-1, h, w))
        return (u < probability(level, h, w))[..., None]

    def observed(self, keys: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Of `corrupt` with the same keys: the mask, bool (b, h, w, 1), and p (b, h, w, 1)."""
        first, second = rng.split(keys, 2)
        level = self.levels(first)
        return self.mask(second, x, level), probability(level, *x.shape[1:3])[..., None]


def replace(result: jax.Array, y: jax.Array, mask: jax.Array, p: jax.Array) -> jax.Array:
    """`result` (b, h, w, c) with the measured frequencies of y in the place of its own.

    Args:
      y: what `Fourier.corrupt` gave. mask, p: as from `Fourier.observed`.
    """
    return image(jnp.where(mask, transform(y) * p, transform(result))).astype(result.dtype)


@dataclasses.dataclass(frozen=True)
class KSpace(Linear):
    """x -> the measured frequencies (b, h, w, 2c), real and imaginary parts, 0 where there is none.

    Args:
      rate: the expected part that one mask, the same for all images, measures. seed: of the mask.
      sigma: noise of each part of a coefficient of the orthonormal spectrum.
    Raises:
      ValueError: for a range, or a rate outside of [0.001, 1].
    """

    rate: float = 0.1
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not isinstance(self.rate, (int, float)):
            raise ValueError(f"rate of k-space is one number, as its mask is one: {self.rate!r}")
        check_level("rate", Fourier.unit, self.rate, *Fourier.limits)

    def mask(self, h: int, w: int) -> np.ndarray:
        """The measured frequencies, bool (1, h, w, 1)."""
        u = symmetric(np.random.default_rng(self.seed).random((1, h, w)))
        return (u < probability(np.array([self.rate]), h, w))[..., None]

    def forward(self, x: jax.Array) -> jax.Array:
        """m F(x), its real parts and then its imaginary parts."""
        spectrum = transform(x) * self.mask(*x.shape[1:3])
        return jnp.concatenate([spectrum.real, spectrum.imag], -1)

    def adjoint(self, y: jax.Array) -> jax.Array:
        """Re F^-1(m y)."""
        real, imaginary = jnp.split(y, 2, -1)
        return image((real + 1j * imaginary) * self.mask(*y.shape[1:3]))

    def start(self, y: jax.Array) -> jax.Array:
        """Zero-filled: the image of the measured frequencies."""
        return self.adjoint(y)

    def measured(self, y: jax.Array) -> jax.Array:
        """The mask."""
        return jnp.asarray(self.mask(*y.shape[1:3]), y.dtype)

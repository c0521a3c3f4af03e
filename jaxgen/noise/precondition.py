"""Preconditioning: a raw network becomes a denoiser, in four families (arXiv:2206.00364, Table 1).

    D(x; sigma) = c_skip x + c_out F(c_in x, c_noise)                                   (Eq. 7)

A family is a small frozen object: the four coefficients, the levels it supports, and how a level is
rounded. EDM keeps inputs and targets of F at unit variance at every level. In VP, VE (score SDEs,
arXiv:2011.13456) and iDDPM (arXiv:2102.09672) F predicts the noise, but for its sign.
"""

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise import iddpm, vp

Cond = Mapping[str, jax.Array] | None
Denoise = Callable[[jax.Array, jax.Array, Cond], jax.Array]
Levels = jax.Array | np.ndarray | float


class Scaling(NamedTuple):
    """The four coefficients, each (b,)."""

    c_skip: jax.Array
    c_out: jax.Array
    c_in: jax.Array
    c_noise: jax.Array


class Family(abc.ABC):
    """What a preconditioning is made of.

    `sigma_min` and `sigma_max` bound the levels that the network is trained for. `outputs` times
    the image's channels is what F puts out; the first of them are used.
    """

    name: str
    outputs: int = 1
    sigma_min: float
    sigma_max: float

    @abc.abstractmethod
    def scaling(self, sigma: jax.Array) -> Scaling:
        """The coefficients at levels sigma (b,)."""

    def round_sigma(self, sigma: Levels) -> Levels:
        """The nearest level that F knows, any shape: the level itself, but for iDDPM."""
        return sigma


def edm_scaling(sigma: jax.Array, sigma_data: float) -> Scaling:
    """The EDM column of Table 1 for noise levels sigma (b,) > 0."""
    total = sigma**2 + sigma_data**2
    root = jnp.sqrt(total)
    return Scaling(sigma_data**2 / total, sigma * sigma_data / root, 1 / root, jnp.log(sigma) / 4)


@dataclasses.dataclass(frozen=True)
class EDM(Family):
    """Any level above 0. sigma_data: standard deviation of the data."""

    sigma_data: float = 0.5
    name: ClassVar[str] = "edm"
    sigma_min: ClassVar[float] = 0.0
    sigma_max: ClassVar[float] = float("inf")

    def scaling(self, sigma: jax.Array) -> Scaling:
        return edm_scaling(sigma, self.sigma_data)


@dataclasses.dataclass(frozen=True)
class VP(Family):
    """F predicts the noise, told of (M - 1) t. Levels are those of t in [epsilon_t, 1]."""

    beta_d: float = vp.BETA_D
    beta_min: float = vp.BETA_MIN
    M: int = 1000
    epsilon_t: float = 1e-5
    name: ClassVar[str] = "vp"

    @property
    def sigma_min(self) -> float:
        """sigma(epsilon_t)."""
        return float(vp.sigma(self.epsilon_t, self.beta_d, self.beta_min))

    @property
    def sigma_max(self) -> float:
        """sigma(1)."""
        return float(vp.sigma(1.0, self.beta_d, self.beta_min))

    def scaling(self, sigma: jax.Array) -> Scaling:
        """1, -sigma, 1 / sqrt(sigma^2 + 1), (M - 1) t(sigma)."""
        t = vp.time(sigma, self.beta_d, self.beta_min)
        return _noise_scaling(sigma, (self.M - 1) * t)


@dataclasses.dataclass(frozen=True)
class VE(Family):
    """F predicts minus the noise, told of ln(sigma / 2); x is not scaled."""

    sigma_min: float = 0.02
    sigma_max: float = 100.0
    name: ClassVar[str] = "ve"

    def scaling(self, sigma: jax.Array) -> Scaling:
        """1, sigma, 1, ln(sigma / 2)."""
        one = jnp.ones_like(sigma)
        return Scaling(one, sigma, one, jnp.log(sigma / 2))


@dataclasses.dataclass(frozen=True)
class IDDPM(Family):
    """F predicts the noise, told of M - 1 - j at table level u_j (noise/iddpm.py).

    The second half of F's channels is a learned variance, which an x0 does not need.
    """

    C_1: float = 0.001
    C_2: float = 0.008
    M: int = 1000
    name: ClassVar[str] = "iddpm"
    outputs: ClassVar[int] = 2

    @property
    def table(self) -> np.ndarray:
        """u (M + 1,) float64, from u_0, the highest level, down to u_M = 0."""
        return iddpm.table(self.M, self.C_1, self.C_2)

    @property
    def sigma_min(self) -> float:
        """u_(M-1), the lowest level above 0."""
        return float(self.table[-2])

    @property
    def sigma_max(self) -> float:
        """u_0."""
        return float(self.table[0])

    def scaling(self, sigma: jax.Array) -> Scaling:
        """1, -sigma, 1 / sqrt(sigma^2 + 1), M - 1 - argmin_j |u_j - sigma|."""
        j = iddpm.nearest(sigma, self.table)
        return _noise_scaling(sigma, (self.M - 1 - j).astype(sigma.dtype))

    def round_sigma(self, sigma: Levels) -> Levels:
        """The nearest u_j, 0 included; float64 for numpy, on the device for jax."""
        j = iddpm.nearest(sigma, self.table)
        return (jnp.asarray(self.table, sigma.dtype) if isinstance(j, jax.Array) else self.table)[j]


def _noise_scaling(sigma: jax.Array, c_noise: jax.Array) -> Scaling:
    return Scaling(jnp.ones_like(sigma), -sigma, 1 / jnp.sqrt(sigma**2 + 1), c_noise)


FAMILIES: dict[str, Callable[..., Family]] = {f.name: f for f in (EDM, VP, VE, IDDPM)}


def family(name: str, **kwargs: float) -> Family:
    """The family of a name, `kwargs` being fields of its class.

    Raises:
      ValueError: for an unknown name or an argument that the family does not have.
    """
    if name not in FAMILIES:
        raise ValueError(f"unknown preconditioning {name!r}; known are {', '.join(FAMILIES)}")
    fields = [f.name for f in dataclasses.fields(FAMILIES[name])]
    if unknown := sorted(set(kwargs) - set(fields)):
        raise ValueError(f"preconditioning {name!r} takes {', '.join(fields)}, got {unknown}")
    return FAMILIES[name](**kwargs)


def check_levels(sigma: np.ndarray | float, family: Family) -> None:
    """Raises when a level is not positive, finite and in the family's range, but for rounding.

    Args:
      sigma: levels of any shape, known before compilation: numpy arrays or Python numbers.
    """
    s = np.asarray(sigma, np.float64)
    inside = (s > 0) & (s < np.inf)
    inside &= (s >= family.sigma_min * (1 - 1e-5)) & (s <= family.sigma_max * (1 + 1e-5))
    if not np.all(inside):
        raise ValueError(
            f"sigma is outside of what {family.name!r} preconditioning supports, "
            f"{family.sigma_min:.6g} to {family.sigma_max:.6g}: got {s[~inside].ravel()[:4]}; move "
            "sigma_min and sigma_max of the sampler or the training levels into that range"
        )


def expand(v: jax.Array, x: jax.Array) -> jax.Array:
    """(b,) to (b, 1, ..., 1) with the rank of x."""
    return v.reshape(v.shape + (1,) * (x.ndim - v.ndim))


def denoiser(raw: Callable[..., jax.Array], family: Family) -> Denoise:
    """`denoise(x, sigma, cond, **kwargs)` around `raw(x, c_noise, cond, **kwargs)`.

    Args:
      raw: the network F, any image size, with `family.outputs` times the channels of x.
      family: EDM(), VP(), VE() or IDDPM(), or another with their methods.
    Returns:
      denoise: x (b, h, w, c) noisy, sigma (b,) its noise levels, to x0 of x's shape, float32.
      It raises ValueError for shapes that do not fit, and for levels outside of the family's range
      when they are numpy arrays; those of a compiled program are not known and are not clipped.
    """

    def denoise(x: jax.Array, sigma: jax.Array, cond: Cond = None, **kwargs: Any) -> jax.Array:
        if not isinstance(sigma, jax.Array):
            check_levels(sigma, family)
        sigma = jnp.asarray(sigma, jnp.float32)
        if sigma.shape != x.shape[:1]:
            raise ValueError(
                f"sigma must have shape (b,) = {x.shape[:1]}, got {sigma.shape}; pass one level an "
                "image, not broadcast"
            )
        s = family.scaling(sigma)
        f = raw(expand(s.c_in, x) * x, s.c_noise, cond, **kwargs)
        if f.shape != (want := (*x.shape[:-1], family.outputs * x.shape[-1])):
            raise ValueError(
                f"{family.name!r} preconditioning expects a network output of shape {want} for "
                f"images {x.shape}, got {f.shape}; set the network's output channels"
            )
        return expand(s.c_skip, x) * x + expand(s.c_out, x) * f[..., : x.shape[-1]]

    return denoise


def edm(raw: Callable[..., jax.Array], sigma_data: float) -> Denoise:
    """`denoiser` with the EDM family."""
    return denoiser(raw, EDM(sigma_data))

"""Corruption: what noise families and linear measurements have in common (arXiv:1803.04189, 2).

Whatever corrupts an image answers to `corrupt(keys, x) -> y`, and image i depends on keys[i] alone.
Noise families (`Noise`) have a level that each image may draw for itself. Linear operators
(`Linear`) have `forward` and `adjoint`, <A x, y> = <x, A^T y>, and measure

    y = A x + sigma n,   n ~ N(0, I).
"""

import abc
import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp

from jaxgen.common import rng

Level = float | tuple[float, float]


class Corruption(Protocol):
    """What the registry of operators.py makes."""

    def corrupt(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """y of images x (b, h, w, c) in [-1, 1] with keys (b,)."""


def ends(level: Level) -> tuple[Any, Any]:
    """(low, high) of a level or a range of levels."""
    ranged = isinstance(level, (tuple, list)) and len(level) == 2
    return tuple(level) if ranged else (level, level)


def draw(keys: jax.Array, level: Level) -> jax.Array:
    """Levels (b,): the number itself, or uniform between the two ends of a range."""
    low, high = ends(level)
    if low == high:
        return jnp.full(keys.shape, low, jnp.float32)
    return low + (high - low) * rng.uniform(keys)


def check_level(what: str, unit: str, level: Level, least: float, most: float) -> None:
    """Raises unless a level or both ends of a range are in [least, most], low <= high."""
    low, high = ends(level)
    numbers = all(isinstance(v, (int, float)) for v in (low, high))
    if not numbers or not least <= low <= high <= most:
        raise ValueError(
            f"{what} is {unit}, or a range (low, high) of them, from {least:g} to {most:g}; got "
            f"{level!r}"
        )


@dataclasses.dataclass(frozen=True)
class Noise(abc.ABC):
    """A family of noise; its first field is the level, a number or a range (low, high)."""

    unit: ClassVar[str]
    limits: ClassVar[tuple[float, float]]

    def __post_init__(self):
        name = dataclasses.fields(self)[0].name
        check_level(name, self.unit, getattr(self, name), *self.limits)

    def levels(self, keys: jax.Array) -> jax.Array:
        """The level of each image, (b,), in the unit of the setting."""
        return draw(keys, getattr(self, dataclasses.fields(self)[0].name))

    @abc.abstractmethod
    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """y (b, h, w, c) of images x in [-1, 1] with levels (b,)."""

    def corrupt(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """y (b, h, w, c): a level with one half of each key, the noise with the other."""
        first, second = rng.split(keys, 2)
        return self.apply(second, x, self.levels(first))


@dataclasses.dataclass(frozen=True)
class Linear(abc.ABC):
    """A linear operator A with measurement noise; the last field is `sigma`, in units of y."""

    sigma: float = dataclasses.field(default=0.0, kw_only=True)

    def __post_init__(self):
        if not isinstance(self.sigma, (int, float)) or not 0 <= self.sigma < float("inf"):
            raise ValueError(
                "sigma is the standard deviation of the measurement noise in units of y, finite "
                f"and >= 0; got {self.sigma!r}"
            )

    @abc.abstractmethod
    def forward(self, x: jax.Array) -> jax.Array:
        """A x, (b, ...), of images (b, h, w, c)."""

    @abc.abstractmethod
    def adjoint(self, y: jax.Array) -> jax.Array:
        """A^T y, (b, h, w, c)."""

    @abc.abstractmethod
    def start(self, y: jax.Array) -> jax.Array:
        """A simple reconstruction (b, h, w, c) of a measurement."""

    def measured(self, y: jax.Array) -> jax.Array | float:
        """1 where y holds a measurement, 0 where it is empty and gets no noise; broadcasts to y."""
        del y
        return 1.0

    def corrupt(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """A x + sigma n, n from keys (b,)."""
        y = self.forward(x)
        if not self.sigma:
            return y
        return y + self.sigma * self.measured(y) * rng.normal(keys, y.shape[1:]).astype(y.dtype)

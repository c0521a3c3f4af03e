"""Operators: every corruption by name, and Gaussian noise itself (arXiv:1803.04189, 3.1).

Images are in [-1, 1]; levels are in the papers' units. Gaussian noise has grey levels of 0..255:
sigma 25 is a standard deviation of 25 / 127.5 in [-1, 1]. Nothing is clipped or rounded after the
noise.
"""

import dataclasses
import difflib
from typing import Any, ClassVar

import jax

from jaxgen.common import rng
from jaxgen.noise.bernoulli import Bernoulli
from jaxgen.noise.blur import Blur
from jaxgen.noise.corruption import Corruption, Level, Linear, Noise
from jaxgen.noise.downsample import Downsample
from jaxgen.noise.fourier import Fourier, KSpace
from jaxgen.noise.helical import HelicalConeBeam
from jaxgen.noise.impulse import Impulse
from jaxgen.noise.mask import Mask
from jaxgen.noise.monte_carlo import MonteCarlo
from jaxgen.noise.parallel_beam import ParallelBeam
from jaxgen.noise.poisson import Poisson
from jaxgen.noise.text_overlay import Text

__all__ = ["GREY", "NAMES", "Corruption", "Gaussian", "Level", "Linear", "Noise", "gaussian",
           "levels", "make"]  # fmt: skip

GREY = 127.5  # grey levels in one unit of [-1, 1]


@dataclasses.dataclass(frozen=True)
class Gaussian(Noise):
    """x + n, n ~ N(0, (sigma / 127.5)^2); sigma in grey levels of 0..255."""

    sigma: Level = 25.0
    unit: ClassVar[str] = "a level >= 0 in grey levels of 0..255"
    limits: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """x + n, n ~ N(0, (level / 127.5)^2)."""
        return x + (level / GREY)[:, None, None, None] * rng.normal(keys, x.shape[1:])


NAMES: dict[str, type] = {
    "gaussian": Gaussian,
    "poisson": Poisson,
    "bernoulli": Bernoulli,
    "impulse": Impulse,
    "text": Text,
    "monte_carlo": MonteCarlo,
    "fourier": Fourier,
    "kspace": KSpace,
    "blur": Blur,
    "mask": Mask,
    "downsample": Downsample,
    "parallel_beam": ParallelBeam,
    "helical": HelicalConeBeam,
}


def make(name: str, **settings: Any) -> Corruption:
    """The corruption of a name, `settings` being fields of its class.

    Raises:
      ValueError: for a name or a setting that is unknown, with the nearest; for a setting that is
        needed and absent; for values that the class refuses.
    """
    if name not in NAMES:
        raise ValueError(
            f"unknown operator {name!r}{_near(name, NAMES)}; known are {', '.join(NAMES)}"
        )
    fields = dataclasses.fields(NAMES[name])
    known = [f.name for f in fields]
    absent = [f.name for f in fields if f.default is dataclasses.MISSING and f.name not in settings]
    for setting in settings:
        if setting not in known:
            raise ValueError(
                f"operator {name!r} has no setting {setting!r}{_near(setting, known)}; it takes "
                f"{', '.join(known)}"
            )
    if absent:
        raise ValueError(f"operator {name!r} needs {', '.join(absent)}, and got {settings}")
    return NAMES[name](**{k: tuple(v) if isinstance(v, list) else v for k, v in settings.items()})


def _near(name: str, known: Any) -> str:
    near = difflib.get_close_matches(str(name), list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def levels(keys: jax.Array, sigma: Level) -> jax.Array:
    """Levels (b,) in grey levels: `sigma` itself, or uniform between its two ends, one an image.

    Raises:
      ValueError: for a negative level, or a range that is not (low, high).
    """
    return Gaussian(sigma).levels(keys)


def gaussian(keys: jax.Array, x: jax.Array, sigma: Level) -> jax.Array:
    """x + n, n ~ N(0, (sigma / 127.5)^2), independent of the batch an image is in.

    Args:
      keys: (b,) typed keys. x: images (b, h, w, c) in [-1, 1].
      sigma: grey levels of 0..255, or a range (low, high) from which each image draws its own.
    Returns:
      (b, h, w, c), outside [-1, 1] where the noise takes it.
    """
    return Gaussian(sigma).corrupt(keys, x)

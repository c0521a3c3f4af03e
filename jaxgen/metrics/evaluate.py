"""Evaluate: named metrics of fake against real features, and the floor that real data reaches."""

import difflib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics import equivariance
from jaxgen.metrics.frechet import frechet
from jaxgen.metrics.kernel import kernel
from jaxgen.metrics.moments import as_features
from jaxgen.metrics.precision_recall import density_coverage, precision_recall

# name -> (fake (n, d), real (m, d)) -> {key: value}; keys carry `@net` in results.
METRICS: dict[str, Callable[[ArrayLike, ArrayLike], dict[str, float]]] = {
    "frechet": lambda fake, real: {"frechet": frechet(fake, real)},
    "kernel": lambda fake, real: {"kernel": kernel(fake, real)},
    "precision_recall": precision_recall,
    "density_coverage": density_coverage,
}
# name -> arguments of perceptual_path.lengths.
PATHS: dict[str, dict[str, Any]] = {
    f"ppl_{space}_{part}{crop}": {"space": space, "full": part == "full", "crop": bool(crop)}
    for crop in ("", "_crop")
    for space in ("z", "w")
    for part in ("full", "end")
}
# Of generators with styles; real images are not looked at. Equivariance needs no feature net.
EQUIVARIANCE = equivariance.METRICS
OF_GENERATORS = (*PATHS, "separability", *EQUIVARIANCE)
DEFAULT = ("frechet", "kernel", "precision_recall")


def compare(
    fake: ArrayLike, real: ArrayLike, metrics: Sequence[str] = DEFAULT, *, net_name: str
) -> dict[str, float]:
    """{"frechet@<net>": ..., "kernel@<net>": ..., "precision@<net>": ..., "recall@<net>": ...}.

    Args:
      fake, real: features (n, d), (m, d) of one net.
      metrics: names out of METRICS.
      net_name: the net's name, part of every key.
    Raises:
      ValueError: for an unknown metric, with the nearest name; for one of a generator.
    """
    check(metrics)
    if wrong := [m for m in metrics if m in OF_GENERATORS]:
        raise ValueError(f"{wrong} are of generators, and not of features")
    out: dict[str, float] = {}
    for name in metrics:
        out |= {f"{k}@{net_name}": v for k, v in METRICS[name](fake, real).items()}
    return out


def floor(
    real: ArrayLike, seed: int = 0, metrics: Sequence[str] = DEFAULT, *, net_name: str
) -> dict[str, float]:
    """The same metrics of a random half of `real` (n, d) against the other half.

    Each half has n/2 samples: a Frechet distance falls with the number of samples, so one of more
    samples can lie below this floor.
    """
    real = as_features(real, "real", least=4)
    order = np.random.default_rng(seed).permutation(len(real))
    half = len(real) // 2
    return compare(real[order[:half]], real[order[half:]], metrics, net_name=net_name)


def check(metrics: Sequence[str]) -> None:
    """Raises ValueError when a metric name is not known, with the nearest one."""
    known = [*METRICS, *OF_GENERATORS]
    for name in metrics:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.0)[0]
            raise ValueError(
                f"there is no metric {name!r}; did you mean {near!r}? The names are {known}"
            )

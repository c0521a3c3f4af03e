"""Evaluate: named metrics of fake against real features, and the floor that real data reaches."""

import dataclasses
import difflib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics import diversity, equivariance, memorisation, protocols
from jaxgen.metrics.frechet import frechet
from jaxgen.metrics.frechet_infinity import frechet_infinity
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kernel import kernel, kernel_error, kernel_subsets
from jaxgen.metrics.moments import Moments, as_features
from jaxgen.metrics.precision_recall import density_coverage, precision_recall
from jaxgen.metrics.realism import realism


@dataclasses.dataclass(frozen=True)
class Settings:
    """What metrics can be told.

    ddof: covariances are divided by n - ddof. neighbours: k; None: 3, and 5 for density and
    coverage. ties: "<=" or "<"; None: "<=", and "<" for density and coverage. half: float16 for
    precision and recall. subsets, subset_size: of `kernel_subsets`. splits, shuffle: of the
    Inception Score. pairs: of `lpips_diversity`. seed: of draws.
    """

    ddof: int = 1
    neighbours: int | None = None
    ties: str | None = None
    half: bool = False
    subsets: int = 100
    subset_size: int = 1000
    splits: int = 10
    shuffle: int | None = None
    pairs: int = 1000
    seed: int = 0

    def balls(self, k: int, ties: str) -> dict[str, Any]:
        """k and ties, or the given ones."""
        return {"k": self.neighbours or k, "ties": self.ties or ties}

    def changed(self) -> dict[str, Any]:
        """Those that differ from the defaults."""
        return {
            f.name: v for f in dataclasses.fields(self) if (v := getattr(self, f.name)) != f.default
        }


DEFAULT_SETTINGS = Settings()


def like(name: str) -> Settings:
    """The settings of a library (metrics.protocols)."""
    p = protocols.find(name)
    subsets, size = p.kernel or (DEFAULT_SETTINGS.subsets, DEFAULT_SETTINGS.subset_size)
    splits = p.splits or DEFAULT_SETTINGS.splits
    return Settings(p.ddof, p.neighbours, p.ties, p.half, subsets, size, splits, p.shuffle)


def _kernel_subsets(fake: ArrayLike, real: ArrayLike, s: Settings) -> dict[str, float]:
    mean, std = kernel_subsets(fake, real, subsets=s.subsets, size=s.subset_size, seed=s.seed)
    return {"kernel_subsets": mean, "kernel_subsets_std": std}


def _realism(fake: ArrayLike, real: ArrayLike, s: Settings) -> dict[str, float]:
    found = realism(fake, real, k=s.neighbours or 3)
    return {"realism": float(np.median(found)), "realism_inside": float((found >= 1).mean())}


# name -> (fake (n, d), real (m, d), settings) -> {key: value}; keys carry `@net` in results.
# `frechet` takes moments, too.
METRICS: dict[str, Callable[..., dict[str, float]]] = {
    "frechet": lambda fake, real, s=DEFAULT_SETTINGS: {"frechet": frechet(fake, real, ddof=s.ddof)},
    "kernel": lambda fake, real, s=DEFAULT_SETTINGS: {"kernel": kernel(fake, real)},
    "precision_recall": lambda fake, real, s=DEFAULT_SETTINGS: precision_recall(
        fake, real, half=s.half, **s.balls(3, "<=")
    ),
    "density_coverage": lambda fake, real, s=DEFAULT_SETTINGS: density_coverage(
        fake, real, **s.balls(5, "<")
    ),
    "frechet_infinity": lambda fake, real, s=DEFAULT_SETTINGS: {
        "frechet_infinity": frechet_infinity(fake, real, ddof=s.ddof, seed=s.seed).distance
    },
    "kernel_error": lambda fake, real, s=DEFAULT_SETTINGS: {
        "kernel_error": kernel_error(fake, real)[1]
    },
    "kernel_subsets": lambda fake, real, s=DEFAULT_SETTINGS: _kernel_subsets(fake, real, s),
    "realism": lambda fake, real, s=DEFAULT_SETTINGS: _realism(fake, real, s),
}
OF_MOMENTS = ("frechet",)  # these need not keep features
# Of the features and more: a classifier, images, held-out features.
INCEPTION_SCORE, DIVERSITY, MEMORISATION = "inception_score", "lpips_diversity", "memorisation"
OF_MORE = (INCEPTION_SCORE, DIVERSITY, MEMORISATION)
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
    fake: ArrayLike | Moments,
    real: ArrayLike | Moments,
    metrics: Sequence[str] = DEFAULT,
    *,
    net_name: str,
    settings: Settings = DEFAULT_SETTINGS,
    net: Any = None,
    images: np.ndarray | None = None,
    held_out: ArrayLike | None = None,
) -> dict[str, float]:
    """{"frechet@<net>": ..., "kernel@<net>": ..., "precision@<net>": ..., "recall@<net>": ...}.

    Args:
      fake, real: features (n, d), (m, d) of one net; moments for OF_MOMENTS.
      metrics: names out of METRICS or OF_MORE.
      net_name: the net's name, part of every key.
      settings: of the metrics.
      net: the net (features.FeatureNet), for the Inception Score and LPIPS diversity.
      images: of the fakes, for LPIPS diversity. held_out: features (l, d), for memorisation.
    Raises:
      ValueError: for an unknown metric, with the nearest name; for one of a generator.
    """
    check(metrics)
    if wrong := [m for m in metrics if m in OF_GENERATORS]:
        raise ValueError(f"{wrong} are of generators, and not of features")
    out: dict[str, float] = {}
    for name in metrics:
        if name == INCEPTION_SCORE:
            found = _inception_score(fake, net, settings)
        elif name == DIVERSITY:
            found = _diversity(images, net, settings)
        elif name == MEMORISATION:
            if held_out is None:
                raise ValueError("memorisation needs held-out images beside the real ones")
            found = memorisation.memorisation(
                *(memorisation.to_training(z, real) for z in (fake, held_out))
            )
        else:
            found = METRICS[name](fake, real, settings)
        out |= {f"{k}@{net_name}": v for k, v in found.items()}
    return out


def _inception_score(fake: ArrayLike, net: Any, s: Settings) -> dict[str, float]:
    logits = net.head(np.asarray(fake, np.float32), bias=False)
    mean, std = inception_score(logits, splits=s.splits, shuffle=s.shuffle)
    return {INCEPTION_SCORE: mean, f"{INCEPTION_SCORE}_std": std}


def _diversity(images: np.ndarray | None, net: Any, s: Settings) -> dict[str, float]:
    check_net([DIVERSITY], net)
    distance = lambda a, b: ((net(a) - net(b)) ** 2).sum(-1)
    mean, error = diversity.diversity(distance, images, pairs=s.pairs, seed=s.seed)
    return {DIVERSITY: mean, f"{DIVERSITY}_error": error}


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
    known = [*METRICS, *OF_MORE, *OF_GENERATORS]
    for name in metrics:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1, cutoff=0.0)[0]
            raise ValueError(
                f"there is no metric {name!r}; did you mean {near!r}? The names are {known}"
            )


def check_net(metrics: Sequence[str], net: Any) -> None:
    """Raises ValueError when a metric cannot be had of a net (features.FeatureNet)."""
    if INCEPTION_SCORE in metrics:
        net.check_classifier()
    if DIVERSITY in metrics and net.name != "lpips":
        raise ValueError(
            f"{DIVERSITY} is of the net lpips, got {net.name}; choose --features=lpips"
        )

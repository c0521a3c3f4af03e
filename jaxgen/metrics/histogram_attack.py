"""Histogram attack: a Frechet distance lowered by choosing among images (arXiv:2203.06026, Sec. 4).

The images stay as they are; only how often each is drawn changes, by weights w of sum 1. Their
features f then have mean m = sum_i w_i f_i, covariance C = sum_i w_i (f_i - m)(f_i - m)^T. Weights
either match a histogram of classes to that of the real images, or minimise the distance itself:
with T of `sensitivity`, up to a constant that the sum of w fixes,

    dd/dw_i = 2 (m - m_r) f_i + (f_i - m)^T (1 - T) (f_i - m).

The distance is convex in w: |m - m_r|^2 + tr C is linear in it, and tr (S C S)^(1/2) is concave, as
C is. So there is one minimum, and no weights are further below than w dd/dw - min_i dd/dw_i.

A distance that falls so says nothing about the images: quote it with another net's beside it.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.frechet import frechet_from_moments
from jaxgen.metrics.moments import as_features
from jaxgen.metrics.sensitivity import Fit, root, transport


class Attack(NamedTuple):
    """weights (n,) of the images; the distance after every step, the start's first; gap: how far
    below the last one the minimum is at most."""

    weights: np.ndarray
    distances: list[float]
    gap: float


def weighted(features: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (d,) and covariance (d, d) of features (n, d) float64 under weights (n,) of sum 1."""
    mean = weights @ features
    centred = features - mean
    return mean, (centred * weights[:, None]).T @ centred


def distance(features: ArrayLike, weights: ArrayLike, real: Fit) -> float:
    """The Frechet distance of weighted features to the real ones."""
    x, w = _checked(features, weights)
    return frechet_from_moments(*weighted(x, w), real.mean, real.cov)


def match(fake: ArrayLike, real: ArrayLike) -> np.ndarray:
    """Weights (n,) that give the images' classes (n,) the frequencies of the real classes (m,).

    Within a class all weights are equal. Classes without a generated image are left out.
    Raises:
      ValueError: classes that are not integers, or no class in common.
    """
    fake, real = np.asarray(fake), np.asarray(real)
    if fake.ndim != 1 or real.ndim != 1 or {fake.dtype.kind, real.dtype.kind} - set("iu"):
        raise ValueError(
            f"classes must be integers (n,), got {fake.dtype} {fake.shape} and {real.dtype} "
            f"{real.shape}"
        )
    size = int(max(fake.max(initial=0), real.max(initial=0))) + 1
    have, want = (np.bincount(c, minlength=size) for c in (fake, real))
    weights = (want / np.maximum(have, 1))[fake]
    if not weights.sum():
        raise ValueError("no generated image is of a class that a real one has")
    return weights / weights.sum()


def minimise(
    features: ArrayLike, real: Fit, steps: int = 50, weights: ArrayLike | None = None
) -> Attack:
    """Weights that minimise the distance of features (n, d) to the real ones.

    Exponentiated gradient, w <- w exp(-rate dd/dw) / sum: weights stay a distribution. A step that
    would not lower the distance is taken back and the rate halved, so distances never rise.
    weights: to start from; None: equal ones.
    """
    x = as_features(features, "features")
    w = np.full(len(x), 1 / len(x)) if weights is None else _checked(x, weights)[1]
    real_root = root(real.cov)
    moments = weighted(x, w)
    distances = [frechet_from_moments(*moments, real.mean, real.cov)]
    slope, rate = _slope(x, moments, real, real_root), None
    for _ in range(steps):
        rate = 1 / np.abs(slope - w @ slope).max() if rate is None else rate
        moved = w * np.exp(-rate * (slope - slope.min()))
        moved /= moved.sum()
        moments = weighted(x, moved)
        now = frechet_from_moments(*moments, real.mean, real.cov)
        if now < distances[-1]:
            w, rate = moved, 1.5 * rate
            slope = _slope(x, moments, real, real_root)
            distances.append(now)
        else:
            rate /= 4
            distances.append(distances[-1])
    return Attack(w, distances, float(w @ slope - slope.min()))


def _slope(x: np.ndarray, moments: tuple, real: Fit, real_root: np.ndarray) -> np.ndarray:
    mean, cov = moments
    centred = x - mean
    carried = centred @ transport(cov, real_root)
    quadratic = np.einsum("nd,nd->n", centred, centred - carried)
    return 2 * x @ (mean - real.mean) + quadratic


def resample(weights: ArrayLike, num: int, seed: int = 0) -> np.ndarray:
    """`num` indices of images drawn with these weights, with replacement."""
    w = np.asarray(weights, np.float64)
    return np.random.default_rng(seed).choice(len(w), num, p=w / w.sum())


def effective(weights: ArrayLike) -> float:
    """1 / sum w^2: how many equally weighted images count as much."""
    w = np.asarray(weights, np.float64)
    return float(w.sum() ** 2 / (w * w).sum())


def _checked(features: ArrayLike, weights: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    x, w = as_features(features, "features"), np.asarray(weights, np.float64)
    if w.shape != x.shape[:1] or not np.all(w >= 0) or not np.isclose(w.sum(), 1):
        raise ValueError(
            f"weights must be {len(x)} numbers, not negative, of sum 1, got shape {w.shape} and "
            f"sum {w.sum():g}"
        )
    return x, w

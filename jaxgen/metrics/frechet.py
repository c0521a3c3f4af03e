"""Frechet distance: the 2-Wasserstein distance of Gaussians fitted to features (arXiv:1706.08500).

    d^2 = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)                              (Eq. 6)

With centred features X (n, d), Y (m, d) the last trace is the nuclear norm (the sum of the singular
values) of X Y^T / sqrt((n-1)(m-1)): exact for any rank, and C1 C2 is never formed, whose square
root loses half the digits when a set has fewer samples than dimensions. X may be replaced by any R
with R^T R = C, which has d rows where n > d. Everything is float64 on the host, and real; what
rounding makes negative is 0. The estimate is biased: it falls with the number of samples
(`frechet_infinity`).
"""

import warnings
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import Moments, as_features, check_widths

WIDE = 512
TRUSTED = 1e-9  # smallest pivot of a Cholesky factor, of the largest, squared


class Gaussian(NamedTuple):
    """mean (d,), root (r, d) with root^T root the covariance, and the number of samples."""

    mean: np.ndarray
    root: np.ndarray
    count: int


def frechet(x: ArrayLike | Moments, y: ArrayLike | Moments, *, ddof: int = 1) -> float:
    """The Frechet distance (squared, as is usual) of two sets of features.

    Args:
      x: features (n, d), n >= 2, or their moments. y: (m, d) likewise.
      ddof: covariances are divided by n - ddof: 1, unbiased, or 0.
    Returns:
      d^2 >= 0, exact up to float64 rounding for features: about 1e-15 of the traces, 1e-9 from 512
      dimensions on.
    Raises:
      ValueError: for sets that are not (n, d) with equal d, too small, or not finite.
    Warns:
      RuntimeWarning: fewer samples than dimensions.
    Source: arXiv:1706.08500, Eq. 6.
    """
    one, two = fit(x, "x", ddof), fit(y, "y", ddof)
    check_widths(len(one.mean), len(two.mean))
    n, d = min(one.count, two.count), len(one.mean)
    if n < d:
        warnings.warn(
            f"a Frechet distance of {n} samples in {d} dimensions is far above that of many; "
            "frechet_infinity tells how far, the kernel distance has no such bias",
            RuntimeWarning,
            stacklevel=2,
        )
    return between(one, two)


def fit(x: ArrayLike | Moments, name: str = "x", ddof: int = 1) -> Gaussian:
    """The Gaussian of features (n, d), or of moments.

    Of moments the root is that of their covariance, of which directions without variance are known
    to about 1e-8 of the largest deviation.
    """
    if isinstance(x, Moments):
        factor = (x.count - 1) / (x.count - ddof)
        return Gaussian(x.mean, _symmetric_root(x.cov * factor), x.count)
    x = as_features(x, name)
    n, d = x.shape
    mean = x.mean(0)
    centred = (x - mean) / np.sqrt(n - ddof)
    return Gaussian(mean, _triangle(centred) if n > d else centred, n)


def between(one: Gaussian, two: Gaussian) -> float:
    """The distance of two Gaussians."""
    shift = one.mean - two.mean
    traces = np.sum(one.root * one.root) + np.sum(two.root * two.root)
    cross = nuclear_norm(one.root @ two.root.T)
    return max(float(shift @ shift + traces - 2.0 * cross), 0.0)


def nuclear_norm(a: np.ndarray) -> float:
    """The sum of the singular values of a (n, m).

    Where both sides are WIDE or more, from eigenvalues of a a^T, in a third of the time, if that is
    good to 1e-9 of the sum: an eigenvalue errs by about 2^-48 of the largest.
    """
    if min(a.shape) >= WIDE:
        squares = np.linalg.eigvalsh(a @ a.T if a.shape[0] <= a.shape[1] else a.T @ a)
        error = max(squares[-1], 0.0) * 2.0**-48
        values = np.sqrt(np.maximum(squares, 0.0))
        if (error / (2 * np.maximum(values, np.sqrt(error) or 1.0))).sum() <= 1e-9 * values.sum():
            return float(values.sum())
    return float(np.linalg.svd(a, compute_uv=False).sum())


def _triangle(x: np.ndarray) -> np.ndarray:
    """R (d, d) with R^T R = x^T x: Cholesky's, or the slower one that needs no condition."""
    try:
        root = np.linalg.cholesky(x.T @ x).T
    except np.linalg.LinAlgError:
        return np.linalg.qr(x, mode="r")
    pivots = np.square(np.diagonal(root))
    return root if pivots.min() > TRUSTED * pivots.max() else np.linalg.qr(x, mode="r")


def _symmetric_root(cov: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(cov)
    return np.sqrt(np.maximum(values, 0.0))[:, None] * vectors.T


def frechet_from_moments(mu1: ArrayLike, cov1: ArrayLike, mu2: ArrayLike, cov2: ArrayLike) -> float:
    """The same distance from means (d,) and covariances (d, d), for sets too large to keep.

    tr (C1 C2)^(1/2) = tr (S C2 S)^(1/2) with S = C1^(1/2), by symmetric eigenvalues in float64;
    eigenvalues that rounding made negative count as 0. Rank-deficient covariances are good to about
    1e-5 of the result only: keep the features and use `frechet` there.
    """
    mu1, mu2, cov1, cov2 = (np.asarray(a, np.float64) for a in (mu1, mu2, cov1, cov2))
    if not mu1.shape == mu2.shape == cov1.shape[:1] == cov2.shape[1:]:
        raise ValueError(
            "moments must be means (d,) and covariances (d, d) of one width, got "
            f"{mu1.shape}, {cov1.shape} and {mu2.shape}, {cov2.shape}"
        )
    if bad := [n for n, a in enumerate((mu1, cov1, mu2, cov2)) if not np.isfinite(a).all()]:
        raise ValueError(f"moments of set {bad[0] // 2 + 1} are not finite; look at its images")
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov2 @ root)
    cross = np.sqrt(np.maximum(inner, 0.0)).sum()
    shift = mu1 - mu2
    return max(float(shift @ shift + np.trace(cov1) + np.trace(cov2) - 2.0 * cross), 0.0)

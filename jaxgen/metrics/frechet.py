"""Frechet distance: the 2-Wasserstein distance of Gaussians fitted to features (arXiv:1706.08500).

    d^2 = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1 C2)^(1/2)                              (Eq. 6)

With centred features X (n, d), Y (m, d) the last trace is the nuclear norm (the sum of the singular
values) of X Y^T / sqrt((n-1)(m-1)): exact for any rank, and C1 C2 is never formed, whose square
root loses half the digits when a set has fewer samples than dimensions. Everything is float64 on
the host and covariances are unbiased (n - 1).
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import as_pair


def frechet(x: ArrayLike, y: ArrayLike) -> float:
    """The Frechet distance (squared, as is usual) of two sets of features.

    Args:
      x: features (n, d), n >= 2.
      y: features (m, d), m >= 2.
    Returns:
      d^2 >= 0 up to float64 rounding (about 1e-15 of the traces).
    Raises:
      ValueError: for sets that are not (n, d) with equal d, too small, or not finite.
    Source: arXiv:1706.08500, Eq. 6.
    """
    x, y = as_pair(x, y)
    shift = x.mean(0) - y.mean(0)
    x, y = _root(x), _root(y)
    traces = np.sum(x * x) + np.sum(y * y)
    return float(shift @ shift + traces - 2.0 * np.linalg.svd(x @ y.T, compute_uv=False).sum())


def _root(x: np.ndarray) -> np.ndarray:
    """R (min(n, d), d) with R^T R = cov(x): the centred set, or its triangular factor if n > d."""
    x = (x - x.mean(0)) / np.sqrt(len(x) - 1)
    return np.linalg.qr(x, mode="r") if len(x) > x.shape[1] else x


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
    values, vectors = np.linalg.eigh(cov1)
    root = (vectors * np.sqrt(np.maximum(values, 0.0))) @ vectors.T
    inner = np.linalg.eigvalsh(root @ cov2 @ root)
    cross = np.sqrt(np.maximum(inner, 0.0)).sum()
    shift = mu1 - mu2
    return float(shift @ shift + np.trace(cov1) + np.trace(cov2) - 2.0 * cross)

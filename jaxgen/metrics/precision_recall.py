"""Precision and recall: shares inside the neighbour balls of the other set (arXiv:1904.06991).

Around each sample lies the ball that reaches its k-th neighbour in its own set. *Precision* is the
share of fakes inside any real ball, *recall* the share of reals inside any fake ball (boundary
included, as in that paper). *Density* counts in how many real balls a fake lies, over k, and
*coverage* is the share of real balls that hold a fake (boundary excluded, arXiv:2002.09797).
Distances are sums of squared differences in float64, never the expanded form |a|^2 + |b|^2 - 2 a.b:
duplicates, which real image sets have, must be at distance exactly 0.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import as_pair


def precision_recall(
    fake: ArrayLike, real: ArrayLike, *, k: int = 3, block: int = 1024
) -> dict[str, float]:
    """{"precision", "recall"} in [0, 1] of fakes (n, d) and reals (m, d).

    Args:
      k: neighbours that set a ball's radius. block: rows of the distance matrix held at a time.
    Raises:
      ValueError: when a set has k samples or fewer.
    Source: arXiv:1904.06991, Eq. 1 and 2.
    """
    fake, real = as_pair(fake, real, "fake", "real")
    real_r2, fake_r2 = radii(real, k, block), radii(fake, k, block)
    inside_real = np.zeros(len(fake), bool)
    inside_fake = np.zeros(len(real), bool)
    for rows, d2 in _blocks(fake, real, block):
        inside_real[rows] = (d2 <= real_r2).any(1)
        inside_fake |= (d2 <= fake_r2[rows, None]).any(0)
    return {"precision": float(inside_real.mean()), "recall": float(inside_fake.mean())}


def density_coverage(
    fake: ArrayLike, real: ArrayLike, *, k: int = 5, block: int = 1024
) -> dict[str, float]:
    """{"density", "coverage"} of fakes (n, d) and reals (m, d); density may exceed 1.

    Source: arXiv:2002.09797, Sec. 3.
    """
    fake, real = as_pair(fake, real, "fake", "real")
    r2 = radii(real, k, block)
    hits = 0
    covered = np.zeros(len(real), bool)
    for _, d2 in _blocks(fake, real, block):
        inside = d2 < r2
        hits += int(inside.sum())
        covered |= inside.any(0)
    return {"density": hits / (k * len(fake)), "coverage": float(covered.mean())}


def radii(x: np.ndarray, k: int, block: int = 1024) -> np.ndarray:
    """Squared distances (n,) of every row of x (n, d) to its k-th neighbour, itself not counted."""
    if not 1 <= k < len(x):
        raise ValueError(
            f"the neighbour number k must be in 1..{len(x) - 1} for {len(x)} samples, got k={k}; "
            "use more samples or a smaller k"
        )
    # The sample itself is at 0, so its k-th neighbour is the (k+1)-th smallest of its row.
    return np.concatenate([np.partition(d2, k, axis=1)[:, k] for _, d2 in _blocks(x, x, block)])


def _blocks(x: np.ndarray, y: np.ndarray, block: int) -> Iterator[tuple[slice, np.ndarray]]:
    from scipy.spatial.distance import cdist

    for i in range(0, len(x), block):
        rows = slice(i, min(i + block, len(x)))
        yield rows, cdist(x[rows], y, "sqeuclidean")

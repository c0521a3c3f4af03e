"""Kernel distance: unbiased squared MMD under the kernel (x.y/d + 1)^3 (arXiv:1801.01401).

    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

Its expectation is 0 for equal distributions at any number of samples, so it can be negative. Values
are given as they are, not times 1000. Float64 on the host.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import as_pair


def polynomial(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """k (n, m) of features (n, d) and (m, d): (x.y/d + 1)^3."""
    z = x @ y.T / x.shape[1] + 1.0
    return z * z * z


def kernel(x: ArrayLike, y: ArrayLike, block: int = 1024) -> float:
    """The unbiased estimate over all samples, with x (n, d) and y (m, d) of any sizes >= 2.

    `block` rows of the kernel matrix are held at a time.
    Source: arXiv:1801.01401, Sec. 4.
    """
    x, y = as_pair(x, y)
    cross = _total(x, y, block) / (len(x) * len(y))
    return _mean_off_diagonal(x, block) + _mean_off_diagonal(y, block) - 2.0 * cross


def kernel_subsets(
    x: ArrayLike, y: ArrayLike, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """Mean and standard deviation (population) of the estimate over random subsets of both sets.

    Args:
      x, y: features (n, d), (m, d).
      subsets: number of pairs of subsets. size: samples in each, drawn without replacement.
      seed: of the draws.
    Raises:
      ValueError: when a set has fewer than `size` samples.
    Source: the protocol of arXiv:1801.01401, Sec. 4.
    """
    x, y = as_pair(x, y)
    if not 2 <= size <= min(len(x), len(y)):
        raise ValueError(
            f"kernel subsets must have 2 to {min(len(x), len(y))} samples for sets of {len(x)} and "
            f"{len(y)}, got size={size}; use a smaller size or kernel() on all samples"
        )
    rng = np.random.default_rng(seed)
    draw = lambda z: z[rng.choice(len(z), size, replace=False)]
    values = [kernel(draw(x), draw(y)) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _total(x: np.ndarray, y: np.ndarray, block: int) -> float:
    return sum(float(polynomial(x[i : i + block], y).sum()) for i in range(0, len(x), block))


def _mean_off_diagonal(x: np.ndarray, block: int) -> float:
    n = len(x)
    diagonal = ((x * x).sum(1) / x.shape[1] + 1.0) ** 3
    return (_total(x, x, block) - float(diagonal.sum())) / (n * (n - 1))

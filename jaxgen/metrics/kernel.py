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


def kernel_error(x: ArrayLike, y: ArrayLike, block: int = 1024) -> tuple[float, float]:
    """The same estimate, and its standard error by leaving out one sample after another.

    (n-1)/n sum_i (MMD^2 without x_i - their mean)^2, and the same of y, under the root. Where both
    distributions are equal it is too large, by about sqrt(2).
    """
    x, y = as_pair(x, y)
    n, m = len(x), len(y)
    xx, yy = (_row_sums(z, z, block) - _diagonal(z) for z in (x, y))
    xy, yx = _row_sums(x, y, block), _row_sums(y, x, block)

    def without(own: np.ndarray, cross: np.ndarray, n: int, m: int) -> np.ndarray:
        """What of the estimate changes, without each sample of a set of n."""
        inner = (own.sum() - 2 * own) / ((n - 1) * (n - 2))
        return inner - 2 * (cross.sum() - cross) / ((n - 1) * m)

    value = xx.sum() / (n * (n - 1)) + yy.sum() / (m * (m - 1)) - 2 * xy.sum() / (n * m)
    if min(n, m) < 3:
        raise ValueError(f"a standard error needs 3 samples of each set, got {n} and {m}")
    parts = without(xx, xy, n, m), without(yy, yx, m, n)
    variance = sum((len(z) - 1) * z.var() for z in parts)
    return float(value), float(np.sqrt(variance))


def kernel_subsets(
    x: ArrayLike,
    y: ArrayLike,
    *,
    subsets: int = 100,
    size: int = 1000,
    seed: int | np.random.RandomState = 0,
) -> tuple[float, float]:
    """Mean and standard deviation (population) of the estimate over random subsets of both sets.

    Args:
      x, y: features (n, d), (m, d).
      subsets: number of pairs of subsets. size: samples in each, drawn without replacement.
      seed: of the draws; or numpy's older generator, by which libraries can be followed draw by
        draw: a subset of x, then one of y.
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
    rng = seed if isinstance(seed, np.random.RandomState) else np.random.default_rng(seed)
    draw = lambda z: z[rng.choice(len(z), size, replace=False)]
    values = [kernel(draw(x), draw(y)) for _ in range(subsets)]
    return float(np.mean(values)), float(np.std(values))


def _row_sums(x: np.ndarray, y: np.ndarray, block: int) -> np.ndarray:
    return np.concatenate([polynomial(x[i : i + block], y).sum(1) for i in range(0, len(x), block)])


def _total(x: np.ndarray, y: np.ndarray, block: int) -> float:
    return sum(float(polynomial(x[i : i + block], y).sum()) for i in range(0, len(x), block))


def _diagonal(x: np.ndarray) -> np.ndarray:
    return ((x * x).sum(1) / x.shape[1] + 1.0) ** 3


def _mean_off_diagonal(x: np.ndarray, block: int) -> float:
    n = len(x)
    return (_total(x, x, block) - float(_diagonal(x).sum())) / (n * (n - 1))

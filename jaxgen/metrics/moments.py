"""Moments: mean and covariance of streamed features, merged pairwise in float64 (Chan et al. 1979).

Sets A and B with counts a, b, means m_A, m_B and centred second moments M_A, M_B merge to

    m = m_A + (b / (a+b)) delta,   M = M_A + M_B + (ab / (a+b)) delta delta^T,   delta = m_B - m_A.

Sums of raw squares in float32 are wrong by several per cent when |mean| >> deviation; this is not.
"""

import numpy as np
from numpy.typing import ArrayLike


def as_features(
    x: ArrayLike, name: str = "features", least: int = 2, exact: bool = True
) -> np.ndarray:
    """Float64 (n, d) on the host; float32 stays what it is if not `exact`.

    Raises:
      ValueError: when it is not two-dimensional, has fewer than `least` rows, or is not finite.
    """
    x = np.asarray(x)
    if exact or x.dtype != np.float32:
        x = np.asarray(x, np.float64)
    if x.ndim != 2:
        raise ValueError(f"{name} must be features (n, d), got shape {x.shape}")
    if len(x) < least:
        raise ValueError(
            f"{name} must have at least {least} samples, got {len(x)}; use more images"
        )
    bad = int(np.sum(~np.isfinite(x).all(1)))
    if bad:
        raise ValueError(
            f"{bad} of {len(x)} rows of {name} are not finite; look at the images they came from"
        )
    return x


def as_pair(
    x: ArrayLike, y: ArrayLike, x_name: str = "x", y_name: str = "y", exact: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """Two sets (n, d), (m, d) by `as_features`, of equal width."""
    x, y = as_features(x, x_name, exact=exact), as_features(y, y_name, exact=exact)
    check_widths(x.shape[1], y.shape[1], x_name, y_name)
    return x, y


def check_widths(x: int, y: int, x_name: str = "x", y_name: str = "y") -> None:
    """Raises ValueError unless both sets have one width."""
    if x != y:
        raise ValueError(
            f"{x_name} and {y_name} must be features of one width, got {x} and {y}; compute both "
            "with the same feature net"
        )


class Moments:
    """A running count, mean (d,) and centred second moment (d, d), all float64."""

    def __init__(self, dim: int):
        self.count = 0
        self.mean = np.zeros(dim)
        self.scatter = np.zeros((dim, dim))

    def update(self, features: ArrayLike) -> "Moments":
        """Takes in features (n, d) of any float type; returns itself."""
        x = as_features(features, least=0)
        if x.shape[1] != len(self.mean):
            raise ValueError(f"features must be (n, {len(self.mean)}), got {x.shape}")
        if len(x):
            mean = x.mean(0)
            centred = x - mean
            self._merge(len(x), mean, centred.T @ centred)
        return self

    def merge(self, other: "Moments") -> "Moments":
        """Takes in another accumulator (of another process or part); returns itself."""
        if len(other.mean) != len(self.mean):
            raise ValueError(
                f"cannot merge moments of width {len(other.mean)} into width {len(self.mean)}"
            )
        if other.count:
            self._merge(other.count, other.mean, other.scatter)
        return self

    def _merge(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        total = self.count + count
        delta = mean - self.mean
        self.mean = self.mean + delta * (count / total)
        self.scatter = self.scatter + scatter
        self.scatter += np.outer(delta, delta) * (self.count * count / total)
        self.count = total

    @property
    def cov(self) -> np.ndarray:
        """The unbiased covariance (d, d).

        Raises:
          ValueError: below two samples.
        """
        if self.count < 2:
            raise ValueError(f"a covariance needs at least 2 samples, got {self.count}")
        return self.scatter / (self.count - 1)

"""LPIPS diversity: mean perceptual distance of random pairs of samples (arXiv:1711.11586, Sec. 4).

0 if all samples are one image. It knows no real images, and noise is diverse: compare it with that
of real images. The distance is a function of two batches, such as LPIPS (arXiv:1801.03924).
"""

from collections.abc import Callable
from typing import Any

import numpy as np


def diversity(
    distance: Callable[[Any, Any], Any],
    images: np.ndarray,
    *,
    pairs: int = 1000,
    seed: int = 0,
    batch: int = 50,
) -> tuple[float, float]:
    """Mean of the distance over random pairs of different samples, and its standard error.

    Args:
      distance: (a (b, h, w, c), b (b, h, w, c)) -> (b,).
      images: (n, h, w, c). pairs: how many, each drawn anew. seed: of the draws. batch: pairs that
        `distance` is given at a time, the last ones filled up with pairs that do not count.
    Raises:
      ValueError: fewer than two images or pairs, or distances that are not finite.
    """
    n = len(images)
    if n < 2 or pairs < 2:
        raise ValueError(f"diversity needs 2 images and 2 pairs or more, got {n} and {pairs}")
    rng = np.random.default_rng(seed)
    one = rng.integers(n, size=pairs)
    two = (one + rng.integers(1, n, size=pairs)) % n
    found = []
    for at in range(0, pairs, batch):
        rows = np.arange(at, at + batch) % pairs
        found.append(np.asarray(distance(images[one[rows]], images[two[rows]]), np.float64))
    values = np.concatenate(found)[:pairs]
    if bad := int((~np.isfinite(values)).sum()):
        raise ValueError(f"{bad} of {pairs} distances are not finite; look at the images")
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(pairs))

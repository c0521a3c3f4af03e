"""Memorisation: are samples nearer to training images than held-out images are? (arXiv:2004.05675).

Each sample and each held-out image has a distance to its nearest training image. A generator that
copies has the smaller distances, one that underfits the larger ones. The paper's statistic ranks
them: the probability that a sample's distance is below a held-out image's, 1/2 for samples of the
data's own distribution (its test is done within cells of the space; here there is one).
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import as_pair
from jaxgen.metrics.neighbours import nearest


class Nearest(NamedTuple):
    """distance (n,) of each sample to its nearest training image, and which (n,) that is."""

    distance: np.ndarray
    index: np.ndarray


def to_training(
    samples: ArrayLike, training: ArrayLike, *, block: int | None = None, mesh: Any = None
) -> Nearest:
    """The nearest training image (m, d) of every sample (n, d)."""
    samples, training = as_pair(samples, training, "samples", "training images", exact=False)
    found, index = nearest(samples, training, 1, block=block, mesh=mesh)
    return Nearest(np.sqrt(found[:, 0]), index[:, 0])


def memorisation(samples: Nearest, held_out: Nearest) -> dict[str, float]:
    """How distances of samples compare with those of held-out images.

    Returns:
      "memorisation": P(sample's < held-out's) + P(equal) / 2, in [0, 1]; 1/2 is right.
      "nearest_ratio": median distance of samples over that of held-out images; inf if that is 0.
      "copies": share of samples that are nearer than all but 1 % of the held-out images.
    Source: arXiv:2004.05675, Sec. 3, the Mann-Whitney statistic.
    """
    a, b = np.sort(samples.distance), np.sort(held_out.distance)
    below = np.searchsorted(a, b, "left") + np.searchsorted(a, b, "right")
    middle = np.median(b)
    return {
        "memorisation": float(below.mean() / (2 * len(a))),
        "nearest_ratio": float(np.median(a) / middle) if middle > 0 else float("inf"),
        "copies": float((a < np.quantile(b, 0.01, method="lower")).mean()),
    }

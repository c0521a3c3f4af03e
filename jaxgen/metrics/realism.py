"""Realism: how far inside neighbour balls of real images a sample lies (arXiv:1904.06991, Eq. 3).

    R(g) = max_r |r - NN_k(r)| / |g - r|

over reals r whose ball is not among the larger half: a few real images far from all others have
balls that hold anything. R >= 1 means inside one of the balls left; it is infinite for a copy.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import as_pair
from jaxgen.metrics.neighbours import nearest
from jaxgen.metrics.precision_recall import radii


def realism(
    fake: ArrayLike, real: ArrayLike, *, k: int = 3, block: int | None = None, mesh: Any = None
) -> np.ndarray:
    """R (n,) of every fake (n, d) by reals (m, d).

    Args:
      k: neighbours that set a ball's radius. block, mesh: of `neighbours.nearest`.
    Raises:
      ValueError: reals of which half have k duplicates, hence balls without a radius.
    Source: arXiv:1904.06991, Eq. 3; balls above the median radius are left out.
    """
    fake, real = as_pair(fake, real, "fake", "real", exact=False)
    r2 = radii(real, k, block, mesh)
    kept = (r2 <= np.median(r2)) & (r2 > 0)
    if not kept.any():
        raise ValueError(
            f"realism: half of the {len(real)} reals have {k} duplicates or more; their balls have "
            "no radius; use a larger k or other images"
        )
    weights = 1.0 / r2[kept]
    found, _ = nearest(fake, real[kept], 1, weights=weights, block=block, mesh=mesh)
    with np.errstate(divide="ignore"):
        return 1.0 / np.sqrt(found[:, 0])

"""Precision and recall: shares inside the neighbour balls of the other set (arXiv:1904.06991).

Around each sample lies the ball that reaches its k-th neighbour in its own set. *Precision* is the
share of fakes inside any real ball, *recall* the share of reals inside any fake ball (boundary
included, as in that paper). *Density* counts in how many real balls a fake lies, over k, and
*coverage* is the share of real balls that hold a fake (boundary excluded, arXiv:2002.09797).
Points on a boundary are common: real image sets have duplicates and few grey levels. Decisions are
those of differences in float64 (`neighbours`).
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics import neighbours
from jaxgen.metrics.moments import as_pair

TIES = ("<=", "<")


def precision_recall(
    fake: ArrayLike,
    real: ArrayLike,
    *,
    k: int = 3,
    ties: str = "<=",
    half: bool = False,
    block: int | None = None,
    mesh: Any = None,
) -> dict[str, float]:
    """{"precision", "recall"} in [0, 1] of fakes (n, d) and reals (m, d).

    Args:
      k: neighbours that set a ball's radius. ties: "<=": a ball has its boundary, "<": it has not.
      half: features and radii are rounded to float16 first, as StyleGAN3's code does.
      block, mesh: of `neighbours.nearest`.
    Raises:
      ValueError: when a set has k samples or fewer.
    Source: arXiv:1904.06991, Eq. 1 and 2.
    """
    fake, real = as_pair(fake, real, "fake", "real", exact=False)
    if half:
        fake, real = (z.astype(np.float16).astype(np.float32) for z in (fake, real))
    real_r2, fake_r2 = (radii(z, k, block, mesh) for z in (real, fake))
    if half:
        rounded = lambda r2: np.square(np.sqrt(r2).astype(np.float16).astype(np.float64))
        real_r2, fake_r2 = rounded(real_r2), rounded(fake_r2)
    strict = is_strict(ties)
    found = neighbours.count_inside(
        fake, real, fake_r2, real_r2, strict=strict, block=block, mesh=mesh
    )
    share = lambda counts: float((counts > 0).mean())
    return {"precision": share(found.x_in_y), "recall": share(found.y_in_x)}


def density_coverage(
    fake: ArrayLike,
    real: ArrayLike,
    *,
    k: int = 5,
    ties: str = "<",
    block: int | None = None,
    mesh: Any = None,
) -> dict[str, float]:
    """{"density", "coverage"} of fakes (n, d) and reals (m, d); density may exceed 1.

    Arguments as `precision_recall`.
    Source: arXiv:2002.09797, Sec. 3.
    """
    fake, real = as_pair(fake, real, "fake", "real", exact=False)
    r2 = radii(real, k, block, mesh)
    strict = is_strict(ties)
    found = neighbours.count_inside(fake, real, None, r2, strict=strict, block=block, mesh=mesh)
    return {
        "density": float(found.x_in_y.sum() / (k * len(fake))),
        "coverage": float((found.y_holds > 0).mean()),
    }


def radii(x: np.ndarray, k: int, block: int | None = None, mesh: Any = None) -> np.ndarray:
    """Squared distances (n,) of every row of x (n, d) to its k-th neighbour, itself not counted.

    Raises:
      ValueError: k is not in 1..n-1.
    """
    return neighbours.nearest(x, None, k, block=block, mesh=mesh)[0][:, -1]


def is_strict(ties: str) -> bool:
    """Whether a boundary is outside. Raises ValueError for anything but "<=" and "<"."""
    if ties not in TIES:
        raise ValueError(f'ties must be "<=" (a ball has its boundary) or "<", got {ties!r}')
    return ties == "<"

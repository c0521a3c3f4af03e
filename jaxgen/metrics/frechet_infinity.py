"""FID infinity: the Frechet distance extrapolated to infinitely many samples (arXiv:1911.07023).

The expectation of the estimate from N samples is that of infinitely many and a term that falls as
1 / N, whose size depends on the generator. So a line is fitted to estimates over 1 / N, at N evenly
spaced up to all samples there are, and read at 0. The other set is taken as it is.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.frechet import between, fit
from jaxgen.metrics.moments import Moments, as_features, as_pair, check_widths


class Line(NamedTuple):
    """distance: at 1 / N = 0. slope: of 1 / N. sizes, values: N and what the line is fitted to."""

    distance: float
    slope: float
    sizes: np.ndarray
    values: np.ndarray


def frechet_infinity(
    x: ArrayLike,
    y: ArrayLike | Moments,
    *,
    points: int = 15,
    least: int | None = None,
    both: bool = False,
    seed: int = 0,
    ddof: int = 1,
) -> Line:
    """The line through Frechet distances of random parts of x (n, d) to y (m, d).

    Args:
      points: number of sizes N. least: the smallest; None: n / 10, but as many as dimensions, or
        n / 2 where that is less.
      both: parts of y of the same share, too: for two samples of one distribution. Else y may be
        moments.
      seed: of the parts, which are drawn without replacement. ddof: as `frechet`.
    Raises:
      ValueError: less than 2 sizes, or sizes that are not in 2..n.
    Source: arXiv:1911.07023, Sec. 3; 15 sizes from 5000 to 50,000 there.
    """
    if isinstance(y, Moments) and not both:
        x = as_features(x, "x")
        check_widths(x.shape[1], len(y.mean))
    else:
        x, y = as_pair(x, y)
    n, d = x.shape
    least = max(n // 10, min(d, n // 2), 2) if least is None else least
    if points < 2 or not 2 <= least < n:
        raise ValueError(
            f"an extrapolation needs 2 sizes or more, from 2 samples or more to less than all {n}; "
            f"got points={points}, least={least}; use more samples"
        )
    sizes = np.unique(np.linspace(least, n, points).round().astype(int))
    rng, whole = np.random.default_rng(seed), fit(y, "y", ddof)
    part = lambda z, size: z[rng.permutation(len(z))[:size]]
    values = []
    for size in sizes:
        other = fit(part(y, max(2, size * len(y) // n)), "y", ddof) if both else whole
        values.append(between(fit(part(x, size), "x", ddof), other))
    slope, distance = np.polyfit(1.0 / sizes, values, 1)
    return Line(float(distance), float(slope), sizes, np.array(values))


def bias_note(x: ArrayLike, y: ArrayLike | Moments, value: float, **options: int) -> str | None:
    """What to know of a distance `value` of few samples, below 10 a dimension; None: many.

    Takes some seconds where d is in the thousands.
    """
    x = as_features(x, "x", exact=False)
    other = y.count if isinstance(y, Moments) else len(y)
    n, d = min(len(x), other), x.shape[1]
    if n >= 10 * d or n < 20:
        return None
    line = frechet_infinity(x, y, points=5, **options)
    few = f"{len(x)} and {other} samples are few for a Frechet distance in {d} dimensions"
    return (
        f"{few}: extrapolated to infinitely many of the first set it is {line.distance:.4g}, "
        f"{value - line.distance:.3g} of {value:.4g} is bias"
    )

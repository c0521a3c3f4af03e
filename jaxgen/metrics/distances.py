"""Distances: squared distances of features in float64, by products with a bound, or differences.

Of |a|^2 + |b|^2 - 2 a.b the error is at most c (|a| + |b|)^2, c = (dim / 2 + 24) u, for a type that
rounds by u: a product of `dim` terms, summed in any order, errs by dim u |a| |b| at most, and
features, norms and sums are rounded a few times more. What this leaves open, ties and duplicates,
differences decide.
"""

import numpy as np

HELD = 2**23  # float64 numbers at a time, about
CACHED = 2**17  # the same where they are read several times


class Pairs:
    """Two sets, their centre and unit, and distances of some pairs of them in float64."""

    def __init__(self, x: np.ndarray, y: np.ndarray):
        self.x, self.y, self.dim = x, y, x.shape[1]
        sets = [x] if x is y else [x, y]
        total = sum(z.sum(0, dtype=np.float64) for z in sets)
        # Any point will do, as long as it is the same one in both types.
        self.centre32 = (total / sum(map(len, sets))).astype(np.float32)
        self.centre = self.centre32.astype(np.float64)
        reach = max(np.abs(end(0) - self.centre).max() for z in sets for end in (z.min, z.max))
        # Coordinates are at most 1 in units of a power of two, which rounds nothing.
        self.unit = float(2.0 ** np.ceil(np.log2(reach))) if reach > 0 else 1.0

    def centred(self, x: np.ndarray) -> np.ndarray:
        """Rows of either set without the mean of both, float64."""
        return x - self.centre

    def exact(self, i: np.ndarray, j: np.ndarray) -> np.ndarray:
        """Squared distances of the pairs (x_i, y_j), by differences."""
        out, step = np.empty(len(i)), max(1, CACHED // self.dim)
        for at in range(0, len(i), step):
            part = slice(at, at + step)
            difference = np.subtract(self.x[i[part]], self.y[j[part]], dtype=np.float64)
            out[part] = np.square(difference, out=difference).sum(1)
        return out

    def products(self, rows: np.ndarray, columns: slice) -> tuple[np.ndarray, np.ndarray]:
        """Squared distances by products in float64, and their errors' bounds."""
        a, b = self.centred(self.x[rows]), self.centred(self.y[columns])
        a2, b2 = np.square(a).sum(1)[:, None], np.square(b).sum(1)
        error = bound(self.dim, 2.0**-53) * (np.sqrt(a2) + np.sqrt(b2)) ** 2
        return a2 + b2 - 2.0 * (a @ b.T), error


def bound(dim: int, rounding: float) -> float:
    """c of the error's bound, for products in a type that rounds by `rounding`."""
    return (dim / (2.0 * (1.0 - dim * rounding)) + 24) * rounding


def nearest_rows(
    pairs: Pairs, rows: np.ndarray, k: int, weights: np.ndarray, own: bool
) -> tuple[np.ndarray, np.ndarray]:
    """`neighbours.nearest` of some rows, from products in float64."""
    value, who = np.empty((len(rows), k)), np.empty((len(rows), k), np.int64)
    everyone, step = slice(0, len(pairs.y)), max(1, HELD // len(pairs.y))
    for at in range(0, len(rows), step):
        some = rows[at : at + step]
        s, error = pairs.products(some, everyone)
        if own:
            s[np.arange(len(some)), some] = np.inf
        low, high = np.maximum(s - error, 0) * weights * (1 - 1e-15), (s + error) * weights
        limit = np.partition(high, k - 1, axis=1)[:, k - 1]
        for i, row in enumerate(some):
            j = np.flatnonzero(low[i] <= limit[i] * (1 + 1e-15))
            if own:
                j = j[j != row]
            for few in (j[: 4 * k + 60], j):  # of many duplicates the first will do
                exact = pairs.exact(np.full(len(few), row), few) * weights[few]
                order = np.argsort(exact, kind="stable")[:k]
                if len(few) == len(j) or exact[order[-1]] == 0:
                    break
            value[at + i], who[at + i] = exact[order], few[order]
    return value, who


def count_rows(
    pairs: Pairs,
    rows: np.ndarray,
    columns: slice,
    radii: tuple[np.ndarray, np.ndarray],
    strict: bool,
    out: tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray],
) -> None:
    """Adds to `out` (neighbours.Counts) what rows of x and columns of y count.

    radii: squared ones of x and y; -inf: no ball. strict: not on the border.
    """
    x_in_y, y_holds, y_in_x, x_holds = out
    step = max(1, HELD // (columns.stop - columns.start))
    for at in range(0, len(rows), step):
        some = rows[at : at + step]
        s, error = pairs.products(some, columns)
        sides = (radii[1][columns], x_in_y, y_holds), (
            radii[0][some][:, None], x_holds, y_in_x,
        )  # fmt: skip
        for r, of_x, of_y in sides:
            if np.isneginf(r).all():
                continue
            inside = s + error <= r
            i, j = np.nonzero(np.abs(s - r) <= error)
            d2 = pairs.exact(some[i], j + columns.start)
            limit = np.broadcast_to(r, s.shape)[i, j]
            inside[i, j] = d2 < limit if strict else d2 <= limit
            of_x[some] += inside.sum(1)
            of_y[columns] += inside.sum(0)

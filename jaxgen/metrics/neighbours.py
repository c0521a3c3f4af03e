"""Neighbours: exact nearest neighbours and balls of features, from matrix products on devices.

Squared distances are |a|^2 + |b|^2 - 2 a.b, whose products in float32 are quick and not exact: by
them a duplicate is not at distance 0. But their error has a bound (`distances`). What it leaves
open is computed again in float64, by the same formula if that is much, and decided by differences,
sum (a - b)^2. So the results are those of differences in float64 for every pair. Features are
centred before, which makes norms and hence errors small. At most a block of distances is held, and
sets stay float32.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxgen.common.mesh import batch_sharding, make_mesh, replicated
from jaxgen.metrics.distances import CACHED, HELD, Pairs, bound, count_rows, nearest_rows

FAR = 1e30  # squared norm of rows that fill a block up, in units where coordinates are at most 1
FEW = 2**20  # pairs that are not worth a compilation: all in float64
GROUP = 16
IN_B, IN_A, OPEN = 1, 2, 4


class Counts(NamedTuple):
    """How many balls of y hold each x (n,), how many x each ball of y holds (m,), and reversed."""

    x_in_y: np.ndarray
    y_holds: np.ndarray
    y_in_x: np.ndarray
    x_holds: np.ndarray


def nearest(
    x: np.ndarray,
    y: np.ndarray | None = None,
    k: int = 1,
    *,
    weights: np.ndarray | None = None,
    block: int | None = None,
    mesh: Mesh | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k smallest weighted squared distances of every x, in order, and whose they are.

    Args:
      x: finite features (n, d), float32 or float64. y: (m, d); None: x, each row without itself.
      weights: (m,) positive factors of the squared distances to each y; None: 1.
      block: rows at a time on the devices; None: 2048, or small sets at once on the host.
      mesh: whose local devices share the work; None: all local devices.
    Returns:
      (n, k) float64 and (n, k) integers.
    Raises:
      ValueError: k is not in 1..m, or 1..n-1 without y.
    """
    own, pairs = y is None, Pairs(x, x if y is None else y)
    least = len(pairs.y) - own
    if not 1 <= k <= least:
        raise ValueError(
            f"the neighbour number k must be in 1..{least} for {len(pairs.y)} samples, got k={k}; "
            "use more samples or a smaller k"
        )
    weights = np.ones(len(pairs.y)) if weights is None else np.asarray(weights, np.float64)
    if block is None and len(pairs.x) * len(pairs.y) <= FEW:
        return nearest_rows(pairs, np.arange(len(x)), k, weights, own)
    tiles = _Tiles(pairs, block or 2048, mesh)
    m = min(k + 5, tiles.block)
    mirrored = own and tiles.mesh.size == 1  # one half of the blocks tells the other
    low = np.full((tiles.rows * tiles.block, tiles.columns, m), np.inf, np.float32)
    index = np.zeros(low.shape, np.int32)
    w = weights / weights.max()

    def put(i: int, j: int, found: tuple[jax.Array, jax.Array]) -> None:
        rows = slice(i * tiles.block, (i + 1) * tiles.block)
        low[rows, j], index[rows, j] = found
        index[rows, j] += j * tiles.block

    for i, a in tiles.each_row():
        for j in range(i if mirrored else 0, tiles.columns):
            b, there = tiles.column(j), tiles.filled(w, j, 1.0)
            both = mirrored and j > i
            found = _smallest(*a, *b, there, m=m, own=own and i == j, both=both)
            put(i, j, found[0])
            if both:
                put(j, i, found[1])
    # A block that held no more than m others hides none.
    edge = low[: len(x), :, -1].min(1)
    low, index = (z[: len(x)].reshape(len(x), -1) for z in (low, index))
    norms = tiles.norms[own and tiles.mesh.size == 1], tiles.norms[1]
    value, who, done = _settle(pairs, low, index, edge, k, weights, norms)
    if len(rest := np.flatnonzero(~done)):
        value[rest], who[rest] = nearest_rows(pairs, rest, k, weights, own)
    return value, who


def count_inside(
    x: np.ndarray,
    y: np.ndarray,
    x_r2: np.ndarray | None = None,
    y_r2: np.ndarray | None = None,
    *,
    strict: bool = False,
    block: int | None = None,
    mesh: Mesh | None = None,
) -> Counts:
    """Who lies in whose ball, x (n, d) and y (m, d) with squared radii x_r2 (n,), y_r2 (m,).

    A set without radii has no balls. strict: not on the border. Other arguments as `nearest`.
    """
    pairs = Pairs(x, y)
    none = lambda n: np.full(n, -np.inf)
    radii = (
        none(len(x)) if x_r2 is None else np.asarray(x_r2, np.float64),
        none(len(y)) if y_r2 is None else np.asarray(y_r2, np.float64),
    )
    zeros = lambda n: np.zeros(n, np.int64)
    out = Counts(zeros(len(x)), zeros(len(y)), zeros(len(y)), zeros(len(x)))
    if block is None and len(x) * len(y) <= FEW:
        count_rows(pairs, np.arange(len(x)), slice(0, len(y)), radii, strict, out)
        return out
    tiles = _Tiles(pairs, block or 2048, mesh)
    # Without a ball, or on a row that fills up: further outside than any error.
    in_units = [np.maximum(r / pairs.unit**2, -FAR) for r in radii]
    for i, a in tiles.each_row():
        rows = slice(i * tiles.block, min((i + 1) * tiles.block, len(x)))
        ra = tiles.filled(in_units[0], i, -FAR, sharded=True)
        for j in range(tiles.columns):
            columns = slice(j * tiles.block, min((j + 1) * tiles.block, len(y)))
            code = _inside(*a, ra, *tiles.column(j), tiles.filled(in_units[1], j, -FAR))
            found = _found(np.asarray(code))
            rest = _count_sure(pairs, found, rows, columns, radii, strict, out)
            count_rows(pairs, rest, columns, radii, strict, out)
    return out


class _Tiles:
    """The blocks that devices work on: rows of x as they are, spread over the mesh, y turned."""

    def __init__(self, pairs: Pairs, block: int, mesh: Mesh | None):
        local = jax.local_devices() if mesh is None else list(mesh.local_devices)
        self.mesh = make_mesh(devices=local)
        most = max(len(pairs.x), len(pairs.y))
        count = -(-most // block)  # blocks of nearly one size waste the least
        step = np.lcm(GROUP, self.mesh.size) * (8 if most > 1024 else 1)
        self.block = int(-(-most // (count * step)) * step)
        self.pairs = pairs
        self.rows, self.columns = (-(-len(z) // self.block) for z in (pairs.x, pairs.y))
        self._turned: dict[int, tuple[jax.Array, jax.Array, jax.Array]] = {}
        self.norms = [np.zeros(n * self.block) for n in (self.rows, self.columns)]

    def _rounded(self, which: int, i: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (block, d), their squared norms and norms, float32, in the unit."""
        first, pairs = i * self.block, self.pairs
        part = (pairs.x, pairs.y)[which][first : first + self.block]
        rows = np.zeros((self.block, pairs.dim), np.float32)
        squared = np.full(self.block, FAR)
        step = max(1, CACHED // pairs.dim)
        single = part.dtype == np.float32  # which one subtraction rounds no more than float64's
        for at in (slice(k, min(k + step, len(part))) for k in range(0, len(part), step)):
            centred = part[at] - pairs.centre32 if single else pairs.centred(part[at])
            centred *= centred.dtype.type(1 / pairs.unit)
            squared[at] = np.square(centred, dtype=np.float64).sum(1)
            rows[at] = centred
        norms = np.sqrt(squared)
        self.norms[which][first : first + self.block] = norms
        return rows, squared.astype(np.float32), norms.astype(np.float32)

    def each_row(self) -> Iterator[tuple[int, tuple[jax.Array, ...]]]:
        """The number and the block of rows of x, on the devices."""
        for i in range(self.rows):
            if self.pairs.x is self.pairs.y and self.mesh.size == 1:
                turned, *norms = self.column(i)
                yield i, (_turn(turned), *norms)
            else:
                yield i, jax.device_put(self._rounded(0, i), batch_sharding(self.mesh))

    def column(self, j: int) -> tuple[jax.Array, ...]:
        """Block j of y, (d, block), on the devices from its first use on."""
        if j not in self._turned:
            rows, squared, norms = self._rounded(1, j)
            rows, *norms = jax.device_put((rows, squared, norms), replicated(self.mesh))
            self._turned[j] = (_turn(rows), *norms)
        return self._turned[j]

    def filled(self, v: np.ndarray, i: int, rest: float, sharded: bool = False) -> jax.Array:
        """The numbers v of block i, float32, filled up with `rest`."""
        part = v[i * self.block : (i + 1) * self.block]
        whole = np.full(self.block, rest, np.float32)
        whole[: len(part)] = part
        where = batch_sharding(self.mesh) if sharded else replicated(self.mesh)
        return jax.device_put(whole, where)


_turn = jax.jit(jnp.transpose)


def _distances(
    a: jax.Array, a2: jax.Array, na: jax.Array, b: jax.Array, b2: jax.Array, nb: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Squared distances of a (p, d) and b (d, q), and the bounds of their errors."""
    s = a2[:, None] + b2 - 2.0 * jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)
    # The last term: products that are too small for float32.
    return s, bound(len(b), 2.0**-24) * (na[:, None] + nb) ** 2 + len(b) * 2.0**-120


@functools.partial(jax.jit, static_argnames=("m", "own", "both"))
def _smallest(
    a: jax.Array,
    a2: jax.Array,
    na: jax.Array,
    b: jax.Array,
    b2: jax.Array,
    nb: jax.Array,
    w: jax.Array,
    m: int,
    own: bool,
    both: bool,
) -> list[tuple[jax.Array, jax.Array]]:
    """The m smallest lower bounds of weighted distances of each row, and of each column if both."""
    s, error = _distances(a, a2, na, b, b2, nb)
    low = jnp.maximum(s - error, 0.0) * (w * (1 - 2.0**-20))
    if own:
        low = jnp.where(jnp.eye(len(low), dtype=bool), FAR, low)
    low = jax.lax.optimization_barrier(low)  # or each step below computes it again
    return [_least(low, m)] + ([_least_of_columns(low, m)] if both else [])


def _least(x: jax.Array, m: int) -> tuple[jax.Array, jax.Array]:
    """The m smallest of each row (p, q) and their columns: those of the m groups with the least."""
    p, q = x.shape
    if q // GROUP < 2 * m:
        value, at = jax.lax.top_k(-x, m)
        return -value, at
    groups = x.reshape(p, q // GROUP, GROUP)
    _, at = jax.lax.top_k(-groups.min(-1), m)
    near = jnp.take_along_axis(groups, at[..., None], 1).reshape(p, m * GROUP)
    value, j = jax.lax.top_k(-near, m)
    return -value, jnp.take_along_axis(at, j // GROUP, 1) * GROUP + j % GROUP


def _least_of_columns(x: jax.Array, m: int) -> tuple[jax.Array, jax.Array]:
    """The same of each column, without turning x around."""
    p, q = x.shape
    if p // GROUP < 2 * m:
        return _least(x.T, m)
    _, at = jax.lax.top_k(-x.reshape(p // GROUP, GROUP, q).min(1).T, m)
    rows = (at[..., None] * GROUP + jnp.arange(GROUP)).reshape(q, m * GROUP)
    value, j = jax.lax.top_k(-x[rows, jnp.arange(q)[:, None]], m)
    return -value, jnp.take_along_axis(rows, j, 1)


@jax.jit
def _inside(
    a: jax.Array,
    a2: jax.Array,
    na: jax.Array,
    ra: jax.Array,
    b: jax.Array,
    b2: jax.Array,
    nb: jax.Array,
    rb: jax.Array,
) -> jax.Array:
    """What is sure of each pair (p, q), uint8: 0 or sums of IN_B, IN_A and OPEN, not decided."""
    s, error = _distances(a, a2, na, b, b2, nb)
    ra = ra[:, None]
    flag = lambda x, of: jnp.where(x, np.uint8(of), np.uint8(0))
    undecided = (jnp.abs(s - ra) <= error) | (jnp.abs(s - rb) <= error)
    return flag(s + error <= rb, IN_B) | flag(s + error <= ra, IN_A) | flag(undecided, OPEN)


def _found(code: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Row, column and value of what is not 0 in a sparse array (p, q) of bytes, q % 8 == 0."""
    words = np.flatnonzero(code.reshape(-1).view(np.uint64))
    at = (words[:, None] * 8 + np.arange(8)).reshape(-1)
    value = code.reshape(-1)[at]
    at, value = at[value > 0], value[value > 0]
    return at // code.shape[1], at % code.shape[1], value


def _settle(
    pairs: Pairs,
    low: np.ndarray,
    index: np.ndarray,
    edge: np.ndarray,
    k: int,
    weights: np.ndarray,
    norms: tuple[np.ndarray, np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Exact values (n, k) of candidates, whose they are, and for which rows that is certain.

    low: lower bounds (n, c) of the candidates `index`, in units and of weights up to 1. edge: (n,),
    no other candidate is below it. norms: of x and y, in units.
    """
    most = weights.max()
    n, d = len(low), pairs.dim
    value, who = np.full((n, k), np.inf), np.zeros((n, k), np.int64)
    na, nb = norms
    step = max(1, HELD // low.shape[1])
    for rows in (slice(r, min(r + step, n)) for r in range(0, n, step)):
        lo, ix = low[rows].astype(np.float64), index[rows]
        there = (lo < FAR / 1e3) & (ix < len(pairs.y))
        ix = np.where(there, ix, 0)
        error = bound(d, 2.0**-24) * (na[rows, None] + nb[ix]) ** 2 + d * 2.0**-120
        high = lo * (1 + 2.0**-18) + 2.1 * error * weights[ix] / most
        high[~there] = np.inf
        limit = np.partition(high, k - 1, axis=1)[:, k - 1 : k]
        r, c = np.nonzero(there & (lo <= limit))
        exact = np.full(lo.shape, np.inf)
        exact[r, c] = pairs.exact(r + rows.start, ix[r, c]) * weights[ix[r, c]]
        order = np.lexsort((ix, exact))[:, :k]
        value[rows] = np.take_along_axis(exact, order, 1)
        who[rows] = np.take_along_axis(ix, order, 1)
    last = value[:, -1]
    edge = edge.astype(np.float64) * pairs.unit**2 * most
    return value, who, np.isfinite(last) & (last <= edge) | (last == 0)


def _count_sure(
    pairs: Pairs,
    found: tuple[np.ndarray, np.ndarray, np.ndarray],
    rows: slice,
    columns: slice,
    radii: tuple[np.ndarray, np.ndarray],
    strict: bool,
    out: Counts,
) -> np.ndarray:
    """Adds what is sure of a block; gives the rows that are not counted, of too many open pairs."""
    row, column, value = found
    opened = value >= OPEN
    rest = np.unique(row[opened])
    if opened.sum() * pairs.dim <= HELD:  # few
        i, j = row[opened] + rows.start, column[opened] + columns.start
        d2, within = pairs.exact(i, j), np.less if strict else np.less_equal
        value[opened] = within(d2, radii[1][j]) * IN_B + within(d2, radii[0][i]) * IN_A
        rest = rest[:0]
    counted = ~np.isin(row, rest)
    for flag, of_x, of_y in (
        (IN_B, out.x_in_y[rows], out.y_holds[columns]),
        (IN_A, out.x_holds[rows], out.y_in_x[columns]),
    ):
        there = counted & (value & flag > 0)
        of_x += np.bincount(row[there], minlength=len(of_x))
        of_y += np.bincount(column[there], minlength=len(of_y))
    return rest + rows.start

"""The sampling loop: any solver over any grid as one compiled scan (arXiv:2206.00364, Alg. 1).

A solver (steps.py) makes a table on the host, one row an evaluation; the loop scans its rows. Where
a guidance interval begins or ends (guidance.py) the scan is split, so that a part outside of the
interval does not contain the guide at all.

Every image has a key of its own, from which its initial noise and any later noise are drawn: image
17 is image 17 whatever the batch, the order and the number of devices.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.noise.precondition import Cond, Denoise
from jaxgen.samplers import guidance
from jaxgen.samplers.steps import Solver, Table


def sample(
    solver: Solver,
    denoise: Denoise,
    keys: jax.Array,
    shape: tuple[int, ...],
    sigmas: np.ndarray,
    cond: Cond = None,
) -> jax.Array:
    """Images (b, *shape) from keys (b,): noise at sigmas[0], then `solver` from level to level."""
    start, later = rng.split(keys, 2)
    x = rng.normal(start, shape) * float(sigmas[0])
    return run(solver, denoise, x, sigmas, cond, later)


def run(
    solver: Solver,
    denoise: Denoise,
    x: jax.Array,
    sigmas: np.ndarray,
    cond: Cond = None,
    keys: jax.Array | None = None,
    noise: jax.Array | None = None,
) -> jax.Array:
    """`solver` along sigmas from x at sigmas[0].

    Args:
      x: (b, ...). sigmas: (n + 1,) levels on the host, decreasing, > 0 but for the last. keys: (b,)
      one an image, for solvers that draw noise. noise: (n, b, ...) unit normals in the place of
      drawn ones, one a step; n + 1 when the solver also adds noise to the result.
    Returns:
      the state (b, ...) at sigmas[-1].
    Raises:
      ValueError: for a bad grid; when the solver draws noise and has neither keys nor noise.
    """
    return _run(solver, denoise, x, sigmas, cond, keys, noise, watch=False)[0]


def trajectory(
    solver: Solver,
    denoise: Denoise,
    x: jax.Array,
    sigmas: np.ndarray,
    cond: Cond = None,
    keys: jax.Array | None = None,
    noise: jax.Array | None = None,
) -> tuple[Table, jax.Array]:
    """As `run`, with the way: the table of m evaluations, and all points (m + 1, b, ...).

    Point k is where evaluation k is made, at level table.sigma[k]; the last point is the result.
    """
    out, points = _run(solver, denoise, x, sigmas, cond, keys, noise, watch=True)
    return solver(check_grid(sigmas)), jnp.concatenate([*points, out[None]])


def check_grid(sigmas: np.ndarray) -> np.ndarray:
    """The levels as float64 (n + 1,).

    Raises:
      ValueError: unless they are finite, decreasing, and positive but for a last 0.
    """
    s = np.asarray(sigmas, np.float64)
    good = s.ndim == 1 and len(s) > 1 and np.all(np.isfinite(s)) and np.all(np.diff(s) < 0)
    if not good or s[-1] < 0:
        raise ValueError(
            "levels must be a vector of two or more, finite, decreasing, and positive but for a "
            f"last 0; got shape {s.shape}: {s.ravel()[:8]}"
        )
    return s


def walk(
    denoise: Denoise,
    state: tuple[jax.Array, jax.Array | None, jax.Array | None],
    rows: Table,
    cond: Cond,
    draw: Callable[[jax.Array], jax.Array] | None,
    watch: bool = False,
) -> tuple[tuple[jax.Array, jax.Array | None, jax.Array | None], jax.Array | None]:
    """One scan over some rows of a table, `noise` cut to their number.

    Args:
      state: y, x or None where every row ends a step, the last D or None where it is not used;
      each (b, ...). draw: step () -> unit normals (b, ...). watch: also return the points.
    Returns:
      the state after the last row; the points of evaluation (m, b, ...) or None.
    """

    def body(state: tuple, row: Table) -> tuple[tuple, jax.Array | None]:
        y, x, previous = state
        if rows.noise is not None:
            quiet = lambda *parts: parts
            noisy = lambda *parts: _each(lambda v: v + row.noise * draw(row.step), parts)
            y, x = jax.lax.cond(row.noise > 0, noisy, quiet, y, x)
        point = y
        D = denoise(y, jnp.broadcast_to(row.sigma, y.shape[:1]), cond)
        y = row.x * (y if x is None else x) + row.D * D
        if previous is not None:
            y, previous = y + row.previous * previous, D
        if x is not None:
            x = jnp.where(row.ends, y, x)
        return (y, x, previous), point if watch else None

    return jax.lax.scan(body, state, rows)


def _each(f: Callable[[jax.Array], jax.Array], parts: tuple) -> tuple:
    return tuple(None if v is None else f(v) for v in parts)


def _run(
    solver: Solver,
    denoise: Denoise,
    x: jax.Array,
    sigmas: np.ndarray,
    cond: Cond,
    keys: jax.Array | None,
    noise: jax.Array | None,
    watch: bool,
) -> tuple[jax.Array, list[jax.Array]]:
    sigmas = check_grid(sigmas)
    table = solver(sigmas)
    if table.noise is not None and keys is None and noise is None:
        raise ValueError("this solver draws noise: pass `keys` (b,), one an image")
    if keys is not None and keys.shape != x.shape[:1]:
        raise ValueError(f"keys must have shape (b,) = {x.shape[:1]}, got {keys.shape}")

    def draw(step: jax.Array) -> jax.Array:
        if noise is not None:
            return jnp.asarray(noise, x.dtype)[step]
        fresh = jax.vmap(lambda k: jax.random.fold_in(k, step))(keys)
        return rng.normal(fresh, x.shape[1:]).astype(x.dtype)

    kinds = {"f": x.dtype, "i": jnp.int32, "b": bool}
    on_device = lambda v: jnp.asarray(v, kinds[v.dtype.kind])
    state = (
        x,
        None if table.ends is None else x,
        None if table.previous is None else jnp.zeros_like(x),
    )
    points = []
    for start, stop, segment in guidance.segments(denoise, sigmas[:-1]):
        a, b = np.searchsorted(table.step, [start, stop])
        rows = jax.tree.map(lambda v, a=a, b=b: on_device(v[a:b]), table)
        state, seen = walk(segment, state, rows, cond, draw, watch)
        points.append(seen)
    out = state[0]
    if table.noise is not None and table.noise[-1] > 0:
        out = out + table.noise[-1].astype(x.dtype) * draw(len(sigmas) - 1)
    return out, points

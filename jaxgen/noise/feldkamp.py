"""Feldkamp: filtered back-projection of cone beams, approximate (doi:10.1364/JOSAA.1.000612).

With the detector moved to the axis, a source at angle beta and height z_s sees the voxel (x, y, z)
at u = R t / L, v = R (z - z_s) / L, where L = R - (x cos(beta) + y sin(beta)) is its distance along
the central ray and t = y cos(beta) - x sin(beta). From a whole turn,

    f = 1/2 int (R / L)^2 q(u, v) d beta ,   q = ramp filter along u of p R / sqrt(R^2 + u^2 + v^2)

(the paper's formula, for a circle). On a helix each slice takes the turn whose sources are the
nearest to it in height, so the result is the better, the smaller the pitch is.
"""

import math

import jax
import jax.numpy as jnp

from jaxgen.noise import backprojection


def reconstruct(
    p: jax.Array,
    beta: jax.Array,
    height: jax.Array,
    keep: jax.Array,
    *,
    size: int,
    depth: int,
    radius: float,
    pitch: float,
    window: str = "ram-lak",
) -> jax.Array:
    """Volumes (b, n, n, depth) of line integrals p (b, views, rows, columns).

    Args:
      beta, height: of the source at each view, (views,). keep: weights (b, views) or (1, views) of
      the views, those of a slice being normalised. size: n voxels across [-1, 1], depth slices and
      detector cells as wide. radius, pitch: of the helix, in half-widths. window: of the filter.
    """
    rows, columns = p.shape[2:]
    voxel = 2 / size
    at = lambda cells: (jnp.arange(cells, dtype=p.dtype) - (cells - 1) / 2) * voxel
    u, v = at(columns), at(rows)[:, None]
    p = p * (radius / jnp.sqrt(radius**2 + u**2 + v**2))
    q = backprojection.ramp(p, voxel, window).transpose(1, 2, 3, 0)  # (views, rows, columns, b)
    x, y, z = at(size)[None, :, None], -at(size)[:, None, None], at(depth)

    def add(carry: tuple, view: tuple) -> tuple:
        total, weights = carry
        q, beta, height, keep = view
        distance = radius - (x * jnp.cos(beta) + y * jnp.sin(beta))
        u = radius * (y * jnp.cos(beta) - x * jnp.sin(beta)) / distance / voxel
        v = radius * (z - height) / distance / voxel
        seen = _bilinear(q, v + (rows - 1) / 2, u + (columns - 1) / 2)
        near = 0.5 + (pitch / 2 - jnp.abs(z - height)) / voxel  # a turn, its ends a voxel soft
        weight = jnp.clip(near, 0, 1)[:, None] * keep
        part = jnp.square(radius / distance)[..., None] * weight * seen
        return (total + part, weights + weight), None

    b = p.shape[0]
    empty = jnp.zeros((size, size, depth, b), p.dtype), jnp.zeros((depth, b), p.dtype)
    keep = jnp.broadcast_to(keep, (b, len(beta))).T
    (total, weights), _ = jax.lax.scan(add, empty, (q, beta, height, keep))
    return math.pi * (total / jnp.maximum(weights, 1e-6)).transpose(3, 0, 1, 2)


def _bilinear(q: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """q (rows, columns, b) at fractional places, beyond the edge the value there."""
    shape = jnp.broadcast_shapes(row.shape, column.shape)
    row = jnp.clip(jnp.broadcast_to(row, shape), 0, q.shape[0] - 1)
    column = jnp.clip(jnp.broadcast_to(column, shape), 0, q.shape[1] - 1)
    i = jnp.clip(jnp.floor(row).astype(jnp.int32), 0, max(q.shape[0] - 2, 0))
    j = jnp.clip(jnp.floor(column).astype(jnp.int32), 0, max(q.shape[1] - 2, 0))
    i, j = jax.lax.optimization_barrier((i, j))  # one rounding for all uses
    f, g = (row - i)[..., None], (column - j)[..., None]
    down, right = jnp.minimum(i + 1, q.shape[0] - 1), jnp.minimum(j + 1, q.shape[1] - 1)
    top = q[i, j] * (1 - g) + q[i, right] * g
    return top * (1 - f) + (q[down, j] * (1 - g) + q[down, right] * g) * f

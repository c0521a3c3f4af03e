"""Styles: what style-based generators give to tools, mixing, closed ways (arXiv:1812.04948).

Sec. 3.1: an image is made of the styles of two latents, some layers from the one and some from the
other. Coarse layers carry pose and shape, fine ones colour and texture.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.interpolate import lerp, slerp

Cond = dict[str, jax.Array] | None


class Generator(NamedTuple):
    """A generator with styles, as functions that hold its weights.

    latents(keys (n,)) -> z (n, z_dim): those from which `jaxgen sample` draws the images of these
    keys. mapping(z, cond) -> w (n, w_dim), not truncated. truncate(w (n, w_dim), cond, **options)
    -> ws (n, num_ws, w_dim), with the options of the plan's sampler. synthesis(ws, keys=None) ->
    images (n, h, w, c) as in the data, of styles (n, w_dim) or (n, num_ws, w_dim); keys (n,) for
    noise drawn for each image, None for constant noise. moved(ws, transform (3, 3)) -> images of
    the network's own size, of an input that has been moved; None if the network cannot.
    """

    latents: Callable[..., jax.Array]
    mapping: Callable[..., jax.Array]
    truncate: Callable[..., jax.Array]
    synthesis: Callable[..., jax.Array]
    z_dim: int
    w_dim: int
    num_ws: int
    moved: Callable[..., jax.Array] | None = None


def mix(rows: jax.Array, columns: jax.Array, layers: Sequence[int]) -> jax.Array:
    """Styles (r, c, num_ws, w): those of the row's image, but in `layers` the column's.

    Args:
      rows: (r, num_ws, w). columns: (c, num_ws, w). layers: 0 is the coarsest.
    Raises:
      ValueError: layers that these styles do not have, or styles of other shapes.
    """
    if rows.ndim != 3 or columns.ndim != 3 or rows.shape[1:] != columns.shape[1:]:
        raise ValueError(
            "mix expects styles (n, num_ws, w_dim) of one generator, got "
            f"{rows.shape} and {columns.shape}"
        )
    num_ws = rows.shape[1]
    if wrong := [i for i in layers if not 0 <= i < num_ws]:
        raise ValueError(f"layers {wrong} are not among the {num_ws} of this generator, from 0")
    taken = np.isin(np.arange(num_ws), list(layers))[:, None]
    return jnp.where(taken, columns[None], rows[:, None])


def around(points: jax.Array, frames: int, space: str) -> jax.Array:
    """A closed way (n * frames, d) through points (n, d) and back to the first.

    Args:
      frames: from each point to the next, the first of which is the point itself. space: "w" for
        straight lines, "z" for great circles, whose points have length sqrt(d) as normal latents
        have.
    Raises:
      ValueError: for another space, or no frames.
    """
    if frames < 1 or space not in ("w", "z"):
        raise ValueError(f"frames must be at least 1 and space w or z, got {frames} and {space!r}")
    t = jnp.arange(frames)[:, None] / frames
    a, b = points[:, None], jnp.roll(points, -1, 0)[:, None]
    between = lerp(a, b, t) if space == "w" else slerp(a, b, t) * points.shape[-1] ** 0.5
    return between.reshape(-1, points.shape[-1])

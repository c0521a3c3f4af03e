"""Photos of any size through one compiled program: tiles that overlap, blended smoothly.

Two neighbours share `overlap` rows or columns at least. In the middle quarter of what they share
one fades into the other; the rest nearer to a tile's inner edge, where the network misses what lies
beyond, is not used. So the result is that of the whole photo at once for networks that see no
further than 3/8 of the overlap.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from jaxgen.common import mesh as meshes

FADE = 4  # the overlap over the width of the blend


def starts(length: int, tile: int, overlap: int, multiple: int = 1) -> list[int]:
    """Where tiles begin along an axis of `length` pixels, as evenly as `multiple` allows.

    The last one ends with the axis, or less than `multiple` after it.

    Args:
      multiple: all starts are multiples of it; it divides tile and overlap.
    """
    last = -(-max(length - tile, 0) // multiple) * multiple
    gaps = -(-last // (tile - overlap))
    return [round(i * last / max(gaps, 1) / multiple) * multiple for i in range(gaps + 1)]


def weights(begin: list[int], tile: int, overlap: int) -> np.ndarray:
    """Weights (n, tile) float32 of tiles along an axis; wherever tiles overlap they add up to 1."""
    at = np.asarray(begin)[:, None] + np.arange(tile) + 0.5
    middle = (np.asarray(begin[1:]) + np.asarray(begin[:-1]) + tile) / 2
    width = max(overlap / FADE, 1e-6)
    w = np.ones(at.shape)
    for i, centre in enumerate(middle):  # tile i fades out where tile i + 1 fades in
        t = np.clip((at - centre) / width + 0.5, 0.0, 1.0)
        rise = t * t * (3.0 - 2.0 * t)
        w[: i + 1] *= 1.0 - rise[: i + 1]
        w[i + 1 :] *= rise[i + 1 :]
    return w.astype(np.float32)


def check(tile: int, overlap: int, multiple: int) -> None:
    """Raises ValueError for sizes that do not fit each other or the network."""
    if tile < 2 or not 0 <= overlap <= tile // 2:
        raise ValueError(
            f"--tile must be 2 or more and --overlap 0 to half of it, got {tile} and {overlap}"
        )
    if tile % multiple or overlap % multiple:
        raise ValueError(
            f"this run's network halves images until 1 of {multiple} pixels is left: --tile and "
            f"--overlap must be multiples of {multiple}, got {tile} and {overlap}"
        )


class Tiler:
    """A restorer for images of any size, its tiles spread over all devices of a mesh.

    Args:
      restore: (params, x (b, h, w, c) in [-1, 1], level (b,) or None) -> images, for any h and w.
      params: its weights. tile: side of a tile; 0 takes each image whole and compiles for each
        size. multiple: of pixels by which tiles may be moved without changing what the network
        makes of them (the period of its pooling).
      per_device: tiles at a time; one, for photos of no more tiles than there are devices.
    Raises:
      ValueError: sizes that do not fit.
    """

    def __init__(
        self,
        restore: Callable[[Any, jax.Array, jax.Array | None], jax.Array],
        params: Any,
        mesh: Any,
        *,
        tile: int = 256,
        overlap: int = 64,
        multiple: int = 1,
        per_device: int = 1,
    ):
        if tile:
            check(tile, overlap, multiple)
        self.tile, self.overlap, self.multiple = tile, overlap, multiple
        self.mesh, self.chunk = mesh, mesh.size * per_device
        self.rows, whole = meshes.batch_sharding(mesh), meshes.replicated(mesh)
        self.params = jax.device_put(params, whole)
        self.known = jax.jit(restore, in_shardings=(whole, self.rows, self.rows))
        self.blind = jax.jit(
            lambda params, x: restore(params, x, None), in_shardings=(whole, self.rows)
        )

    def __call__(self, x: np.ndarray, level: float | None = None) -> np.ndarray:
        """Restored images (n, h, w, c) float32 of images of one size.

        An axis shorter than a tile is extended by reflection, and so is the end of one that
        `multiple` does not divide.
        """
        n, h, w = x.shape[:3]
        size = (self.tile, self.tile) if self.tile else (h, w)
        # A whole image has nothing to be moved against.
        multiple = self.multiple if self.tile else 1
        begin = [starts(k, t, self.overlap, multiple) for k, t in zip((h, w), size)]
        end = [b[-1] + t for b, t in zip(begin, size)]
        pads = ((0, 0), (0, max(end[0] - h, 0)), (0, max(end[1] - w, 0)), (0, 0))
        x = np.pad(np.asarray(x, np.float32), pads, mode="reflect") if np.any(pads) else x
        wy, wx = (weights(b, t, self.overlap) for b, t in zip(begin, size))
        places = [
            (k, i, j) for k in range(n) for i in range(len(begin[0])) for j in range(len(begin[1]))
        ]
        out = np.zeros(x.shape, np.float32)
        cut = lambda k, i, j: (
            k,
            slice(begin[0][i], begin[0][i] + size[0]),
            slice(begin[1][j], begin[1][j] + size[1]),
        )
        tiles = self._restored([x[cut(*p)] for p in places], level)
        for (k, i, j), tile in zip(places, tiles, strict=True):
            out[cut(k, i, j)] += tile * (wy[i][:, None, None] * wx[j][None, :, None])
        return out[:, :h, :w]

    def _restored(self, tiles: list[np.ndarray], level: float | None) -> Iterator[np.ndarray]:
        """The tiles, restored; the last chunk is filled up with tiles of the beginning."""
        chunk = self.chunk if len(tiles) > self.mesh.size else self.mesh.size
        for start in range(0, len(tiles), chunk):
            part = [tiles[i % len(tiles)] for i in range(start, start + chunk)]
            part = jax.device_put(np.stack(part), self.rows)
            if level is None:
                done = self.blind(self.params, part)
            else:
                levels = np.full(chunk, level, np.float32)
                done = self.known(self.params, part, jax.device_put(levels, self.rows))
            yield from jax.device_get(done)[: len(tiles) - start]

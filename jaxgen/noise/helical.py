"""Helical cone beam: rays from a source on a helix to a flat detector (arXiv:2212.07431).

The source is at (R cos(beta), R sin(beta), h beta / (2 pi)) for a pitch h a turn, and the detector
is perpendicular to the central ray. It is described where it would lie on the axis: a real one at
distance D of the source has cells D / R times as large. A cell (u, v) reads the integral along its
ray of the volume, interpolated linearly between the centres of voxels, by the midpoint rule.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise import backprojection, feldkamp
from jaxgen.noise.transmission import Scanner


@dataclasses.dataclass(frozen=True)
class HelicalConeBeam(Scanner):
    """Projections of volumes (b, n, n, depth) as (b, views, rows, columns); slices are channels.

    Lengths are in half-widths: a volume is [-1, 1]^2 across, voxels are cubes of side 2 / n as are
    detector cells, x points right, y up, z along the slices. The helix begins half a turn below the
    volume and ends half a turn above it.

    Args:
      size: n. depth: slices. turn: views a turn. pitch: travel a turn. radius: R, of the helix,
      above sqrt 2. rows, columns: of the detector; 0 takes what sees the cylinder of radius 1 from
      the turn around each slice. step: between samples of a ray, in voxels. sigma, photons,
      density, window: of Scanner.
    """

    size: int
    depth: int
    turn: int
    pitch: float = 0.5
    radius: float = 3.0
    rows: int = 0
    columns: int = 0
    step: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        counts = self.size, self.depth, self.turn
        lengths = self.pitch, self.step, self.radius - math.sqrt(2)
        if min(counts) < 1 or min(self.rows, self.columns) < 0 or not min(lengths) > 0:
            raise ValueError(
                "a helical beam needs size, depth and turn >= 1, rows and columns >= 0, pitch and "
                f"step > 0 and a radius that clears the volume's corners at sqrt 2, got {self}"
            )

    @property
    def views(self) -> int:
        """Of the whole helix."""
        return math.ceil((self.depth * self.voxel / self.pitch + 1) * self.turn)

    @property
    def voxel(self) -> float:
        """The side of a voxel."""
        return 2 / self.size

    @property
    def detector(self) -> tuple[int, int]:
        """Rows and columns."""
        high = self.pitch / 2 * self.radius / (self.radius - 1)
        wide = self.radius / math.sqrt(self.radius**2 - 1)
        count = lambda half: 2 * math.ceil(half / self.voxel + 0.5)
        return self.rows or count(high), self.columns or count(wide)

    def source(self, dtype: jnp.dtype = jnp.float32) -> tuple[jax.Array, jax.Array]:
        """Angle and height at each view, (views,) each."""
        turns = (jnp.arange(self.views, dtype=dtype) - (self.views - 1) / 2) / self.turn
        return 2 * math.pi * turns, self.pitch * turns

    def forward(self, x: jax.Array) -> jax.Array:
        """Line integrals (b, views, rows, columns) of volumes (b, n, n, depth); linear.

        Raises:
          ValueError: for volumes of another size.
        """
        shape = self.size, self.size, self.depth
        if x.shape[1:] != shape:
            raise ValueError(
                f"this beam projects volumes (b, {', '.join(map(str, shape))}), got {x.shape}; "
                "make one of the volumes' size"
            )
        x = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
        voxels = x.transpose(1, 2, 3, 0).reshape(-1, len(x))
        across = lambda cells: (jnp.arange(cells, dtype=x.dtype) - (cells - 1) / 2) * self.voxel
        rows, columns = map(across, self.detector)
        reach, samples = math.sqrt(2), math.ceil(2 * math.sqrt(2) / (self.step * self.voxel))
        deep = (
            self.radius - reach + (jnp.arange(samples, dtype=x.dtype) + 0.5) * (2 * reach / samples)
        )  # along the central ray; the rows and columns of a plane at R are those of the detector
        length = jnp.sqrt(1 + (rows[:, None] ** 2 + columns**2) / self.radius**2)

        def view(at: tuple) -> jax.Array:
            cos, sin, height = jnp.cos(at[0]), jnp.sin(at[0]), at[1]
            u, v = columns * deep[:, None] / self.radius, rows * deep[:, None] / self.radius
            ahead = (self.radius - deep)[:, None]
            right = (ahead * cos - u * sin) / self.voxel + (self.size - 1) / 2
            down = (self.size - 1) / 2 - (ahead * sin + u * cos) / self.voxel
            up = (height + v) / self.voxel + (self.depth - 1) / 2
            along = _linear(down, self.size), _linear(right, self.size), _linear(up, self.depth)
            total = 0.0
            for (i, a), (j, b) in ((p, q) for p in along[0] for q in along[1]):
                for k, c in along[2]:
                    place = ((i * self.size + j) * self.depth)[:, None] + k[..., None]
                    weight = (a * b)[:, None] * c[..., None]
                    total += (weight[..., None] * voxels[place]).sum(0)
            return total * (length * (2 * reach / samples))[..., None]

        y = jax.lax.map(jax.checkpoint(view), self.source(x.dtype))
        return y.transpose(3, 0, 1, 2)

    def adjoint(self, y: jax.Array) -> jax.Array:
        """(b, n, n, depth) of y (b, views, rows, columns); sum(forward(x) y) = sum(x adjoint(y)).

        Raises:
          ValueError: for projections of another beam.
        """
        if y.shape[1:] != (self.views, *self.detector):
            raise ValueError(
                f"this beam's projections are (b, {self.views}, {self.detector[0]}, "
                f"{self.detector[1]}), got {y.shape}"
            )
        x = jax.ShapeDtypeStruct((len(y), self.size, self.size, self.depth), y.dtype)
        return jax.linear_transpose(self.forward, x)(y)[0]

    def white(self, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        """(1, views, rows, columns)."""
        return jnp.asarray(_white(dataclasses.replace(self, sigma=0.0, photons=0.0)), dtype)

    def ramp(self, y: jax.Array) -> jax.Array:
        """Rows of the detector, filtered."""
        return backprojection.ramp(y, self.voxel, self.window)

    def start(self, y: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        """Feldkamp's reconstruction (b, n, n, depth), of the views in `keep` (see Scanner)."""
        keep = jnp.ones(self.views, y.dtype) if keep is None else jnp.asarray(keep, y.dtype)
        mu = feldkamp.reconstruct(
            y + self.white(y.dtype),
            *self.source(y.dtype),
            keep.reshape(-1, self.views),
            size=self.size,
            depth=self.depth,
            radius=self.radius,
            pitch=self.pitch,
            window=self.window,
        )
        return mu - 1


@functools.lru_cache(maxsize=8)
def _white(beam: HelicalConeBeam) -> np.ndarray:
    """What a helical beam sees of ones; computed once, outside of any program."""
    with jax.ensure_compile_time_eval():
        return np.asarray(beam.forward(jnp.ones((1, beam.size, beam.size, beam.depth))))


def _linear(at: jax.Array, count: int) -> list[tuple[jax.Array, jax.Array]]:
    """(index, weight) of the two neighbours of fractional places; weight 0 where there is none."""
    first = jax.lax.optimization_barrier(jnp.floor(at))  # one rounding for both uses
    found = []
    for index, weight in ((first, 1 - (at - first)), (first + 1, at - first)):
        inside = (index >= 0) & (index < count)
        index = jnp.clip(index, 0, count - 1).astype(jnp.int32)
        found.append((index, jnp.where(inside, weight, 0)))
    return found

"""Parallel beams: mean line integrals over detector cells, exactly (doi:10.1109/TMI.2010.2050898).

The image is a function on the square [-1, 1]^2, constant on its n x n pixels. A parallel projection
of one pixel of side w at angle theta is a trapezoid around the projection t of its centre,

    t = x cos(theta) + y sin(theta) ,   box(w |cos(theta)|) * box(w |sin(theta)|) ,

the paper's footprint for parallel beams. Detector cells are strips; a cell reads the mean over its
strip, which is a difference of the trapezoid's integral at the cell's two edges. So nothing is
sampled or interpolated: a projection's sum times the spacing is the image's integral.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxgen.noise import backprojection
from jaxgen.noise.transmission import Scanner


def trapezoid_integral(t: jax.Array, a: jax.Array, b: jax.Array) -> jax.Array:
    """Integral from 0 to t of box(a) * box(b) / (a b), widths a, b >= 0; odd in t, 1/2 at most."""
    wide, narrow = jnp.maximum(a, b), jnp.minimum(a, b)
    rest = jnp.maximum((wide + narrow) / 2 - jnp.abs(t), 0)  # to the outer edge
    slope = jnp.minimum(rest / jnp.maximum(narrow, jnp.finfo(t.dtype).tiny), 1)
    value = jnp.where(rest < narrow, 0.5 - slope * rest / (2 * wide), jnp.abs(t) / wide)
    return jnp.sign(t) * jnp.minimum(value, 0.5)


@dataclasses.dataclass(frozen=True)
class ParallelBeam(Scanner):
    """Projections of images (b, n, n, c) as (b, angles, detectors, c), lengths in half-widths.

    Angles are k pi / angles, k = 0, 1, ...; x points right and y up.

    Args:
      size: n. angles: views over half a turn. detectors: centred cells; 0 takes as many as see the
      whole square. spacing: width of a cell in pixels. sigma, photons, density, window: of Scanner.
    """

    size: int
    angles: int
    detectors: int = 0
    spacing: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.size < 1 or self.angles < 1 or self.detectors < 0 or not self.spacing > 0:
            raise ValueError(
                "a parallel beam needs size >= 1, angles >= 1, detectors >= 0 and spacing > 0, got "
                f"{self.size}, {self.angles}, {self.detectors} and {self.spacing}"
            )

    @property
    def views(self) -> int:
        """The angles."""
        return self.angles

    @property
    def cells(self) -> int:
        """The number of detector cells."""
        return self.detectors or math.ceil(math.sqrt(2) * self.size / self.spacing) + 1

    @property
    def width(self) -> float:
        """Of a detector cell."""
        return 2 * self.spacing / self.size

    def theta(self, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        """The angle of each view, (angles,)."""
        return jnp.arange(self.angles, dtype=dtype) * (math.pi / self.angles)

    def forward(self, x: jax.Array) -> jax.Array:
        """Mean line integrals (b, angles, detectors, c) of images (b, n, n, c); linear.

        Raises:
          ValueError: for images of another size.
        """
        if x.ndim != 4 or x.shape[1:3] != (self.size, self.size):
            raise ValueError(
                f"this beam projects images (b, {self.size}, {self.size}, c), got {x.shape}; make "
                "one of the images' size"
            )
        x = x if x.dtype == jnp.float64 else x.astype(jnp.float32)
        b, n, _, c = x.shape
        cells, width, pixel = self.cells, self.width, 2 / self.size
        columns = x.transpose(1, 2, 0, 3).reshape(n * n, b, c)
        at = (jnp.arange(n, dtype=x.dtype) - (n - 1) / 2) * pixel
        touched = math.ceil(math.sqrt(2) * pixel / width) + 1

        def view(theta: jax.Array) -> jax.Array:
            cos, sin = jnp.cos(theta), jnp.sin(theta)
            t = (at * cos - at[:, None] * sin).reshape(-1)  # rows go down, y goes up
            a, b = pixel * jnp.abs(cos), pixel * jnp.abs(sin)
            # Kept: some programs compute it for cells and for weights, with other roundings.
            first = jnp.floor((t - (a + b) / 2) / width + cells / 2)
            first = jax.lax.optimization_barrier(first)
            edge = (first - cells / 2) * width - t
            below = trapezoid_integral(edge, a, b)
            y = jnp.zeros((cells, *columns.shape[1:]), x.dtype)
            for k in range(touched):
                above = trapezoid_integral(edge + (k + 1) * width, a, b)
                cell = first.astype(jnp.int32) + k
                cell = jnp.where(cell < 0, cells, cell)  # past the end, where it is dropped
                part = (above - below) * (pixel**2 / width)
                y = y.at[cell].add(part[:, None, None] * columns, mode="drop")
                below = above
            return y

        return jax.lax.map(jax.checkpoint(view), self.theta(x.dtype)).transpose(2, 0, 1, 3)

    def adjoint(self, y: jax.Array) -> jax.Array:
        """(b, n, n, c) of y (b, angles, detectors, c): sum(forward(x) y) = sum(x adjoint(y)).

        Raises:
          ValueError: for projections of another beam.
        """
        if y.ndim != 4 or y.shape[1:3] != (self.angles, self.cells):
            raise ValueError(
                f"this beam's projections are (b, {self.angles}, {self.cells}, c), got {y.shape}"
            )
        x = jax.ShapeDtypeStruct((y.shape[0], self.size, self.size, y.shape[3]), y.dtype)
        return jax.linear_transpose(self.forward, x)(y)[0]

    def white(self, dtype: jnp.dtype = jnp.float32) -> jax.Array:
        """(1, angles, detectors, 1): of one pixel that fills the square."""
        theta = self.theta(dtype)[:, None]
        edges = (jnp.arange(self.cells + 1, dtype=dtype) - self.cells / 2) * self.width
        sides = 2 * jnp.abs(jnp.cos(theta)), 2 * jnp.abs(jnp.sin(theta))
        y = jnp.diff(trapezoid_integral(edges, *sides), axis=1) * (4 / self.width)
        return y[None, :, :, None]

    def ramp(self, y: jax.Array) -> jax.Array:
        """Views, filtered."""
        return backprojection.ramp(y, self.width, self.window, axis=2)

    def start(self, y: jax.Array, keep: jax.Array | None = None) -> jax.Array:
        """Filtered back-projection (b, n, n, c), of the views in `keep` (see Scanner)."""
        keep = jnp.ones(self.angles, y.dtype) if keep is None else jnp.asarray(keep, y.dtype)
        keep = keep / keep.sum(-1, keepdims=True)
        y = self.ramp(y + self.white(y.dtype)) * keep.reshape(-1, self.angles, 1, 1)
        return math.pi * self.width * (self.size / 2) ** 2 * self.adjoint(y) - 1

"""Downsample: a smaller image by a box or an antialiasing kernel (arXiv:2209.14687, 4).

A x = R_h x R_w^T,   A^T y = R_h^T y R_w,   rows of R: the kernel, as wide as `factor` asks for
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise.corruption import Linear


def _cubic(t: np.ndarray, a: float = -0.5) -> np.ndarray:
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.where(t < 1, near, np.where(t < 2, far, 0.0))


KERNELS = {  # of the distance in pixels of the small image
    "box": lambda t: (t < 0.5).astype(np.float64),
    "triangle": lambda t: np.maximum(1 - t, 0.0),
    "cubic": _cubic,
}


@functools.lru_cache(maxsize=32)
def matrix(n: int, factor: int, kernel: str) -> np.ndarray:
    """R (n / factor, n) float64: rows of sum 1, cut at the edges."""
    centre = (np.arange(n // factor) + 0.5) * factor
    distance = np.abs(np.arange(n) + 0.5 - centre[:, None]) / factor
    rows = KERNELS[kernel](distance)
    return rows / rows.sum(1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Downsample(Linear):
    """(b, h, w, c) -> (b, h / factor, w / factor, c); box: means of blocks.

    Args:
      factor: >= 1, a divisor of h and w. kernel: "box", or "triangle" and "cubic", which is what
        Pillow calls bilinear and bicubic reduction. sigma: noise in units of [-1, 1].
    Raises:
      ValueError: for others; when called, for images that `factor` does not divide.
    """

    factor: int = 2
    kernel: str = "box"

    def __post_init__(self):
        super().__post_init__()
        if self.factor != int(self.factor) or self.factor < 1 or self.kernel not in KERNELS:
            raise ValueError(
                "downsampling needs a whole factor >= 1 and a kernel of "
                f"{', '.join(KERNELS)}; got {self.factor!r} and {self.kernel!r}"
            )

    def _matrices(self, h: int, w: int, dtype: np.dtype) -> list[jax.Array]:
        if h % self.factor or w % self.factor:
            raise ValueError(
                f"downsampling by {self.factor} needs sides that it divides, got {h} x {w}"
            )
        return [jnp.asarray(matrix(n, self.factor, self.kernel), dtype) for n in (h, w)]

    def forward(self, x: jax.Array) -> jax.Array:
        """R_h x R_w^T."""
        rows, columns = self._matrices(*x.shape[1:3], x.dtype)
        return jnp.einsum("ih,bhwc,jw->bijc", rows, x, columns, precision="highest")

    def adjoint(self, y: jax.Array) -> jax.Array:
        """R_h^T y R_w."""
        h, w = (n * self.factor for n in y.shape[1:3])
        rows, columns = self._matrices(h, w, y.dtype)
        return jnp.einsum("ih,bijc,jw->bhwc", rows, y, columns, precision="highest")

    def start(self, y: jax.Array) -> jax.Array:
        """Each pixel repeated factor times in both directions."""
        return y.repeat(self.factor, 1).repeat(self.factor, 2)

"""Blur: convolution with a known kernel on a periodic image (arXiv:2209.14687, 4).

    A x = k * x,   A^T y = k(-.) * y

by the FFT. The image is periodic: a kernel reaches over an edge to the other side.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise.corruption import Linear


@dataclasses.dataclass(frozen=True)
class Blur(Linear):
    """A x = k * x, each channel by itself.

    Args:
      std: of the Gaussian kernel in pixels, cut at 4 std and of sum 1. kernel: (a, b) nested tuples
        of odd sizes, taken as they are, in the place of the Gaussian.
      sigma: noise in units of [-1, 1].
    Raises:
      ValueError: for a std that is not positive, a kernel that is not finite, 2-D and odd.
    """

    std: float = 1.5
    kernel: tuple[tuple[float, ...], ...] | None = None

    def __post_init__(self):
        super().__post_init__()
        if self.kernel is None:
            if not 0 < self.std < float("inf"):
                raise ValueError(f"std of a blur is in pixels, above 0; got {self.std}")
            return
        shape = np.shape(self.kernel)
        if len(shape) != 2 or not all(n % 2 for n in shape) or not np.isfinite(self.kernel).all():
            raise ValueError(
                f"a blur's kernel is a finite (a, b) table with a and b odd, got shape {shape}"
            )

    def taps(self) -> np.ndarray:
        """The kernel (a, b) float64, its centre in the middle."""
        if self.kernel is not None:
            return np.asarray(self.kernel, np.float64)
        reach = int(np.ceil(4 * self.std))
        line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / self.std) ** 2)
        return np.outer(line, line) / line.sum() ** 2

    def transfer(self, h: int, w: int) -> np.ndarray:
        """The factor of each frequency, complex (h, w // 2 + 1), for numpy.fft.rfft2."""
        taps = self.taps()
        a, b = (np.arange(n) - n // 2 for n in taps.shape)
        wrapped = np.zeros((h, w))
        np.add.at(wrapped, (a[:, None] % h, b[None] % w), taps)  # larger kernels wrap around
        return np.fft.rfft2(wrapped)

    def forward(self, x: jax.Array) -> jax.Array:
        """k * x."""
        return _filter(x, self.transfer(*x.shape[1:3]))

    def adjoint(self, y: jax.Array) -> jax.Array:
        """k(-.) * y."""
        return _filter(y, self.transfer(*y.shape[1:3]).conj())

    def start(self, y: jax.Array) -> jax.Array:
        """The blurred image itself."""
        return y


def _filter(x: jax.Array, factor: np.ndarray) -> jax.Array:
    spectrum = jnp.fft.rfft2(x, axes=(1, 2))
    spectrum = spectrum * jnp.asarray(factor, spectrum.dtype)[..., None]
    return jnp.fft.irfft2(spectrum, s=x.shape[1:3], axes=(1, 2)).astype(x.dtype)

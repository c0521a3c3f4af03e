"""Resize: the resizers that published distances were computed with (arXiv:2104.11222, Sec. 3).

A resizer is separable and linear, so it is two small matrices, made on the host in float64: one
along the rows, one along the columns. Those of Pillow clip, or round to whole grey levels after
each axis. All have half-pixel centres but the first:

    tf1-bilinear           TensorFlow 1: pixel i lies at i in/out, corners on corners, no antialias
    torch-bilinear         PyTorch `interpolate`: two nearest pixels, no antialias
    torch-bicubic          four nearest pixels, a = -0.75, no antialias
    bilinear-antialias     the triangle, as wide as the output's pixels
    bicubic-antialias      the cubic of a = -0.5, likewise: PyTorch's antialias=True
    pil-bicubic            the same, clipped to 0..255: Pillow on each channel in float, clean-fid
    pil-bicubic-uint8      the same, rounded after each axis: Pillow on uint8 images
    area                   the mean over the pixels that the output's pixel touches
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(1 - np.abs(x), 0)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' cubic: 1 at 0, 0 at the other whole numbers and outside of (-2, 2)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


KERNELS = {  # kernel, half its width
    "tf1-bilinear": (_bilinear, 1),
    "torch-bilinear": (_bilinear, 1),
    "torch-bicubic": (functools.partial(_cubic, a=-0.75), 2),
    "bilinear-antialias": (_bilinear, 1),
    "bicubic-antialias": (functools.partial(_cubic, a=-0.5), 2),
    "pil-bicubic": (functools.partial(_cubic, a=-0.5), 2),
    "pil-bicubic-uint8": (functools.partial(_cubic, a=-0.5), 2),
}
RESIZERS = (*KERNELS, "area")


@functools.lru_cache(maxsize=256)
def matrix(resizer: str, size: int, out: int, scale: float | None = None) -> np.ndarray:
    """The float64 matrix (out, size) of a resizer along one axis; rows sum to 1.

    Args:
      resizer: a name of RESIZERS. size, out: pixels. scale: pixels of the input for one of the
      output; None: size / out.
    Raises:
      ValueError: for another name, or no pixels.
    """
    if resizer not in RESIZERS:
        raise ValueError(f"there is no resizer {resizer!r}; the names are {list(RESIZERS)}")
    if size < 1 or out < 1:
        raise ValueError(f"a resizer takes and gives at least one pixel, got {size} and {out}")
    scale = size / out if scale is None else scale
    if resizer == "area":
        return _area(size, out)
    kernel, support = KERNELS[resizer]
    if "antialias" in resizer or "pil" in resizer:
        return _antialiased(kernel, support, size, out, scale)
    if resizer == "tf1-bilinear":  # float32, as there: which pixel is below depends on the rounding
        at = (np.arange(out, dtype=np.float32) * np.float32(scale)).astype(np.float64)
    else:
        at = (np.arange(out) + 0.5) * scale - 0.5
        at = np.maximum(at, 0) if support == 1 else at
    below = np.floor(at).astype(int)
    rows = np.zeros((out, size))
    for tap in range(1 - support, support + 1):
        pixel = np.clip(below + tap, 0, size - 1)
        np.add.at(rows, (np.arange(out), pixel), kernel(at - below - tap))
    return rows


def _area(size: int, out: int) -> np.ndarray:
    i, pixel = np.arange(out)[:, None], np.arange(size)
    inside = (pixel >= i * size // out) & (pixel < -(-(i + 1) * size // out))
    return inside / inside.sum(1, keepdims=True)


def _antialiased(kernel, support: int, size: int, out: int, scale: float) -> np.ndarray:
    """Kernels as wide as the output's pixels, normalised; those pixels that Pillow takes."""
    wide = max(scale, 1.0)
    centre = ((np.arange(out) + 0.5) * scale)[:, None]
    first = np.maximum(np.trunc(centre - support * wide + 0.5), 0)
    last = np.minimum(np.trunc(centre + support * wide + 0.5), size)
    pixel = np.arange(size)
    rows = kernel((pixel - centre + 0.5) / wide) * ((pixel >= first) & (pixel < last))
    return rows / rows.sum(1, keepdims=True)


def resize(x: jax.Array, shape: tuple[int, int], resizer: str) -> jax.Array:
    """Images x (n, h, w, c), floats in 0..255, resized to (n, *shape, c) float32.

    `pil-bicubic-uint8` has no gradient, and is exact where x is whole; the others are linear but
    for `pil-bicubic`, which clips. The resizer's matrices are part of the compiled program.
    Raises:
      ValueError: for an unknown resizer.
    """
    rows, columns = (matrix(resizer, n, o) for n, o in zip(x.shape[1:3], shape, strict=True))
    x = x.astype(jnp.float32)
    # Pillow resizes along the columns first; from version 13 not where the height shrinks far more.
    if resizer == "pil-bicubic-uint8":
        return _levels(_rows(_levels(_columns(x, columns)), rows))
    x = _columns(_rows(x, rows), columns)
    return jnp.clip(x, 0, 255) if resizer == "pil-bicubic" else x


def _rows(x: jax.Array, m: np.ndarray) -> jax.Array:
    if np.array_equal(m, np.eye(len(m))):
        return x
    return jnp.einsum("oh,nhwc->nowc", jnp.asarray(m, jnp.float32), x, precision="highest")


def _columns(x: jax.Array, m: np.ndarray) -> jax.Array:
    if np.array_equal(m, np.eye(len(m))):
        return x
    return jnp.einsum("ow,nhwc->nhoc", jnp.asarray(m, jnp.float32), x, precision="highest")


def _levels(x: jax.Array) -> jax.Array:
    """Whole grey levels, halves upwards."""
    return jnp.clip(jnp.floor(x + 0.5), 0, 255)

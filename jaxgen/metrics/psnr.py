"""PSNR: peak signal-to-noise ratio an image, in decibels, averaged over images (arXiv:1803.04189).

    PSNR = 10 log10(peak^2 / mean((x - y)^2)), the mean over one image's pixels and channels.

Denoising papers average the decibels of single images; pooling the squared errors first gives
another number. The 8-bit variant rounds and clips both images as a saved PNG would.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.common.units import to_uint8


def psnr(x: ArrayLike, y: ArrayLike, peak: float = 2.0) -> np.ndarray:
    """Decibels (n,) of images x, y (n, h, w, c); inf where they are equal.

    `peak` is the range of the values: 2 for images in [-1, 1], 255 for 8-bit values.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if x.shape != y.shape or x.ndim != 4:
        raise ValueError(
            f"psnr compares two stacks of images (n, h, w, c) of one shape, got {x.shape} and "
            f"{y.shape}"
        )
    error = np.mean((x - y) ** 2, axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(peak**2 / error)


def psnr_8bit(x: ArrayLike, y: ArrayLike) -> np.ndarray:
    """Decibels (n,) after both, images (n, h, w, c) in [-1, 1] or uint8, became 8-bit values."""
    eight = lambda z: z if z.dtype == np.uint8 else to_uint8(z)
    return psnr(eight(np.asarray(x)), eight(np.asarray(y)), peak=255.0)

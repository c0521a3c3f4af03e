"""Pictures for people: many images on one grid, and PNG files written whole or not at all."""

import math
import os
import pathlib
import tempfile

import numpy as np


def grid(
    images: np.ndarray, columns: int | None = None, scale: int | None = None, pad: int = 1
) -> np.ndarray:
    """Images in rows of `columns` on white.

    Args:
      images: uint8 (n, h, w, c), c = 1 or 3.
      columns: about a square when None.
      scale: each pixel becomes scale x scale pixels; when None, such that a tile has 64 or so.
      pad: white pixels between the tiles and around them.
    Returns:
      uint8 (rows * (h * scale + pad) + pad, columns * (w * scale + pad) + pad, c).
    Raises:
      ValueError: not uint8 images, or none.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
        raise ValueError(
            f"a grid needs uint8 images (n, h, w, 1 or 3), got {images.dtype} {images.shape}; "
            "jaxgen.common.units.to_uint8 makes them from [-1, 1]"
        )
    n, h, w, c = images.shape
    columns = columns or math.ceil(math.sqrt(n))
    if n < 1 or columns < 1:
        raise ValueError(f"a grid needs an image and a column at least, got {n} and {columns}")
    scale = scale or max(1, 64 // max(h, w))
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    h, w, rows = h * scale, w * scale, math.ceil(n / columns)
    tiles = np.full((rows * columns, h + pad, w + pad, c), 255, np.uint8)
    tiles[:n, pad:, pad:] = images
    sheet = tiles.reshape(rows, columns, h + pad, w + pad, c).swapaxes(1, 2)
    sheet = sheet.reshape(rows * (h + pad), columns * (w + pad), c)
    return np.pad(sheet, ((0, pad), (0, pad), (0, 0)), constant_values=255)


def save_png(array: np.ndarray, path: str | os.PathLike) -> None:
    """Writes uint8 (h, w), (h, w, 1) or (h, w, 3) as PNG, first beside `path` and then renamed."""
    from PIL import Image

    array = np.asarray(array)
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.dtype != np.uint8 or not (array.ndim == 2 or array.shape[2:] == (3,)):
        raise ValueError(
            f"a PNG is written from uint8 (h, w), (h, w, 1) or (h, w, 3), got {array.dtype} "
            f"{array.shape}"
        )
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            Image.fromarray(array).save(file, "PNG")
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        pathlib.Path(part).unlink(missing_ok=True)
        raise

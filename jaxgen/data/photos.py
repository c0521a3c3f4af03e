"""Photographs that come with packages: two in scikit-learn, eleven more in scikit-image's wheel.

The files are read where the packages lie; scikit-image is not imported, and nothing is downloaded.
A photograph is in one split for good, whether scikit-image is there or not, so that no crop of a
test photograph is trained on.
"""

import importlib.util
import pathlib

import numpy as np

from jaxgen.data.source import ArraySource, Source

PHOTOS = {  # name -> (package, file in it, split)
    "china": ("sklearn", "datasets/images/china.jpg", "train"),
    "flower": ("sklearn", "datasets/images/flower.jpg", "test"),
    "astronaut": ("skimage", "data/astronaut.png", "train"),
    "brick": ("skimage", "data/brick.png", "train"),
    "camera": ("skimage", "data/camera.png", "test"),
    "chelsea": ("skimage", "data/chelsea.png", "train"),
    "coffee": ("skimage", "data/coffee.png", "test"),
    "coins": ("skimage", "data/coins.png", "test"),
    "grass": ("skimage", "data/grass.png", "train"),
    "gravel": ("skimage", "data/gravel.png", "train"),
    "moon": ("skimage", "data/moon.png", "train"),
    "motorcycle": ("skimage", "data/motorcycle_left.png", "train"),
    "rocket": ("skimage", "data/rocket.jpg", "train"),
}


def package_folder(package: str) -> pathlib.Path | None:
    """Where a package lies, which is not imported; None when it is not installed."""
    spec = importlib.util.find_spec(package)
    return pathlib.Path(spec.submodule_search_locations[0]) if spec else None


def paths(split: str) -> dict[str, pathlib.Path]:
    """The files of a split that are on this machine, by the photograph's name."""
    found = {}
    for name, (package, file, part) in PHOTOS.items():
        folder = package_folder(package)
        if part == split and folder is not None and (folder / file).is_file():
            found[name] = folder / file
    return found


def crops(image: np.ndarray, size: int, stride: int) -> np.ndarray:
    """Squares (n, size, size, c) of an image (h, w, c) on a grid of `stride` pixels, in rows."""
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), (0, 1))
    kept = windows[::stride, ::stride]  # (rows, columns, c, size, size)
    return np.moveaxis(kept, 2, -1).reshape(-1, size, size, image.shape[-1])


def load(split: str, *, size: int = 128, stride: int = 0, grey: int = 0) -> Source:
    """Square crops of the photographs of a split, photograph after photograph.

    Args:
      size: of a crop in pixels. stride: from crop to crop; 0: half a crop for training, a whole one
        for testing. grey: 1: one channel, by Pillow's weights of the colours; 0: three.
    Raises:
      ValueError: a size that a photograph does not have, a negative stride, another `grey`.
      FileNotFoundError: the photographs are not where their packages keep them.
    """
    from jaxgen.data import images

    if grey not in (0, 1) or stride < 0:
        raise ValueError(f"photos: grey is 0 or 1 and stride >= 0, got {grey} and {stride}")
    files = paths(split)
    if not files:
        raise FileNotFoundError("photos: scikit-learn is not installed with its images")
    parts = []
    for name, path in files.items():
        image = images.read(path, 1 if grey else 3)
        h, w = image.shape[:2]
        if not 1 <= size <= min(h, w):
            raise ValueError(f"photos: size is 1 to {min(h, w)}, the sides of {name}, got {size}")
        parts.append(crops(image, size, stride or (max(size // 2, 1), size)[split == "test"]))
    return ArraySource(np.concatenate(parts), name="photos", split=split)

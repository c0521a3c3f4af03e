"""Arrays in files: one .npz of images and labels, or image sheets cut into tiles."""

import pathlib
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from jaxgen.common import npz
from jaxgen.data.source import ArraySource, Source, split_off


def load_npz(where: str, split: str, *, holdout: float = 0.1, dtype: str = "uint8") -> Source:
    """A .npz with `image` (n, h, w, c) or (n, h, w) of this dtype, and optionally `label`.

    dtype is uint8, or float32 for what is no picture of 0..255 (moments of latents).

    The names `images` and `labels` do as well. Integer labels (n,) are classes; others (n, k) are
    vectors. A fixed `holdout` of it (0..1) is the test split.
    """
    path = pathlib.Path(where)
    found = npz.read(path, ("image", "images", "label", "labels"))
    images, labels = _entry(found, "image", path), _entry(found, "label", path)
    if images is None:
        raise ValueError(f"{path}: has no array 'image' or 'images'; save one with np.savez")
    if images.ndim == 3:
        images = images[..., None]
    if dtype not in ("uint8", "float32") or images.dtype != dtype or images.ndim != 4:
        raise ValueError(
            f"{path}: images must be {dtype} (n, h, w, c) or (n, h, w), got {images.dtype} "
            f"{images.shape}; scale them to 0..255 and save them as uint8, or say ?dtype=float32 "
            "for what is no picture"
        )
    return split_off(ArraySource(images, labels, name=path.stem), split, holdout)


def _entry(found: dict[str, np.ndarray], name: str, path: pathlib.Path) -> np.ndarray | None:
    names = [n for n in (name, name + "s") if n in found]
    if len(names) > 1:
        raise ValueError(f"{path}: has both {names[0]!r} and {names[1]!r}")
    return found[names[0]] if names else None


def load_sheets(where: str, split: str, *, tile: int = 32, holdout: float = 0.1) -> Source:
    """Sheets SPLIT_00.webp, SPLIT_01.webp, ... of square tiles in rows, with labels.npz.

    Tiles are read left to right, top to bottom, sheet after sheet. labels.npz holds one array a
    split, in the same order; when it is longer, the sheets after the last present one are taken to
    be absent; when it ends within the last sheet, the tiles after it are empty. Without test sheets
    a fixed `holdout` of the train ones is the test split.

    Args:
      tile: side of a tile in pixels.
    """
    root = pathlib.Path(where)
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder of image sheets")
    sheets = {s: _sheets(root, s) for s in ("train", "test")}
    official = bool(sheets["test"])
    prefix = split if official else "train"
    if not sheets[prefix]:
        raise FileNotFoundError(
            f"{root}: no sheets {prefix}_00.webp, {prefix}_01.webp, ... (or .png) in it"
        )
    with ThreadPoolExecutor(4) as pool:  # a second or two of many starts
        tiles = list(pool.map(lambda path: _cut(path, tile), sheets[prefix]))
    images = np.concatenate(tiles)
    labels = label_dim = None
    if (root / "labels.npz").is_file():
        file = npz.read(root / "labels.npz")
        if prefix not in file or not file[prefix].ndim:
            raise ValueError(f"{root / 'labels.npz'}: no array {prefix!r}, got {sorted(file)}")
        labels = file[prefix][: len(images)]
        if labels.ndim == 1 and labels.dtype.kind in "iu":
            label_dim = 1 + max(int(file[s].max(initial=0)) for s in file if s in sheets)
        if len(labels) <= len(images) - len(tiles[-1]):
            raise ValueError(
                f"{root}: {len(labels)} {prefix} labels for {len(images)} tiles of {tile} pixels; "
                "only the last sheet may have empty tiles (is ?tile= right?)"
            )
        images = images[: len(labels)]
    whole = ArraySource(images, labels, name=root.resolve().name, split=prefix, label_dim=label_dim)
    return whole if official else split_off(whole, split, holdout)


def _sheets(root: pathlib.Path, prefix: str) -> list[pathlib.Path]:
    """The sheets of a split in the order of their numbers, which must be 0, 1, 2, ..."""
    pattern = re.compile(rf"{prefix}_(\d+)\.(webp|png)")
    found = sorted((int(m[1]), p) for p in root.iterdir() if (m := pattern.fullmatch(p.name)))
    numbers = [n for n, _ in found]
    if numbers != list(range(len(numbers))):
        raise ValueError(
            f"{root}: sheets of {prefix} must be numbered 0, 1, 2, ... without gaps or repeats, "
            f"got {numbers}; a missing one would shift all labels after it"
        )
    return [p for _, p in found]


def _cut(path: pathlib.Path, tile: int) -> np.ndarray:
    """uint8 (n, tile, tile, c) from one sheet."""
    from jaxgen.data import images

    sheet = images.read(path)
    h, w, c = sheet.shape
    if tile < 1 or h % tile or w % tile:
        raise ValueError(
            f"{path}: a sheet of {h}x{w} pixels cannot be cut into tiles of {tile}; set ?tile="
        )
    rows = sheet.reshape(h // tile, tile, w // tile, tile, c).swapaxes(1, 2)
    return rows.reshape(-1, tile, tile, c)

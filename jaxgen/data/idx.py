"""IDX files: big-endian arrays as MNIST and its successors are stored, plain or gzipped."""

import gzip
import math
import pathlib

import numpy as np

from jaxgen.data.source import ArraySource, Source

_STEM = {"train": "train", "test": "t10k"}


def read(path: str | pathlib.Path) -> np.ndarray:
    """The uint8 array of an IDX file (magic 00 00 08 ndim, then sizes as big-endian uint32).

    Raises:
      ValueError: not such a file, or its length does not fit its sizes.
      OSError: unreadable or damaged gzip.
    """
    data = pathlib.Path(path).read_bytes()
    if data[:2] == b"\x1f\x8b":
        try:
            data = gzip.decompress(data)
        except (EOFError, OSError, ValueError) as e:
            raise OSError(f"{path}: damaged gzip file ({e}); get it again") from e
    if data[:3] != b"\x00\x00\x08" or len(data) < 4:
        raise ValueError(
            f"{path}: an IDX file of bytes begins with 00 00 08, got {data[:3].hex(' ')!r}"
        )
    ndim = data[3]
    shape = tuple(int(n) for n in np.frombuffer(data[4 : 4 + 4 * ndim], ">u4"))
    body = data[4 + 4 * ndim :]
    if len(shape) != ndim or len(body) != math.prod(shape):
        raise ValueError(
            f"{path}: the header says {shape} = {math.prod(shape)} bytes, got {len(body)}; "
            "the file is cut or damaged, get it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def find(where: str | pathlib.Path, split: str, what: str) -> pathlib.Path | None:
    """The file of `what` ("images" or "labels") in a folder, in any of its usual spellings."""
    ndim = 3 if what == "images" else 1
    for dot in "-.":
        for suffix in ("", ".gz"):
            path = pathlib.Path(where, f"{_STEM[split]}-{what}{dot}idx{ndim}-ubyte{suffix}")
            if path.is_file():
                return path
    return None


def load(where: str, split: str, *, name: str = "") -> Source:
    """A folder with {train,t10k}-{images-idx3,labels-idx1}-ubyte[.gz]."""
    paths = {what: find(where, split, what) for what in ("images", "labels")}
    missing = [
        f"{_STEM[split]}-{what}-idx{3 if what == 'images' else 1}-ubyte[.gz]"
        for what, path in paths.items()
        if path is None
    ]
    if missing:
        raise FileNotFoundError(f"no {' and no '.join(missing)} in {where}")
    images, labels = read(paths["images"]), read(paths["labels"])
    if images.ndim != 3 or labels.ndim != 1:
        raise ValueError(
            f"{paths['images']}: expected images (n, h, w) and labels (n,), got {images.shape} and "
            f"{labels.shape}"
        )
    name = name or pathlib.Path(where).resolve().name
    both = [find(where, s, "labels") for s in _STEM]
    label_dim = 1 + max(int(read(path).max(initial=0)) for path in both if path)
    return ArraySource(images[..., None], labels, name=name, split=split, label_dim=label_dim)

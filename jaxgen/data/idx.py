"""IDX files: big-endian arrays as MNIST and its successors are stored, plain or gzipped."""

import gzip
import math
import pathlib
import zlib
from typing import IO

import numpy as np

from jaxgen.common import npz
from jaxgen.data.source import ArraySource, Source

_STEM = {"train": "train", "test": "t10k"}


def read(path: str | pathlib.Path) -> np.ndarray:
    """The uint8 array of an IDX file (magic 00 00 08 ndim, then sizes as big-endian uint32).

    Raises:
      ValueError: not such a file, its length does not fit its sizes, or a gzip that unpacks to more
        than npz.UNPACKED bytes and npz.RATIO times its size.
      OSError: unreadable or damaged gzip.
    """
    size = pathlib.Path(path).stat().st_size
    with open(path, "rb") as plain:
        packed = plain.read(2) == b"\x1f\x8b"
        plain.seek(0)
        f = gzip.GzipFile(fileobj=plain) if packed else plain
        try:
            head = f.read(4)
            if head[:3] != b"\x00\x00\x08" or len(head) < 4 or head[3] > 8:
                raise ValueError(
                    f"{path}: an IDX file of bytes begins with 00 00 08, got {head[:3].hex(' ')!r}"
                    f" and {head[3:].hex() or 'no'} dimensions"
                )
            ndim = head[3]
            sizes = _take(f, 4 * ndim)
            shape = tuple(int(n) for n in np.frombuffer(sizes.ljust(4 * ndim, b"\0"), ">u4"))
            wanted = math.prod(shape)
            limit = max(npz.UNPACKED, npz.RATIO * size) if packed else size
            body = _take(f, wanted + 1) if wanted <= limit else b""
        except (EOFError, gzip.BadGzipFile, zlib.error) as e:
            raise OSError(f"{path}: damaged gzip file ({e}); get it again") from e
    if len(sizes) < 4 * ndim or len(body) != wanted:
        raise ValueError(
            f"{path}: the header says {shape} = {wanted} bytes, got "
            + (f"{len(body)}" if wanted <= limit else f"a file of {size}")
            + "; the file is cut or damaged, get it again"
        )
    return np.frombuffer(body, np.uint8).reshape(shape)


def _take(f: IO[bytes], n: int) -> bytes:
    """So many bytes, or what there is of them; nothing is allocated beforehand."""
    found = bytearray()
    while part := f.read(min(n - len(found), 1 << 20)):
        found += part
    return bytes(found)


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

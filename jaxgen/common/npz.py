"""Arrays in .npz files, of which nothing is run and nothing is allocated that the file cannot fill.

numpy's own reader allocates what a header asks for, however small the file is. Here the members of
the archive and the header of each array are compared with each other and with the file first.
"""

import math
import struct
import zipfile
import zlib
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import numpy as np

UNPACKED = 1 << 30  # bytes that any archive may unpack to; a larger one to 20 times its own size
RATIO = 20
KINDS = "fiubU"  # of numpy's types: numbers, bools and texts
DAMAGED = (
    ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, NotImplementedError,
    OSError, RecursionError, RuntimeError, TypeError, struct.error, zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read(path: str | Path, only: Collection[str] | None = None) -> dict[str, np.ndarray]:
    """The arrays of a .npz by name; of those in `only`, others are not unpacked.

    Raises:
      FileNotFoundError: no such file.
      ValueError: naming the file: damaged, an archive of something else, or one that unpacks to
        more than UNPACKED bytes and RATIO times its size.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    found = {}
    try:
        with zipfile.ZipFile(path) as archive:
            size = path.stat().st_size
            for member in members(archive, size, max(UNPACKED, RATIO * size)):
                name = member.removesuffix(".npy")
                if only is None or name in only:
                    with archive.open(member) as f:
                        found[name] = array(f, name, archive.getinfo(member).file_size)
    except (ValueError, *DAMAGED) as e:
        raise ValueError(f"{path}: not a readable .npz file of arrays ({e})") from e
    return found


def members(
    archive: zipfile.ZipFile, size: int, limit: int, stored: bool = False
) -> dict[str, zipfile.ZipInfo]:
    """The members by name, when nothing in the list of them is a trick.

    Args:
      size: bytes of the archive. limit: bytes that it may unpack to. stored: none is compressed.
    Raises:
      ValueError: names that point outside or are there twice, encryption, a bomb.
    """
    found: dict[str, zipfile.ZipInfo] = {}
    for m in archive.infolist():
        name = m.filename
        if name in found or name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ValueError(f"refused: an archive with a member {name[:80]!r}")
        if m.flag_bits & 1 or (stored and m.compress_type != zipfile.ZIP_STORED):
            raise ValueError(f"refused: the member {name[:80]!r} is compressed or encrypted")
        found[name] = m
    total = sum(m.file_size for m in found.values())
    if total > limit:
        raise ValueError(f"refused: an archive of {size} bytes that unpacks to {total}")
    return found


def array(f: IO[bytes], name: str, size: int) -> np.ndarray:
    """The array of a .npy of `size` bytes, after its header has been compared with that.

    Args:
      f: can seek, and stands at its beginning.
    Raises:
      ValueError: no such array, objects or records, a shape of other bytes.
    """
    headers: dict[Any, Any] = {(1, 0): np.lib.format.read_array_header_1_0}
    headers[2, 0] = np.lib.format.read_array_header_2_0
    version = np.lib.format.read_magic(f)
    if version not in headers:
        raise ValueError(f"{name}: a .npy array of version {version}")
    shape, _, dtype = headers[version](f)
    if dtype.hasobject or dtype.kind not in KINDS:
        raise ValueError(f"refused: {name} holds {str(dtype)[:40]}, not numbers")
    if min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != size - f.tell():
        raise ValueError(f"refused: {name} says it has shape {shape}, and has other bytes")
    f.seek(0)
    return np.lib.format.read_array(f, allow_pickle=False)

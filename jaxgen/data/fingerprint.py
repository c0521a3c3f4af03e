"""A short name for the content of a source, the same wherever and however it is read."""

import hashlib
import json
from typing import Any

import numpy as np

from jaxgen.data.source import Source

SAMPLED = 256  # images that stand for a set that is not in memory


def fingerprint(source: Source) -> str:
    """sha256 (hex) of a source's facts, length, images and labels.

    In memory every image counts. Of a set that is read from disk the first, the last and 254 at
    even distances between them do: a changed order, number, size or decoder shows, a single
    changed image may not. So the two forms of one set have different fingerprints; which one it is
    depends on the size of the set alone (data.source.in_memory).
    """
    facts = {k: v for k, v in source.facts.items() if k not in ("split", "dtype")}
    digest = hashlib.sha256(json.dumps([facts, len(source)], default=list).encode())
    if source.arrays is not None:
        for array in filter(lambda x: x is not None, source.arrays):
            _add(digest, array)
        return digest.hexdigest()
    for i in np.unique(np.linspace(0, len(source) - 1, SAMPLED).round().astype(int)):
        item = source[int(i)]
        for name in sorted(item):
            _add(digest, item[name])
    return digest.hexdigest()


def _add(digest: Any, array: np.ndarray) -> None:
    array = np.ascontiguousarray(array)
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(array.data)

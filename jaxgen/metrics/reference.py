"""Reference: features or moments of real images in a file, with the facts that they depend on.

A file is an npz with the arrays, their sha256 and the facts as JSON. One whose facts are not those
that are asked for, or that is damaged, is not read.
"""

import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxgen.common import npz
from jaxgen.metrics.moments import Moments

FORMAT = 1
Value = np.ndarray | Moments


def key(facts: Mapping[str, Any]) -> str:
    """16 hex digits that change with any fact."""
    return hashlib.sha256(_text(facts).encode()).hexdigest()[:16]


def _text(facts: Mapping[str, Any]) -> str:
    return json.dumps({"format": FORMAT, **facts}, sort_keys=True)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        digest.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
    return digest.hexdigest()


def save(path: pathlib.Path, facts: Mapping[str, Any], value: Value) -> None:
    """Writes features (n, d) or moments, first beside `path` and then renamed."""
    if isinstance(value, Moments):
        count = np.array([value.count])
        arrays = {"count": count, "mean": value.mean, "scatter": value.scatter}
    else:
        arrays = {"features": np.asarray(value)}
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            np.savez(file, facts=_text(facts), sha256=_digest(arrays), **arrays)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        pathlib.Path(part).unlink(missing_ok=True)
        raise


def load(path: pathlib.Path, facts: Mapping[str, Any]) -> Value:
    """What `save` wrote.

    Raises:
      ValueError: damaged; of other facts, naming each that differs with both sides.
      OSError: not there.
    """
    try:
        arrays = npz.read(path)
        saved = json.loads(str(arrays.pop("facts")))
        digest = str(arrays.pop("sha256"))
        if not isinstance(saved, dict):
            raise ValueError("its facts are no JSON object")
    except (ValueError, KeyError, RecursionError) as e:
        raise ValueError(f"{path} is damaged or no reference file ({e}); delete it") from e
    wanted = json.loads(_text(facts))
    if lines := differences(saved, wanted):
        raise ValueError(
            f"{path} was made of something else (file -> asked for):\n  " + "\n  ".join(lines)
        )
    if digest != _digest(arrays):
        raise ValueError(
            f"{path} is damaged: its arrays have sha256 {_digest(arrays)[:16]}, and {digest[:16]} "
            "was written; delete it"
        )
    shapes = {n: x.shape for n, x in arrays.items()}
    if shapes.keys() == {"features"} and len(shapes["features"]) == 2:
        return arrays["features"]
    d = arrays["mean"].size if "mean" in arrays else 0
    if shapes != {"count": (1,), "mean": (d,), "scatter": (d, d)}:
        raise ValueError(f"{path}: neither features (n, d) nor moments, but {shapes}; delete it")
    value = Moments(d)
    value.count = int(arrays["count"][0])
    value.mean, value.scatter = arrays["mean"], arrays["scatter"]
    return value


def differences(one: Mapping[str, Any], two: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Lines "net.name: pixels -> random" of facts that are not equal."""
    lines = []
    for name in sorted({*one, *two}):
        a, b = one.get(name), two.get(name)
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{prefix}{name}.")
        elif a != b:
            lines.append(f"{prefix}{name}: {a} -> {b}")
    return lines

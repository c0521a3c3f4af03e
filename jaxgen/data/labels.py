"""Labels of a list of image files: from their subfolders, or from a CSV or JSON file.

CSV: the file's path relative to the folder, then one value (a class number or a class name) or
several (a vector); a first row that begins with file, filename, path or image is a header.
JSON: {"path": value, ...} or {"labels": [["path", value], ...]}; a value is a class number, a class
name, or a list of numbers (a vector).
"""

import csv
import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data.source import CLASSES

_HEADERS = ("file", "filename", "path", "image")


class Labels(NamedTuple):
    """kind: "class", "vector" or "none"; values: int32 (n,) or float32 (n, k) or None."""

    kind: str = "none"
    values: np.ndarray | None = None
    dim: int = 0
    class_names: tuple[str, ...] | None = None


def find(folder: pathlib.Path, given: str | pathlib.Path = "") -> pathlib.Path | None:
    """The label file: the one given (as it is, or inside the folder), labels.csv or labels.json."""
    if given:
        for path in (pathlib.Path(given), folder / given):
            if path.is_file():
                return path
        raise FileNotFoundError(f"no label file {given} here or in {folder}")
    found = [p for n in ("labels.csv", "labels.json") if (p := folder / n).is_file()]
    if len(found) > 1:
        raise ValueError(f"{folder} has both labels.csv and labels.json; name one with labels=")
    return found[0] if found else None


def from_folders(files: Sequence[str]) -> Labels:
    """Class = first folder of the relative path; no labels when all files lie at the top.

    Raises:
      ValueError: when some files lie in subfolders and some do not.
    """
    tops = [f.partition("/")[0] if "/" in f else None for f in files]
    loose = [f for f, top in zip(files, tops) if top is None]
    if len(loose) == len(files):
        return Labels()
    if loose:
        raise ValueError(
            f"{len(loose)} images lie beside the class folders: {_some(loose)}; move them into "
            "one, or give the labels in labels.csv"
        )
    return _from_values(tops, "the class folders")


def from_file(path: pathlib.Path, files: Sequence[str]) -> Labels:
    """Labels of `files` (relative paths) from a CSV or JSON file; other rows must not exist.

    Raises:
      ValueError: not such a file; images without a label; labels without an image.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        rows = _read_json(text) if path.suffix.lower() == ".json" else _read_csv(text)
    except (ValueError, TypeError, KeyError, csv.Error, RecursionError) as e:
        raise ValueError(
            f"{path}: not labels ({e}); a CSV has rows file,label and a JSON "
            '{"file": label, ...} or {"labels": [["file", label], ...]}'
        ) from e
    values = dict(rows)
    if len(values) != len(rows):
        raise ValueError(f"{path}: {len(rows) - len(values)} files are named more than once")
    missing = [f for f in files if f not in values]
    extra = sorted(set(values) - set(files))
    if missing or extra:
        raise ValueError(
            f"{path}: {len(missing)} images have no label ({_some(missing)}) and {len(extra)} "
            f"labels have no image ({_some(extra)}); paths are relative to the image folder, such "
            f"as {files[0]!r}"
        )
    return _from_values([values[f] for f in files], str(path))


def _read_csv(text: str) -> list[tuple[str, Any]]:
    table = [row for row in csv.reader(text.splitlines()) if row]
    if table and table[0][0].strip().lower() in _HEADERS:
        table = table[1:]
    widths = {len(row) for row in table}
    if len(widths) != 1 or min(widths) < 2:
        raise ValueError(f"every row needs a file and the same number of values, got {widths}")
    if widths != {2}:
        return [(_posix(row[0]), [float(v) for v in row[1:]]) for row in table]
    cells = [row[1].strip() for row in table]
    for as_type in (int, float):
        try:
            return [(_posix(row[0]), as_type(cell)) for row, cell in zip(table, cells)]
        except ValueError:
            continue
    return [(_posix(row[0]), cell) for row, cell in zip(table, cells)]


def _read_json(text: str) -> list[tuple[str, Any]]:
    data = json.loads(text)
    if isinstance(data, dict) and isinstance(data.get("labels"), list):
        data = data["labels"]
    pairs = data.items() if isinstance(data, dict) else data
    return [(_posix(name), value) for name, value in pairs]


def _posix(name: str) -> str:
    if not isinstance(name, str):
        raise ValueError(f"a file's name is a text, got {str(name)[:40]}")
    return name.strip().replace("\\", "/").removeprefix("./")


def _from_values(values: list[Any], where: str) -> Labels:
    if all(isinstance(v, str) for v in values):
        names = tuple(sorted(set(values)))
        place = {name: i for i, name in enumerate(names)}
        return Labels("class", np.array([place[v] for v in values], np.int32), len(names), names)
    if all(isinstance(v, int) and not isinstance(v, bool) for v in values):
        if min(values) < 0:
            raise ValueError(f"{where}: class numbers must not be negative, got {min(values)}")
        if max(values) >= CLASSES:
            raise ValueError(f"{where}: class numbers must be below {CLASSES}")
        return Labels("class", np.array(values, np.int32), max(values) + 1)
    try:
        array = np.array(values, np.float32).reshape(len(values), -1)
    except (ValueError, TypeError, OverflowError, RecursionError) as e:
        raise ValueError(
            f"{where}: labels must be all class numbers, all class names, or all lists of numbers "
            "of one length"
        ) from e
    if not np.isfinite(array).all():
        raise ValueError(f"{where}: label vectors must be finite")
    return Labels("vector", array, array.shape[1])


def _some(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "") if names else "none"

"""Sources by name: `load("digits")`, `load("folder:pictures")`, `load("npz:x.npz?holdout=0.2")`.

A spec is `kind`, or `kind:where`, followed by options `?key=value&key=value`. Splits are "train"
and "test". A set without an official test split holds out a fixed tenth (option `holdout`).
"""

import difflib
import inspect
import os
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxgen.data import arrays, digits, folder, idx, named, phantoms, photos, synthetic, tfds
from jaxgen.data.source import Source, check


class Kind(NamedTuple):
    """How to open one kind: `open([where,] split, **options)`; `where` is its name in the help."""

    open: Callable[..., Source]
    where: str
    about: str


KINDS = {
    "digits": Kind(digits.load, "", "8x8 digits that ship inside scikit-learn"),
    "mnist": Kind(named.mnist, "", "28x28 digits, IDX files or tfds"),
    "fashion_mnist": Kind(named.fashion_mnist, "", "28x28 clothes, IDX files or tfds"),
    "cifar10": Kind(named.cifar10, "", "32x32 photos, sheets or tfds"),
    "bsd400": Kind(named.bsd400, "", "180x180 grey photos, tested on BSD68"),
    "photos": Kind(photos.load, "", "crops of the photos that ship in scikit-learn (and -image)"),
    "folder": Kind(folder.load, "DIR", "images; class = subfolder, or labels.csv / labels.json"),
    "npz": Kind(arrays.load_npz, "FILE", "arrays image and label"),
    "idx": Kind(idx.load, "DIR", "IDX files as MNIST has them"),
    "sheets": Kind(arrays.load_sheets, "DIR", "tiled image sheets PREFIX_00.webp + labels.npz"),
    "tfds": Kind(tfds.load, "NAME", "a prepared tfds set (array_record; no TensorFlow)"),
    "tfds_dir": Kind(tfds.load_dir, "DIR", "a tfds folder, as `jaxgen data prepare` writes"),
    "phantoms": Kind(phantoms.load, "", "tomography: random ellipses or Shepp-Logan, 2-D or 3-D"),
    "mixture2d": Kind(synthetic.load, "NAME", "2-D points: ring, grid or spiral"),
}


def load(spec: str, split: str = "train", **options: Any) -> Source:
    """Opens a data set.

    Args:
      spec: "kind[:where][?key=value&...]", such as "digits", "folder:pictures" or
        "tfds:cifar10"; KINDS lists the kinds.
      split: "train" or "test".
      **options: the same options as in the spec (they win over it).
    Returns:
      A checked source; `in_memory(source)` decodes it once when it fits.
    Raises:
      ValueError: unknown kind, option or split, or a set that is not well formed.
      OSError: missing or unreadable files.
    """
    if split not in ("train", "test"):
        raise ValueError(f"split must be 'train' or 'test', got {split!r}")
    kind, where, given = parse(spec)
    return check(KINDS[kind].open(*where, split, **_convert(kind, given | options)))


def parse(spec: str) -> tuple[str, tuple[str, ...], dict[str, str]]:
    """Kind, its place as () or (where,), and options of a spec."""
    head, _, tail = spec.partition("?")
    name, _, where = head.partition(":")
    if name not in KINDS:
        raise ValueError(_unknown(spec, name))
    if bool(where) != bool(KINDS[name].where):
        form = f"{name}:{KINDS[name].where}" if KINDS[name].where else name
        raise ValueError(f"the data set {spec!r} should be written {form}")
    options = {}
    for pair in filter(None, tail.split("&")):
        key, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"options of a data set are ?key=value&key=value, got {pair!r}")
        options[key] = value
    return name, (where,) if where else (), options


def _unknown(spec: str, name: str) -> str:
    hint = ""
    if pathlib.Path(spec).is_dir():
        hint = f"; did you mean folder:{spec}?"
    elif os.path.exists(spec) and spec.endswith(".npz"):
        hint = f"; did you mean npz:{spec}?"
    elif near := difflib.get_close_matches(name, KINDS, 1):
        hint = f"; did you mean {near[0]}?"
    return f"unknown data set {spec!r}{hint}\nthe kinds are:\n{describe()}"


def describe() -> str:
    """One line a kind."""
    forms = {k: f"{k}:{v.where}" if v.where else k for k, v in KINDS.items()}
    return "\n".join(f"  {forms[k]:<15} {KINDS[k].about}" for k in KINDS)


def _convert(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """Options as the types of the opener's keyword-only arguments; an unknown one is an error."""
    parameters = inspect.signature(KINDS[kind].open).parameters
    known = {k: p.annotation for k, p in parameters.items() if p.kind is p.KEYWORD_ONLY}
    out = {}
    for key, value in options.items():
        if key not in known:
            near = difflib.get_close_matches(key, known, 1)
            raise ValueError(
                f"{kind} has no option {key!r}"
                + (f" (did you mean {near[0]!r}?)" if near else "")
                + f"; its options: {', '.join(known) or 'none'}"
            )
        try:
            out[key] = known[key](value)
        except ValueError:
            raise ValueError(
                f"option {key} of {kind} must be {known[key].__name__}, got {value!r}"
            ) from None
    return out

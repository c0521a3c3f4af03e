"""A folder of images of one size: class by subfolder, or labels from a CSV or JSON file."""

import os
import pathlib
from collections import Counter
from collections.abc import Sequence

import numpy as np

from jaxgen.data import images
from jaxgen.data.images import Look
from jaxgen.data.labels import Labels, find, from_file, from_folders
from jaxgen.data.source import Item, Source, split_off


def scan(folder: str | pathlib.Path, given: str | pathlib.Path = "") -> tuple[list[str], Labels]:
    """The image files below a folder (relative, sorted, hidden ones left out) and their labels.

    Raises:
      FileNotFoundError: no such folder, or no image in it.
      ValueError: labels that do not fit; a folder that links show twice.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    files, seen = [], {}
    for where, folders, names in os.walk(root, followlinks=True):
        found = os.stat(where)
        first = seen.setdefault((found.st_dev, found.st_ino), where)
        if first is not where:  # links in a circle never end, and others show images twice
            raise ValueError(f"{where} is the same folder as {first}; remove the link")
        folders[:] = [d for d in folders if not d.startswith(".")]
        for name in names:
            if name.lower().endswith(images.SUFFIXES) and not name.startswith("."):
                files.append(pathlib.Path(where, name).relative_to(root).as_posix())
    if not files:
        raise FileNotFoundError(f"no images ({' '.join(images.SUFFIXES)}) in {root} or below it")
    files.sort()
    path = find(root, given)
    return files, from_file(path, files) if path else from_folders(files)


def faults(files: Sequence[str], looks: Sequence[Look], any_size: bool) -> tuple[dict, dict]:
    """What keeps files from being one data set: ({file: error}, {file: size}).

    The first are unreadable; the second, empty when `any_size`, differ from the commonest size.
    """
    bad = {f: x.error for f, x in zip(files, looks) if x.error}
    sizes = Counter(x.size for x in looks if not x.error)
    if any_size or not sizes:
        return bad, {}
    common = sizes.most_common(1)[0][0]
    return bad, {f: x.size for f, x in zip(files, looks) if not x.error and x.size != common}


def explain(folder: object, bad: dict, odd: dict, common: tuple[int, int], advice: str) -> str:
    """The message for `faults`, naming every file (the first 1000 of each kind)."""
    lines = []
    if bad:
        lines += [f"{len(bad)} images in {folder} cannot be used:"]
        lines += _listed(f"  {f}: {error}" for f, error in bad.items())
    if odd:
        lines += [f"{len(odd)} images in {folder} are not {common[0]}x{common[1]} like most:"]
        lines += _listed(f"  {f}: {h}x{w}" for f, (h, w) in odd.items())
    return "\n".join([*lines, advice])


def _listed(lines, most: int = 1000) -> list[str]:
    lines = list(lines)
    return lines[:most] + ([f"  ... and {len(lines) - most} more"] if len(lines) > most else [])


class FolderSource(Source):
    """Images decoded when asked for."""

    def __init__(self, root: pathlib.Path, files: list[str], found: Labels, **facts):
        kind, self._values, dim, names = found
        super().__init__(label_kind=kind, label_dim=dim, class_names=names, **facts)
        self.root, self.files = root, files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int) -> Item:
        path = self.root / self.files[i]
        image = images.read(path, self.shape[2])
        if image.shape != self.shape:
            raise ValueError(f"{path}: expected an image of {self.shape}, got {image.shape}")
        item = {"image": image}
        if self._values is not None:
            item["label"] = np.asarray(self._values[i])
        return item


def load(where: str, split: str, *, labels: str = "", holdout: float = 0.1) -> Source:
    """A folder of images of one size, below it any depth of folders.

    When it has folders train and test, these are the splits and each is read as such a folder;
    otherwise a fixed `holdout` of it (0..1) is the test split. The class of an image is its first
    subfolder; labels.csv or labels.json in the folder, or the file `labels`, goes before that. If
    all images are grey, c = 1; if any has colour, 3. Transparent pixels are laid over white.

    Raises:
      ValueError: naming all files that are unreadable (by their headers) or of another size.
    """
    root = pathlib.Path(where)
    official = (root / "train").is_dir() and (root / "test").is_dir()
    if official:
        folder = root / split
        parts = {s: scan(root / s, labels) for s in ("train", "test")}
        files, found = parts[split][0], _same_labels(root, parts, split)
    else:
        folder = root
        files, found = scan(root, labels)
    looks = images.look_all([folder / f for f in files], decode=False)
    bad, odd = faults(files, looks, any_size=False)
    size = Counter(x.size for x in looks if not x.error).most_common(1)
    if bad or odd:
        advice = (
            f"make one size of them with: jaxgen data prepare {folder} --out X --size 64 "
            "(add --skip_bad to leave unreadable ones out)"
        )
        raise ValueError(explain(folder, bad, odd, size[0][0] if size else (0, 0), advice))
    channels = max(images.channels_of(x.mode) for x in looks)
    shape = (*size[0][0], channels)
    whole = FolderSource(folder, files, found, name=root.resolve().name, shape=shape, split=split)
    if official:
        return whole
    return split_off(whole, split, holdout, found.values if found.kind == "class" else None)


def _same_labels(root: pathlib.Path, parts: dict, split: str) -> Labels:
    """The labels of one official split, after checking that the other has the same classes."""
    train, test = parts["train"][1], parts["test"][1]
    ours, theirs = ((x.kind, x.class_names or x.kind == "class" or x.dim) for x in (train, test))
    if ours != theirs:
        raise ValueError(f"{root}: train and test have different labels: {ours} and {theirs}")
    return parts[split][1]._replace(dim=max(train.dim, test.dim))

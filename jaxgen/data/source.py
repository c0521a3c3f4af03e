"""A source: random access to images with labels, held in memory as one array when it fits.

`source[i]` is `{"image": uint8 (h, w, c), "label": int32 () or float32 (k,)}`; "label" is left out
when a set has none. Synthetic sets hold float32 in place of uint8 and say so in `dtype`.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

CLASSES = 1_000_000  # more are a mistake, and tables of all classes would fill the memory
Item = dict[str, np.ndarray]


class Source:
    """Base of all sources: the facts, and `len(source)`, `source[i]` from the subclass.

    name: short name of the set ("digits"). split: "train" or "test". shape: (h, w, c).
    label_kind: "class" (integers below `label_dim`), "vector" (float32 of width `label_dim`) or
    "none" (`label_dim` 0). class_names: one name a class, or None. dtype: uint8, or float32 for
    synthetic sets (nominally of standard deviation 0.5, not scaled to 0..255).
    """

    def __init__(
        self,
        *,
        name: str,
        shape: tuple[int, int, int],
        split: str = "",
        label_kind: str = "none",
        label_dim: int = 0,
        class_names: Sequence[str] | None = None,
        dtype: Any = np.uint8,
    ):
        self.name, self.split = name, split
        self.shape = tuple(int(n) for n in shape)
        self.label_kind, self.label_dim = label_kind, int(label_dim)
        self.class_names = None if class_names is None else tuple(class_names)
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, i: int) -> Item:
        raise NotImplementedError

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray | None] | None:
        """(images (n, h, w, c), labels (n,) or (n, k) or None) when held in memory, else None."""
        return None

    @property
    def facts(self) -> dict[str, Any]:
        """The keyword arguments that describe this source (of another source made from it)."""
        return {
            "name": self.name,
            "split": self.split,
            "shape": self.shape,
            "label_kind": self.label_kind,
            "label_dim": self.label_dim,
            "class_names": self.class_names,
            "dtype": self.dtype,
        }

    def __repr__(self) -> str:
        labels = "no labels" if self.label_kind == "none" else f"{self.label_dim} {self.label_kind}"
        shape = "x".join(map(str, self.shape))
        return f"<{self.name} {self.split}: {len(self)} of {shape} {self.dtype}, {labels}>"


class ArraySource(Source):
    """Images and labels in memory.

    Args:
      images: uint8 or float32 (n, h, w, c).
      labels: integers (n,) for classes, numbers (n, k) for vectors, or None.
      label_dim: number of classes; the largest label + 1 when None.
    Raises:
      ValueError: when shapes, dtypes or labels do not fit.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: np.ndarray | None = None,
        *,
        name: str = "arrays",
        split: str = "",
        class_names: Sequence[str] | None = None,
        label_dim: int | None = None,
    ):
        if images.ndim != 4 or images.dtype not in (np.uint8, np.float32) or not images.size:
            raise ValueError(
                f"{name}: images must be uint8 or float32 of shape (n, h, w, c), none of them 0, "
                f"got {images.dtype} {images.shape}"
            )
        kind = "none"
        if labels is not None:
            labels, kind = _as_labels(np.asarray(labels), len(images), name)
            if kind == "vector":
                label_dim = labels.shape[1]
            elif label_dim is None:
                label_dim = len(class_names) if class_names else int(labels.max()) + 1
        self.images, self.labels = images, labels
        super().__init__(
            name=name,
            shape=images.shape[1:],
            split=split,
            label_kind=kind,
            label_dim=label_dim or 0,
            class_names=class_names,
            dtype=images.dtype,
        )

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Item:
        item = {"image": self.images[i]}
        if self.labels is not None:
            item["label"] = np.asarray(self.labels[i])
        return item

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray | None]:
        return self.images, self.labels


def _as_labels(labels: np.ndarray, n: int, name: str) -> tuple[np.ndarray, str]:
    """Labels as int32 (n,) "class" or float32 (n, k) "vector"."""
    if labels.shape[:1] != (n,):
        got = len(labels) if labels.ndim else "no"
        raise ValueError(f"{name}: {n} images but {got} labels; there must be one an image")
    if np.issubdtype(labels.dtype, np.integer) and (labels.ndim == 1 or labels.shape[1:] == (1,)):
        if not 0 <= labels.min() <= labels.max() < CLASSES:
            raise ValueError(
                f"{name}: class labels must be in 0..{CLASSES - 1}, got {labels.min()}.."
                f"{labels.max()}"
            )
        return labels.reshape(-1).astype(np.int32), "class"
    if labels.dtype.kind in "iuf" and labels.ndim <= 2:
        with np.errstate(over="ignore"):
            labels = labels.reshape(n, -1).astype(np.float32)
        if not np.isfinite(labels).all():
            raise ValueError(f"{name}: label vectors must be finite")
        return labels, "vector"
    raise ValueError(
        f"{name}: labels must be integers (n,) for classes or numbers (n, k) for vectors, got "
        f"{labels.dtype} {labels.shape}"
    )


class _Subset(Source):
    def __init__(self, source: Source, indices: np.ndarray, facts: dict[str, Any]):
        super().__init__(**facts)
        self._source, self._indices = source, indices

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, i: int) -> Item:
        return self._source[int(self._indices[i])]


def subset(source: Source, indices: Sequence[int] | np.ndarray, split: str | None = None) -> Source:
    """The images `indices` of a source, in that order, with the facts of the whole.

    Raises:
      ValueError: when there are none, or an index is out of range.
    """
    indices = np.asarray(indices, np.int64).reshape(-1)
    n = len(source)
    if not len(indices) or indices.min() < 0 or indices.max() >= n:
        raise ValueError(
            f"{source.name}: a subset needs indices in 0..{n - 1}, got "
            + (f"{indices.min()}..{indices.max()}" if len(indices) else "none")
        )
    facts = source.facts | ({} if split is None else {"split": split})
    if source.arrays is None:
        return _Subset(source, indices, facts)
    images, labels = source.arrays
    return _held(images[indices], None if labels is None else labels[indices], facts)


def _held(images: np.ndarray, labels: np.ndarray | None, facts: dict[str, Any]) -> ArraySource:
    keep = ("name", "split", "class_names", "label_dim")
    return ArraySource(images, labels, **{k: facts[k] for k in keep})


def in_memory(source: Source, limit_bytes: int = 1 << 30, num_threads: int = 16) -> Source:
    """The source with every image decoded once into one array, or unchanged when that does not fit.

    Args:
      limit_bytes: the most that the image array may take.
      num_threads: images decoded at a time.
    """
    nbytes = len(source) * math.prod(source.shape) * source.dtype.itemsize
    if source.arrays is not None or nbytes > limit_bytes:
        return source
    images = np.empty((len(source), *source.shape), source.dtype)
    labels = None
    if source.label_kind == "class":
        labels = np.empty(len(source), np.int32)
    elif source.label_kind == "vector":
        labels = np.empty((len(source), source.label_dim), np.float32)

    def fill(i: int) -> None:
        item = source[i]
        images[i] = item["image"]
        if labels is not None:
            labels[i] = item["label"]

    with ThreadPoolExecutor(num_threads) as pool:
        for _ in pool.map(fill, range(len(source))):
            pass
    return _held(images, labels, source.facts)


def check(source: Source) -> Source:
    """Returns the source if its facts are consistent and its first and last items agree with them.

    Raises:
      ValueError: saying what was expected and what was found.
    """
    if not len(source):
        raise ValueError(f"{source.name}: the {source.split} split is empty")
    kinds = ("class", "vector", "none")
    if source.label_kind not in kinds or (source.label_dim > 0) == (source.label_kind == "none"):
        raise ValueError(
            f"{source.name}: label_kind must be one of {kinds} with label_dim 0 only for 'none', "
            f"got {source.label_kind!r} with {source.label_dim}"
        )
    if source.label_dim > CLASSES:
        raise ValueError(f"{source.name}: {source.label_dim} labels, more than {CLASSES}")
    if source.class_names is not None and len(source.class_names) != source.label_dim:
        raise ValueError(
            f"{source.name}: {len(source.class_names)} class names for {source.label_dim} classes"
        )
    for i in (0, len(source) - 1):
        item = source[i]
        _expect(source, i, "image", item["image"], source.shape, source.dtype)
        if source.label_kind == "none" and "label" in item:
            raise ValueError(f"{source.name}[{i}]: has a label but label_kind is 'none'")
        if source.label_kind == "class":
            _expect(source, i, "label", item["label"], (), np.int32)
        if source.label_kind == "vector":
            _expect(source, i, "label", item["label"], (source.label_dim,), np.float32)
    if source.label_kind == "class":
        held = source.arrays[1] if source.arrays else np.array([source[0]["label"], item["label"]])
        if held.min() < 0 or held.max() >= source.label_dim:
            raise ValueError(
                f"{source.name}: class labels must be in 0..{source.label_dim - 1}, got "
                f"{held.min()}..{held.max()}"
            )
    return source


def _expect(source: Source, i: int, what: str, x: Any, shape: tuple, dtype: Any) -> None:
    if np.shape(x) != shape or np.asarray(x).dtype != dtype:
        raise ValueError(
            f"{source.name}[{i}]: {what} must be {np.dtype(dtype)} {shape}, got "
            f"{np.asarray(x).dtype} {np.shape(x)}"
        )


def held_out(
    n: int, split: str, count: int | None = None, classes: np.ndarray | None = None
) -> np.ndarray:
    """Indices of the train or test part of a set that has no official test split.

    The test part depends on n and classes only: a hash of the index orders the images of each
    class, and the first of every class are held out in proportion.

    Args:
      count: size of the test part; a tenth, at least one, when None.
      classes: (n,) integers to stratify by.
    Returns:
      Indices in ascending order.
    """
    count = max(1, round(n / 10)) if count is None else count
    if not 0 <= count < n:
        raise ValueError(f"cannot hold {count} of {n} images out for the test split")
    order = np.argsort(_scramble(n), kind="stable")
    score = np.empty(n)
    classes = np.zeros(n, np.int64) if classes is None else np.asarray(classes)
    for c in np.unique(classes):
        members = order[classes[order] == c]
        score[members] = (np.arange(len(members)) + 0.5) / len(members)
    ranked = order[np.argsort(score[order], kind="stable")]
    return np.sort(ranked[:count] if split == "test" else ranked[count:])


def limited(source: Source, count: int) -> Source:
    """So many images of a source, of every class its share; fewer are a part of more.

    Raises:
      ValueError: for a count that is not in 1..len(source).
    """
    if not 1 <= count <= len(source):
        raise ValueError(
            f"{source.name}: the {source.split} split has {len(source)} images, config.data.limit "
            f"is {count}; set it to 1..{len(source)}, or to 0 for all"
        )
    if count == len(source):
        return source
    classes = source.arrays[1] if source.label_kind == "class" and source.arrays else None
    return subset(source, held_out(len(source), "test", count, classes))


def _scramble(n: int) -> np.ndarray:
    """SplitMix64 of 0..n-1: a fixed hash, unlike a library's random stream."""
    z = (np.arange(n, dtype=np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


def split_off(source: Source, split: str, holdout: float = 0.1, classes: Any = None) -> Source:
    """The train or test part of an undivided source, `holdout` (0..1) of it being the test part.

    Raises:
      ValueError: for the test split when holdout is 0, and when holdout is not in [0, 1).
    """
    if not 0 <= holdout < 1:
        raise ValueError(f"{source.name}: holdout must be in [0, 1), got {holdout}")
    if classes is None and source.label_kind == "class" and source.arrays is not None:
        classes = source.arrays[1]
    count = max(1, round(len(source) * holdout)) if holdout and len(source) > 1 else 0
    if split == "test" and not count:
        raise ValueError(
            f"{source.name}: nothing is held out for a test split ({len(source)} images, holdout "
            f"{holdout}); use split 'train' or a larger ?holdout="
        )
    return subset(source, held_out(len(source), split, count, classes), split)

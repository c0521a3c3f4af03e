"""The facts of a source and a contact sheet of it, in one pass over the images."""

from typing import Any

import numpy as np

from jaxgen.common import pictures
from jaxgen.data.pipeline import epoch
from jaxgen.data.source import Source, held_out


def contact_sheet(images: np.ndarray, columns: int, pad: int = 1) -> np.ndarray:
    """Images uint8 (n, h, w, c) on one sheet (H, W, c), tiny ones enlarged pixel by pixel."""
    return pictures.grid(images, columns, pad=pad)


def facts(source: Source) -> tuple[dict[str, Any], np.ndarray]:
    """Facts and a picture.

    Returns:
      A dict: name, split, images, shape, dtype, min, max, mean and std a channel (uint8 as
      x / 255), megabytes when held in memory, labels ("10 class" and the like), and then either
      histogram ({class: count}) or label_mean, label_std (k,).
      And a uint8 picture (H, W, c): a row a class for up to 20 classes, 100 images spread over the
      set otherwise, a density for points in the plane.
    """
    shown = _Shown(source)
    total, square = np.zeros(source.shape[2]), np.zeros(source.shape[2])
    low, high, labels = np.inf, -np.inf, []
    unit = 255 if source.dtype == np.uint8 else 1
    for batch in epoch(source, 256):
        x = batch["image"] / np.float64(unit)
        total += x.sum((0, 1, 2))
        square += (x * x).sum((0, 1, 2))
        low, high = min(low, batch["image"].min()), max(high, batch["image"].max())
        if "label" in batch:
            labels.append(batch["label"])
        shown.add(batch)
    h, w, _ = source.shape
    mean = total / (len(source) * h * w)
    std = np.sqrt(np.maximum(square / (len(source) * h * w) - mean**2, 0))
    nbytes = len(source) * h * w * source.shape[2] * source.dtype.itemsize
    out = {
        "name": source.name,
        "split": source.split,
        "images": len(source),
        "shape": source.shape,
        "dtype": str(source.dtype),
        "min": low.item(),
        "max": high.item(),
        "mean": [round(float(v), 5) for v in mean],
        "std": [round(float(v), 5) for v in std],
        "megabytes": round(nbytes / 1e6, 1),
        "labels": f"{source.label_dim} {source.label_kind}" if labels else "none",
    }
    if source.label_kind == "class":
        counts = np.bincount(np.concatenate(labels), minlength=source.label_dim).tolist()
        out["histogram"] = dict(zip(source.class_names or range(len(counts)), counts))
    elif source.label_kind == "vector":
        values = np.concatenate(labels)
        out["label_mean"] = [round(float(v), 5) for v in values.mean(0)]
        out["label_std"] = [round(float(v), 5) for v in values.std(0)]
    return out, shown.sheet()


class _Shown:
    """Collects what the picture shows while batches go by."""

    def __init__(self, source: Source, columns: int = 10):
        self.source, self.columns = source, columns
        self.rows = source.label_dim if source.label_kind == "class" else 0
        self.by_class = 0 < self.rows <= 20 and source.dtype == np.uint8
        self.channels = 3 if source.shape[2] >= 3 else 1
        self.tiles: dict[Any, list[np.ndarray]] = {}
        n = len(source)
        spread = held_out(n, "test", min(n - 1, columns**2)) if n > 1 else [0]
        self.spread = set(np.asarray(spread).tolist())
        self.points: list[np.ndarray] = []

    def add(self, batch: dict[str, np.ndarray]) -> None:
        if self.source.dtype != np.uint8:
            self.points.append(batch["image"])
            return
        for j, i in enumerate(batch["index"].tolist()):
            row = int(batch["label"][j]) if self.by_class else 0
            tiles = self.tiles.setdefault(row, [])
            if (self.by_class and len(tiles) < self.columns) or (
                not self.by_class and i in self.spread
            ):
                tiles.append(batch["image"][j, ..., : self.channels].copy())

    def sheet(self) -> np.ndarray:
        if self.source.dtype != np.uint8:
            return density(np.concatenate(self.points).reshape(-1, self.source.shape[2])[:, :2])
        if not self.by_class:
            return contact_sheet(np.stack(self.tiles[0]), self.columns)
        white = np.full((*self.source.shape[:2], self.channels), 255, np.uint8)
        rows = [self.tiles.get(k, []) for k in range(self.rows)]
        tiles = [t for row in rows for t in row + [white] * (self.columns - len(row))]
        return contact_sheet(np.stack(tiles), self.columns)


def density(points: np.ndarray, size: int = 256, extent: float = 1.25) -> np.ndarray:
    """Points (n, 2) as a picture uint8 (size, size, 1): dark where many, x right, y up."""
    edges = np.linspace(-extent, extent, size + 1)
    counts = np.histogram2d(points[:, 0], points[:, 1], (edges, edges))[0]
    ink = np.sqrt(counts / max(counts.max(), 1))
    return np.rint(255 * (1 - ink.T[::-1])).astype(np.uint8)[..., None]

"""Logs of a run: `metrics.jsonl` always, TensorBoard event files beside it (tensorboardX)."""

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np


class Writer:
    """Appends records of scalars by image count.

    Args:
      workdir: where `metrics.jsonl` and `tensorboard/` go. nimg: images at which the run resumes;
      records past that belong to an attempt that was cut off, and are dropped.
    """

    def __init__(self, workdir: str | Path, nimg: int = 0, tensorboard: bool = True):
        self.path = Path(workdir) / "metrics.jsonl"
        kept = [r for r in read(self.path) if r["nimg"] <= nimg]
        temporary = self.path.with_suffix(".tmp")
        temporary.write_text("".join(json.dumps(r) + "\n" for r in kept))
        temporary.replace(self.path)
        self._file = self.path.open("a")
        self._board = None
        if tensorboard:
            from tensorboardX import SummaryWriter

            self._board = SummaryWriter(str(Path(workdir) / "tensorboard"), purge_step=nimg + 1)

    def write(self, nimg: int, scalars: Mapping[str, float]) -> None:
        """One record; values that are not finite are written as null and left off the board."""
        finite = {n: float(v) for n, v in scalars.items() if math.isfinite(v)}
        record = {n: finite.get(n) for n in scalars}
        self._file.write(json.dumps({"nimg": nimg, **record}) + "\n")
        self._file.flush()
        if self._board:
            for name, value in finite.items():
                self._board.add_scalar(name, value, nimg)

    def close(self) -> None:
        """Closes the files; what a full disk did not take is lost, as was said before."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board:
            with contextlib.suppress(OSError):
                self._board.close()


def read(path: str | Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl, which are objects with a number `nimg`.

    Lines that are none are left out: a last one that a crash cut off, or damage.
    """
    path = Path(path)
    if not path.is_file():
        return []
    records = []
    for line in path.read_bytes().splitlines():
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(record, dict) and isinstance(record.get("nimg"), int | float):
            records.append(record)
    return records


def mean(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means by name over the records that have a number there (a phase not due reports NaN)."""
    found: dict[str, list[float]] = {}
    for record in records:
        for name, value in record.items():
            found.setdefault(name, []).append(float(value))
    out = {}
    for name, values in found.items():
        real = [v for v in values if not math.isnan(v)]
        if real:
            out[name] = float(np.mean(real))
    return out

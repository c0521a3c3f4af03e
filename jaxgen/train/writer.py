"""Logs of a run: `metrics.jsonl` always, TensorBoard event files beside it (tensorboardX)."""

import contextlib
import dataclasses
import json
import math
import time
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
        self._last = {(nimg, n) for r in kept if r["nimg"] == nimg for n in r}
        self._file = self.path.open("a")
        self._board = _Board(Path(workdir) / "tensorboard", nimg + 1) if tensorboard else None

    def has(self, nimg: int, name: str) -> bool:
        """Whether `name` was written at the image count at which the run resumes."""
        return (nimg, name) in self._last

    def write(self, nimg: int, scalars: Mapping[str, float]) -> None:
        """One record; values that are not finite are written as null and left off the board."""
        finite = {n: float(v) for n, v in scalars.items() if math.isfinite(v)}
        record = {n: finite.get(n) for n in scalars}
        self._file.write(json.dumps({"nimg": nimg, **record}) + "\n")
        self._file.flush()
        if self._board:
            self._board.write(nimg, finite)

    def close(self) -> None:
        """Closes the files; what a full disk did not take is lost, as was said before."""
        with contextlib.suppress(OSError):
            self._file.close()
        if self._board:
            with contextlib.suppress(OSError):
                self._board.close()


class _Board:
    """TensorBoard's event files, written by the caller and flushed every 30 s.

    tensorboardX's SummaryWriter writes in a thread behind a short queue. On a full disk that thread
    dies, the queue fills, and the run hangs for good.
    """

    FLUSH = 30.0

    def __init__(self, folder: Path, first: int):
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        folder.mkdir(parents=True, exist_ok=True)
        self._event = Event
        # The suffix: a run that starts anew within a second must not truncate the file before.
        self._file = EventsWriter(str(folder / "events"), f".{first}")
        # What an attempt that was cut off wrote past this step is not shown.
        start = SessionLog(status=SessionLog.START)
        self._file.write_event(Event(step=first, file_version="brain.Event:2"))
        self._file.write_event(Event(step=first, session_log=start))
        self._flushed = time.monotonic()

    def write(self, nimg: int, scalars: Mapping[str, float]) -> None:
        from tensorboardX.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=n, simple_value=v) for n, v in scalars.items()]
        event = self._event(wall_time=time.time(), step=nimg, summary=Summary(value=values))
        self._file.write_event(event)
        if time.monotonic() - self._flushed > self.FLUSH:  # it syncs the disk: not every time
            self._file.flush()
            self._flushed = time.monotonic()

    def close(self) -> None:
        self._file.close()


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
            with contextlib.suppress(TypeError, ValueError, OverflowError):  # null, in a file
                found.setdefault(name, []).append(float(value))
    out = {}
    for name, values in found.items():
        real = [v for v in values if not math.isnan(v)]
        if real:
            out[name] = float(np.mean(real))
    return out


@dataclasses.dataclass
class Mark:
    """A point in time, to tell rates since."""

    time: float
    nimg: int
    waited: float
    batch: int

    @classmethod
    def now(cls, nimg: int, batches: Any, batch: int) -> "Mark":
        """Now, at `nimg` images of an iterator that may have `wait_seconds`."""
        return cls(time.perf_counter(), nimg, getattr(batches, "wait_seconds", 0.0), batch)

    def rates(self, nimg: int, batches: Any) -> dict[str, float]:
        """Images a second, and of each step the seconds in all and waiting for data."""
        new = Mark.now(nimg, batches, self.batch)
        seconds, images = max(new.time - self.time, 1e-9), nimg - self.nimg
        return {
            "time/images_per_second": images / seconds,
            "time/seconds": seconds,
            "time/step": seconds * self.batch / max(images, 1),
            "time/data_wait": new.waited - self.waited,
        }

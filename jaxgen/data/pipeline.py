"""Batches in grain's order: a batch is a pure function of (seed, step), whatever reads it.

Step n holds the elements n B .. (n+1) B - 1 of the endless shuffled sequence
`MapDataset.range(len(source)).seed(seed).shuffle().repeat()`, in which every epoch is another
permutation. A process reads the rows of it that its devices hold. So a resumed run needs its step
number and nothing else, and changing devices or processes changes no batch.
"""

import collections
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Any

import numpy as np

from jaxgen.data.source import Source

Batch = dict[str, np.ndarray]


class Batches(Iterator[Batch]):
    """Endless batches read ahead in the background; close it, or use it in a `with`.

    wait_seconds: time spent so far on batches that were asked for and not there yet; a loop that
    keeps up hardly waits. (What a loop loses when it wakes a reader on cores that are all busy, 1
    to 5 ms, is not waiting: the batch is there.)
    """

    def __init__(
        self, read: Callable[[int], Batch], start: int, ahead: int, threads: int, pool: Any
    ):
        self._read, self._steps, self._ahead = read, itertools.count(start), max(ahead, 1)
        self._pools = [ThreadPoolExecutor(threads, "batches"), *([pool] if pool else [])]
        self._coming: collections.deque[Future] = collections.deque()
        self.wait_seconds = 0.0

    def __next__(self) -> Batch:
        while len(self._coming) < self._ahead + 1:
            self._coming.append(self._pools[0].submit(self._read, next(self._steps)))
        begin = time.perf_counter()
        try:
            return self._coming.popleft().result()
        finally:
            self.wait_seconds += time.perf_counter() - begin

    def close(self) -> None:
        """Stops the threads; a second call does nothing."""
        for pool in reversed(self._pools):
            pool.shutdown(cancel_futures=True)

    def __enter__(self) -> "Batches":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def batches(
    source: Source | None,
    batch: int,
    seed: int,
    start_step: int = 0,
    rows: Sequence[int] | np.ndarray | None = None,
    num_threads: int = 16,
    prefetch: int = 4,
) -> Batches:
    """The global batches of steps start_step, start_step + 1, ..., or some rows of them.

    Args:
      source: None for a plan without data: batches then hold only `index`, the image's number in
        the run (modulo 2^31).
      batch: global batch size B.
      seed: in [0, 2^32).
      start_step: reached at once, without reading what comes before.
      rows: (b,) in 0..B-1, of each batch what this process reads (common.mesh.local_rows); all when
        None.
      num_threads: images decoded at a time (sources in memory decode nothing).
      prefetch: batches read ahead on the host.
    Returns:
      An endless iterator of {"image": uint8 (b, h, w, c), "label": int32 (b,) or float32 (b, k),
      "index": int32 (b,)}; `index` is the place in the source.
    Raises:
      ValueError: numbers out of range.
    """
    import grain

    rows = np.arange(batch) if rows is None else np.asarray(rows)
    if not len(rows) or rows.min() < 0 or rows.max() >= batch:
        raise ValueError(f"rows must be some of the {batch} rows of a batch, got {rows.tolist()}")
    if not 0 <= seed < 2**32 or start_step < 0:
        raise ValueError(
            f"seed must be in [0, 2^32) and start_step >= 0, got {seed} and {start_step}"
        )
    pool = None if source is None or source.arrays else ThreadPoolExecutor(num_threads)
    if source is not None:
        order = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()

    def read(step: int) -> Batch:
        places = step * batch + rows
        if source is None:
            return {"index": (places % 2**31).astype(np.int32)}
        return gather(source, np.array([order[int(i)] for i in places]), pool)

    # One thread is enough without decoding, and several would fight for the interpreter.
    return Batches(read, start_step, prefetch, prefetch if pool else 1, pool)


def gather(source: Source, indices: np.ndarray, pool: Executor | None = None) -> Batch:
    """The images `indices` (b,) of a source as one batch, decoded in `pool` if given."""
    index = indices.astype(np.int32)
    if source.arrays is not None:
        images, labels = source.arrays
        out = {"image": images[indices]} | ({} if labels is None else {"label": labels[indices]})
    else:
        items = list((pool.map if pool else map)(source.__getitem__, indices.tolist()))
        out = {name: np.stack([item[name] for item in items]) for name in items[0]}
    return out | {"index": index}


def epoch(
    source: Source, batch: int, drop_remainder: bool = False, num_threads: int = 16
) -> Iterator[Batch]:
    """The whole source once, in order, the last batch short unless dropped (for evaluation)."""
    if batch < 1:
        raise ValueError(f"batch must be positive, got {batch}")
    n = len(source)
    with ThreadPoolExecutor(num_threads) as pool:
        for first in range(0, n - n % batch if drop_remainder else n, batch):
            yield gather(source, np.arange(first, min(first + batch, n)), pool)


class DeviceBatches(Iterator[Any]):
    """Batches placed on the devices before they are asked for."""

    def __init__(self, batches: Batches, put: Callable[[Batch], Any], ahead: int):
        self._batches, self._put, self._ahead = batches, put, ahead
        self._placed: collections.deque = collections.deque()

    @property
    def wait_seconds(self) -> float:
        """Time spent so far waiting for host data."""
        return self._batches.wait_seconds

    def __next__(self) -> Any:
        while len(self._placed) <= self._ahead:
            self._placed.append(self._put(next(self._batches)))
        return self._placed.popleft()

    def close(self) -> None:
        """Lets go of the placed batches and closes the host's."""
        self._placed.clear()
        self._batches.close()

    def __enter__(self) -> "DeviceBatches":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def to_device(host: Batches, put: Callable[[Batch], Any], ahead: int = 2) -> DeviceBatches:
    """Batches mapped by `put` (such as common.mesh.put_batch on a mesh), `ahead` of them early."""
    return DeviceBatches(host, put, ahead)

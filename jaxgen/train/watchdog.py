"""A watchdog: says where a run hangs, and ends it if asked to, so that a scheduler restarts it.

A run hangs when no step has finished for `factor` times the median step, and for `seconds` at
least. Compiling, saving and hooks take their time: while one of them goes on, the limit is
`slow_seconds`. A process that was stopped (SIGSTOP, a suspended machine) and goes on has not hung:
time in which the watchdog itself did not run does not count. Nor does the wall clock, which jumps.
"""

import collections
import contextlib
import dataclasses
import faulthandler
import os
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: try again


@dataclasses.dataclass(frozen=True)
class Limits:
    """When a run counts as hung, and whether it is ended then (exit code 75).

    factor: times the median step time. seconds: never less than this. slow_seconds: the limit for
    the first step, for compiling, saving and hooks.
    """

    factor: float = 20.0
    seconds: float = 300.0
    slow_seconds: float = 3600.0
    exit: bool = False

    def __post_init__(self):
        if not (self.factor > 1 and self.seconds > 0 and self.slow_seconds >= self.seconds):
            raise ValueError(
                "watchdog: expected factor > 1 and 0 < seconds <= slow_seconds, got factor="
                f"{self.factor}, seconds={self.seconds}, slow_seconds={self.slow_seconds}"
            )


def of(settings: Mapping[str, Any]) -> Limits | None:
    """Limits of the settings of a run; None, which watches nothing, without any or at 0 seconds."""
    return Limits(**settings) if settings.get("seconds") else None


class Watchdog:
    """Watches the thread that calls `step` from a thread of its own; use it in a `with`.

    Args:
      folder: gets `stacks-<process>-<number>.txt`. limits: None: nothing is watched. process: index
      of this process. log: where the one line goes; the stacks go to stderr, too.
    """

    def __init__(
        self,
        folder: str | Path,
        limits: Limits | None,
        process: int = 0,
        log: Callable[[str], None] = print,
    ):
        self.folder, self.limits, self.process, self.log = Path(folder), limits, process, log
        self._steps: collections.deque[float] = collections.deque(maxlen=101)
        self._since = time.monotonic()  # the last sign of life
        self._slow: str | None = "the first step"
        self._told = False
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self._since = time.monotonic()
        if self.limits:
            self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._end.set()
        if self._thread.ident is not None:
            self._thread.join()

    def step(self) -> None:
        """A step has finished."""
        now = time.monotonic()
        if self._slow is None:
            self._steps.append(now - self._since)
        if self._told:
            self.log(f"watchdog: going on after {now - self._since:.0f} s")
        self._since, self._slow, self._told = now, None, False

    @contextlib.contextmanager
    def slow(self, what: str) -> Iterator[None]:
        """Around something that may take much longer than a step; it is not part of one."""
        before, self._slow, begin = self._slow, what, time.monotonic()
        waited = begin - self._since
        self._since = begin
        try:
            yield
        finally:
            self._since, self._slow, self._told = time.monotonic() - waited, before, False

    def limit(self) -> float:
        """Seconds without a sign of life after which the run counts as hung."""
        if self._slow is not None or not self._steps:
            return self.limits.slow_seconds
        return max(self.limits.seconds, self.limits.factor * statistics.median(list(self._steps)))

    def _watch(self) -> None:
        tick = min(1.0, self.limits.seconds / 10)
        last = time.monotonic()
        while not self._end.wait(tick):
            now = time.monotonic()
            # Not run for longer than asked: the process was stopped, or gets no processor.
            self._since += max(0.0, now - last - 2 * tick)
            last = now
            if not self._told and now - self._since > self.limit():
                self._told = True
                self._report(now - self._since)

    def _report(self, seconds: float) -> None:
        what = self._slow or "a step"
        text = (
            f"watchdog: {what} has not finished for {seconds:.0f} s (limit {self.limit():.0f} s: "
            "--config.watchdog.factor, seconds, slow_seconds)"
        )
        path = self.folder / f"stacks-{self.process}-{os.getpid()}.txt"
        try:
            with path.open("a") as file:
                file.write(text + "\n")
                file.flush()
                faulthandler.dump_traceback(file, all_threads=True)
            text += f"; the stacks of all threads are in {path}"
        except OSError as e:  # the disk may be what hangs, or full
            text += f"; {path} could not be written: {e}"
        with contextlib.suppress(OSError, ValueError):
            self.log(text)
            print(text, file=sys.__stderr__, flush=True)
            faulthandler.dump_traceback(sys.__stderr__, all_threads=True)
        if self.limits.exit:
            with contextlib.suppress(OSError, ValueError):
                print(f"watchdog: exit {EXIT_CODE}", file=sys.__stderr__, flush=True)
                sys.stdout.flush()
            os._exit(EXIT_CODE)  # the main thread hangs: nothing milder ends it

"""Signals that ask a run to save and stop."""

import contextlib
import os
import signal
from collections.abc import Iterator
from typing import Any

import jax


@contextlib.contextmanager
def caught() -> Iterator[dict[str, int]]:
    """SIGTERM and SIGINT set `got`; a second one acts as usual. No-op outside the main thread.

    With several processes SIGTERM is left to jax.distributed, which lets all stop at one step.
    """
    found: dict[str, int] = {}
    old: dict[int, Any] = {}

    several = jax.process_count() > 1

    def handle(signum: int, frame: Any) -> None:
        if several:
            os.kill(os.getpid(), signal.SIGTERM)
            return
        found["got"] = signum
        for s, h in old.items():
            signal.signal(s, h)

    try:
        for s in (signal.SIGINT,) if several else (signal.SIGTERM, signal.SIGINT):
            old[s] = signal.signal(s, handle)
    except ValueError:
        pass
    try:
        yield found
    finally:
        for s, h in old.items():
            signal.signal(s, h)

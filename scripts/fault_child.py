"""Training processes that hurt themselves at a chosen point: what scripts/fault_campaign.py starts.

A child is a fork of a process that has imported everything and has not used JAX yet; from there on
it is `jaxgen train`. What is aimed at is wrapped here, so that the product needs no test hooks.
"""

import atexit
import hashlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

PLACES = (
    "step",  # a step has been started
    "read",  # an image is about to be read, in a thread of the pipeline
    "put",  # a batch is about to be put on the devices
    "checkpoints", "snapshots",  # a save of these has begun
    "checkpoints sums", "snapshots sums",  # its files are whole, its checksums are not there yet
    "checkpoints rename", "snapshots rename",  # its checksums are there, it is not committed
    "checkpoints committed", "snapshots committed",
    "delete",  # half of an old checkpoint has been deleted
    "metrics",  # half of a record has been written
    "json",  # half of config.json or results.json has been written
)  # fmt: skip


class Aim:
    """Acts once: when `place` is passed for the `count`-th time, and `delay` seconds after that."""

    def __init__(self, place: str, count: int, act: Callable[[], None], delay: float = 0.0):
        if place not in PLACES:
            raise ValueError(f"no place {place!r}; there are {PLACES}")
        self.place, self.count, self.act, self.delay = place, count, act, delay

    def passed(self, place: str, before: Callable[[], None] = lambda: None) -> None:
        """Called at every place; `before` leaves things half done, if this is the time."""
        if place != self.place:
            return
        self.count -= 1
        if self.count == 0:
            before()
            if self.delay:
                threading.Timer(self.delay, self.act).start()
            else:
                self.act()


def warm() -> None:
    """Imports what a training process imports, without starting a thread or a backend of JAX."""
    import grain  # noqa: F401
    import jax  # noqa: F401
    import ml_collections.config_flags  # noqa: F401
    import optax  # noqa: F401
    import orbax.checkpoint  # noqa: F401
    import PIL.Image  # noqa: F401
    import tensorboardX.event_file_writer  # noqa: F401

    import jaxgen.__main__
    import jaxgen.cli.train
    import jaxgen.data.pipeline
    import jaxgen.recipes
    import jaxgen.train.loop  # noqa: F401

    threads = len(os.listdir("/proc/self/task")) if os.path.isdir("/proc/self/task") else 1
    assert threads == 1, f"forking needs one thread, there are {threads}"


def start(
    argv: Sequence[str],
    log: Path,
    prepare: Callable[[], None] = lambda: None,
    after: Callable[[], None] = lambda: None,
) -> int:
    """Starts `jaxgen ARGV` with its output in `log` and returns its process id.

    prepare, after: called in the child, before and (if it succeeds) after the command.
    """
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, 1)
        os.dup2(file, 2)
        prepare()
        from jaxgen.__main__ import main

        code = main(list(argv))
        if code == 0:
            after()
        threading._shutdown()
        atexit._run_exitfuncs()
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 1
    except BaseException:
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def me(signum: int) -> Callable[[], None]:
    """Sends this process a signal."""
    return lambda: os.kill(os.getpid(), signum)


def install(aim: Aim | None = None, pace: float = 0.0) -> None:
    """Wraps the places, in this process; `pace` makes a step take so many seconds more.

    The pictures stand for a set that does not fit into memory: they are read when they are needed.
    """
    from orbax.checkpoint._src.path import deleter
    from orbax.checkpoint.path import atomicity

    from jaxgen.common import mesh as meshes
    from jaxgen.data import folder, source
    from jaxgen.train import step, store, writer

    passed = aim.passed if aim else lambda place, before=None: None

    def wrap(owner: Any, name: str, around: Callable) -> None:
        inner = getattr(owner, name)
        setattr(owner, name, lambda *a, **k: around(inner, *a, **k))

    def stepped(inner, *args, **kwargs):
        out = inner(*args, **kwargs)
        passed("step")
        time.sleep(pace)
        return out

    def read(inner, source, i):
        passed("read")
        return inner(source, i)

    def put(inner, batch, mesh):
        passed("put")
        return inner(batch, mesh)

    def saved(inner, self, *args):
        stall = inner(self, *args)
        passed(self.folder.name)
        return stall

    def sealed(inner, self, *args):
        passed(f"{self.folder.name} sums")
        inner(self, *args)
        passed(f"{self.folder.name} rename")

    async def finalized(inner, self):
        await inner(self)
        folder = Path(self.get_final()).parent.name
        passed(f"{folder} committed" if folder in ("checkpoints", "snapshots") else "")

    def deleted(inner, self, step, target):
        def half():
            for path in sorted(p for p in Path(target).rglob("*") if p.is_file())[::2]:
                path.unlink()

        passed("delete", half)
        return inner(self, step, target)

    def wrote(inner, self, nimg, scalars):
        def half():
            self._file.write(f'{{"nimg": {nimg}, "gen')
            self._file.flush()

        passed("metrics", half)
        inner(self, nimg, scalars)

    def json_written(inner, path, value):
        def half():
            path.with_name(f".{path.name}.tmp").write_text(json.dumps(value)[:50])

        passed("json" if path.parent.name != "manifests" else "", half)
        inner(path, value)

    source.in_memory = lambda of, *args, **kwargs: of
    wrap(step.Step, "__call__", stepped)
    wrap(folder.FolderSource, "__getitem__", read)
    wrap(meshes, "put_batch", put)
    wrap(store.Store, "save", saved)
    wrap(store.Store, "_seal", sealed)
    wrap(atomicity.AtomicRenameTemporaryPath, "finalize", finalized)
    wrap(deleter.StandardCheckpointDeleter, "_delete_step_permanently", deleted)
    wrap(writer.Writer, "write", wrote)
    wrap(store, "write_json", json_written)


def shift_clock(seconds: float) -> None:
    """The wall clock, as Python sees it, jumps."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + int(seconds * 1e9)


def stall() -> None:
    """Never returns: a file system that does not answer."""
    while True:
        time.sleep(1)


def digest(workdir: Path, out: Path) -> None:
    """Writes the sha256 of every array of the newest checkpoint and of all snapshots in `workdir`.

    Everything is read through the store, with its checksums.
    """
    import jax
    import numpy as np

    from jaxgen.train.store import Store

    found = {}
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    for name in ("checkpoints", "snapshots"):
        with Store(workdir / name, read_only=True) as store:
            numbers = store.numbers()[-1:] if name == "checkpoints" else store.numbers()
            for n in numbers:
                for item, arrays in store.meta(n)["arrays"].items():
                    target = {
                        k: jax.ShapeDtypeStruct(tuple(s), d, sharding=device)
                        for k, (s, d) in arrays.items()
                    }
                    for k, x in store.restore(n, item, target).items():
                        key = f"{name}/{n}/{item}/{k}"
                        found[key] = hashlib.sha256(np.asarray(x).tobytes()).hexdigest()
    out.write_text(json.dumps(found))


def wait(pid: int, limit: float, poll: Callable[[], None] = lambda: None) -> int | None:
    """The exit code (negative: the signal) of a child, or None if it had to be killed.

    poll: called every 5 ms meanwhile.
    """
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        poll()
        time.sleep(0.005)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def records(workdir: Path) -> dict[int, Mapping[str, Any]]:
    """Metrics by image count, without times; of repeated ones, an error."""
    found: dict[int, dict] = {}
    path = workdir / "metrics.jsonl"
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            break
        nimg = row.pop("nimg")
        row = {k: v for k, v in row.items() if not k.startswith("time/")}
        if row and nimg in found:
            raise ValueError(f"{path}: two records at {nimg} images")
        if row:
            found[nimg] = row
    return found

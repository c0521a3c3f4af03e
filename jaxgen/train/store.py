"""Stores of arrays on disk: Orbax, one folder a number, with checksums that are verified.

Orbax commits by an atomic rename, so a killed process leaves either a whole entry or none. It does
not notice flipped bytes, so right before the rename the first process writes
`manifests/<number>.json` with the sha256 of every file: an entry without one is a damaged one, and
nothing is read before its files have been checked. Arrays are kept flat, under their names; a
restore always has a target, and names are compared first.

A save holds its caller up only while it takes hold of the arrays' values (held.py); Orbax, which
needs tens of milliseconds to start, is started in a thread, one for all stores: with several
processes all start the same saves in the same order. Its barriers then are the coordinator's, and
no collectives, which would have to come in one order with those of the steps.

Only this file knows Orbax.
"""

import contextlib
import fcntl
import json
import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from orbax.checkpoint.path import atomicity

from jaxgen.common import trees
from jaxgen.train import held, sums

# Orbax and absl report their inner workings at INFO and WARNING; errors still come through.
logging.getLogger("absl").setLevel(logging.ERROR)

Tree = Any

UNREADABLE = (  # what Orbax raises where files are damaged
    ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError, OSError,
)  # fmt: skip


def _behind() -> None:
    """Lets other threads have the cores before this one and those that it starts."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


# Starts saves, one after the other: Orbax numbers its operations process-wide.
_WORKER = ThreadPoolExecutor(1, "saves", _behind)


class SaveError(RuntimeError):
    """Something could not be written; what was saved before is intact."""


class DamagedError(ValueError):
    """Files differ from their checksums."""


def write_json(path: Path, value: Any) -> None:
    """Writes JSON through a temporary file and a rename: whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(json.dumps(value, indent=1, sort_keys=False) + "\n")
    temporary.replace(path)


def _flat(tree: Tree) -> dict[str, Any]:
    return {name.replace("/", "."): x for name, x in trees.leaves(tree).items()}


def agree(value: int) -> int:
    """The first process's value, in every process."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int64(value)))


def _sealed(store: "Store") -> type:
    """Orbax's temporary folders, for which checksums are written before the committing rename."""

    class Sealed(atomicity.AtomicRenameTemporaryPath):
        async def finalize(self) -> None:
            if Path(self.get_final()).parent == store.folder:  # an entry, and not one of its items
                store._seal(Path(self.get()), Path(self.get_final()).name)
            await super().finalize()

    return Sealed


def _handlers() -> ocp.handlers.CheckpointHandlerRegistry:
    """Orbax's, without two costs: compression, which saves 8 % of floats and takes twice all other
    work, and another copy on the host of arrays that nobody changes."""
    types = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)),
        (jax.Array, ocp.type_handlers.ArrayHandler()),
    )
    writer = ocp.PyTreeCheckpointHandler(use_compression=False, type_handler_registry=types)
    registry = ocp.handlers.DefaultCheckpointHandlerRegistry()
    registry.add(None, ocp.args.PyTreeSave, writer)
    for args in (ocp.args.StandardRestore, ocp.args.JsonSave, ocp.args.JsonRestore):
        registry.add(None, args)
    return registry


@contextlib.contextmanager
def alone(folder: Path, log: Callable[[str], None]) -> Iterator[None]:
    """Keeps other processes from writing in a folder; the lock goes with this process.

    Raises:
      ValueError: another one holds it, such as a run that hangs and is started again.
    """
    if jax.process_index():
        yield
        return
    with (folder / "lock").open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as e:
            file.seek(0)
            raise ValueError(
                f"{folder} is in use by {file.read().strip() or 'another process'}. Two runs would "
                "spoil each other: end that one first, or take another folder"
            ) from e
        except OSError as e:  # a file system without locks
            log(f"warning: {folder} cannot be locked ({e}): start no second run in it")
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


class Store:
    """A folder of numbered entries, each a few named items (trees of arrays) and `meta` (JSON).

    Args:
      folder: made if missing. keep: how many of the newest entries stay (None: all). verify: check
      the sums of what is read. log: where messages go. read_only: another process may be writing
      here; nothing is saved, cleaned up or moved.
    """

    def __init__(
        self,
        folder: str | Path,
        keep: int | None = None,
        verify: bool = True,
        log: Callable[[str], None] = print,
        read_only: bool = False,
    ):
        self.folder = Path(folder).resolve()
        self.verify_reads = verify
        self.read_only = read_only
        self.log = log
        self._pending: int | None = None
        self._starting: Future | None = None  # Orbax's part of the pending save
        several = {*range(jax.process_count())} if jax.process_count() > 1 else None
        if not read_only:
            _WORKER.submit(int)  # starting a thread waits for a core, 8 ms where all are busy
            self.folder.mkdir(parents=True, exist_ok=True)
        self._sound: set[tuple[int, str]] = set()  # items whose sums have been checked
        try:
            self._manager = ocp.CheckpointManager(
                self.folder,
                handler_registry=_handlers(),
                options=ocp.CheckpointManagerOptions(
                    max_to_keep=keep,
                    create=False,
                    cleanup_tmp_directories=not read_only,
                    temporary_path_class=_sealed(self),
                    # Else threads wait for folders that cannot be made, and Python for the threads.
                    async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
                    # Two stores may save at the same time; their processes must not mix them up.
                    # Where processes are named, Orbax waits for them without collectives.
                    multiprocessing_options=ocp.options.MultiprocessingOptions(
                        barrier_sync_key_prefix=self.folder.name, active_processes=several
                    ),
                ),
            )
        except UNREADABLE as e:
            if getattr(e, "filename", None) is not None:  # not a number that no date has
                raise
            raise ValueError(
                f"{self.folder}: its entries cannot be listed ({e}); look at the files "
                "_CHECKPOINT_METADATA of its entries: a damaged one may be removed, none is needed"
            ) from e
        # The loop asks that, counting steps; Orbax would tell another count, images.
        self._manager.reached_preemption = lambda _: False

    def __enter__(self):
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        error = None
        try:
            self.wait()
        except SaveError as e:
            error = e
        try:
            self._manager.close()
        except Exception as e:
            error = error or self.failure(f"what was pending in {self.folder}", e)
        if error is not None and kind is None:  # else the exception on its way says more
            raise error

    def numbers(self) -> list[int]:
        """The committed entries, in order."""
        return sorted(self._manager.all_steps())

    def save(self, number: int, items: Mapping[str, Tree], meta: Mapping[str, Any]) -> float:
        """Starts writing an entry and returns the seconds the caller was held up.

        Arrays may be donated or changed right after. An entry of that number is replaced. Until it
        is written, its arrays are there a second time (`held.take` says where).

        Raises:
          SaveError: the entry before this one could not be written (or this one, where the caller
          has to wait until split arrays are fetched).
        """
        start = time.perf_counter()
        self.wait()
        self._sound = {(n, i) for n, i in self._sound if n != number}
        values, safe = held.take(dict(items))
        self._starting = _WORKER.submit(self._start, number, values, dict(meta))
        self._pending = number
        if not safe:
            self._started()
        return time.perf_counter() - start

    def _start(self, number: int, items: Mapping[str, Tree], meta: Mapping[str, Any]) -> None:
        """What Orbax does of a save before it goes on in threads of its own."""
        flat = {k: _flat(t) for k, t in items.items()}
        about, arrays = held.describe(flat), {k: held.pack(t) for k, t in flat.items()}
        args = {k: ocp.args.PyTreeSave(t) for k, t in arrays.items()}
        args["meta"] = ocp.args.JsonSave({**meta, **about})
        if number in self._manager.all_steps():
            self._manager.delete(number)
        self._prune()
        if not self._manager.save(number, args=ocp.args.Composite(**args), force=True):
            raise OSError("the checkpoint library declined to save")

    def _started(self) -> None:
        """Waits until Orbax has taken the pending save over, or raises SaveError."""
        if self._starting is not None:
            starting, self._starting = self._starting, None
            try:
                starting.result()
            except Exception as e:
                number, self._pending = self._pending, None
                raise self.failure(f"{self.folder / str(number)}", e, number) from e

    def wait(self, but: int | None = None) -> None:
        """Returns when the last save and its checksums are on disk, or raises SaveError.

        but: a save of this entry may go on.
        """
        if self._pending in (None, but):
            return
        self._started()
        number, self._pending = self._pending, None
        try:
            self._manager.wait_until_finished()
        except Exception as e:
            raise self.failure(f"{self.folder / str(number)}", e, number) from e

    def failure(self, what: str, e: Exception, but: int | None = None) -> SaveError:
        """The error to raise when `what` could not be written; entry `but` is not called intact."""
        intact = [n for n in self.numbers() if n != but]
        newest = (
            f"the newest intact entry is {intact[-1]}" if intact else "nothing was saved before"
        )
        return SaveError(
            f"could not save {what}: {type(e).__name__}: {str(e)[:300]}. Is the disk full or "
            f"read-only? What is in {self.folder} is untouched ({newest}); make room and run the "
            "same command again to go on from there"
        )

    def _seal(self, entry: Path, name: str) -> None:
        """Writes the checksums of a finished entry that is not committed yet, as entry `name`."""
        write_json(self._manifest(name), sums.take(entry))

    def _prune(self) -> None:
        """Removes the checksums of entries that are gone."""
        if jax.process_index() == 0:
            for path in self._manifest(0).parent.glob("*.json"):
                if not (self.folder / path.stem).is_dir():
                    path.unlink(missing_ok=True)

    def _manifest(self, number: int | str) -> Path:
        return self.folder / "manifests" / f"{number}.json"

    def damage(self, number: int, item: str | None = None) -> list[str]:
        """What is wrong with an entry (or one item of it): an empty list when all sums agree."""
        return sums.differences(self.folder / str(number), self._manifest(number), item)

    def sound(self, number: int) -> bool:
        """Whether the entry is there and undamaged; the same answer in every process."""
        bad = number not in self.numbers()
        if not bad and self.verify_reads and jax.process_index() == 0:
            bad = bool(self.damage(number))
        return not agree(bad)

    def _check(self, number: int, item: str) -> None:
        if not self.verify_reads or (number, item) in self._sound:
            return
        bad = self.damage(number, item)
        if bad:
            raise DamagedError("; ".join(bad))
        self._sound.add((number, item))

    def newest(self) -> int | None:
        """The newest undamaged entry. Damaged ones are named, and moved aside if we may write."""
        for number in reversed(self.numbers()):
            bad = self.damage(number) if self.verify_reads and jax.process_index() == 0 else []
            if not agree(len(bad)):
                self._sound |= {(number, p.name) for p in (self.folder / str(number)).iterdir()}
                return number
            for line in bad[:4]:
                self.log(f"damaged: {line}")
            if not self.read_only:
                self.set_aside([number], "damaged")
        return None

    def set_aside(self, numbers: list[int], where: str) -> None:
        """Moves entries to `<folder>/../<where>/`, out of the way but not lost."""
        if jax.process_index() == 0:
            for number in numbers:
                target = self.folder.parent / where / f"{self.folder.name}-{number}"
                k = 0
                while target.exists():
                    k += 1
                    target = target.with_name(f"{self.folder.name}-{number}.{k}")
                target.parent.mkdir(parents=True, exist_ok=True)
                (self.folder / str(number)).rename(target)
                self._manifest(number).unlink(missing_ok=True)
                self.log(f"moved {self.folder / str(number)} to {target}")
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("set_aside")
        self._manager.reload()

    def meta(self, number: int) -> dict[str, Any]:
        """The JSON saved with an entry. Raises DamagedError."""
        self._check(number, "meta")
        found = self._read(number, "meta", ocp.args.JsonRestore())
        if not held.described(found):
            raise DamagedError(f"{self.folder / str(number) / 'meta'} does not name its arrays")
        return found

    def _read(self, number: int, item: str, args: Any) -> Any:
        """One item as Orbax reads it; damage that no sums tell of raises many kinds of errors."""
        try:
            return self._manager.restore(number, args=ocp.args.Composite(**{item: args}))[item]
        except UNREADABLE as e:
            raise DamagedError(
                f"{self.folder / str(number) / item} cannot be read: {type(e).__name__}: "
                f"{str(e)[:300]}"
            ) from e

    def restore(self, number: int, item: str, target: Tree) -> Tree:
        """One item of an entry, with the shapes, dtypes and shardings of `target`.

        Raises:
          DamagedError: naming the files. ValueError: listing missing, unexpected, misshapen ones.
        """
        self._check(number, item)
        meta = self.meta(number)
        saved, packed = meta["arrays"], meta.get("packed", {}).get(item, [])
        what = f"{self.folder / str(number)}, item {item!r},"
        if item not in saved:
            raise ValueError(f"{what} does not exist; there are {sorted(saved)}")
        want = _flat(target)
        trees.compare_names(frozenset(want), list(saved[item]), what)
        wrong = [
            f"{n}: expected {list(x.shape)}, got {saved[item][n][0]}"
            for n, x in want.items()
            if list(x.shape) != saved[item][n][0]
        ]
        if wrong:
            raise ValueError(f"{what} has arrays of other shapes: {'; '.join(wrong)}")
        structs = {
            n: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))
            for n, x in want.items()
        }
        apart = {n: structs[n] for n in structs.keys() - {*packed}}
        together = {held.PACKED: jax.ShapeDtypeStruct((0,), np.uint8)} if packed else {}
        flat = self._read(number, item, ocp.args.StandardRestore(apart | together))
        if packed:
            try:
                flat |= held.unpack(flat[held.PACKED], packed, saved[item], structs)
            except ValueError as e:
                raise DamagedError(f"{what} cannot be unpacked: {e}") from e
        return jax.tree.unflatten(jax.tree.structure(target), [flat[n] for n in want])

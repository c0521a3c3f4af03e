"""Where trials of scripts/fault_campaign.py take place: data, undisturbed runs, the run of a trial.

What is on disk is judged here without the store that is on trial: sums and counts of our own.
"""

import fcntl
import functools
import hashlib
import json
import random
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_child as child
import numpy as np

BATCH, STEPS, SEED = 8, 32, 3
RUNS = {
    "gan": ("configs/gan/digits.py:mlp,debug", ()),
    "edm2": ("configs/edm2/digits.py:debug", ()),
    "latents": ("configs/edm2/digits.py:debug", ("data.latents=True", "max_skips=2")),
    "pair": ("configs/gan/digits.py:mlp,debug", ()),  # two processes
}
EVERY = (
    f"batch={BATCH}", f"images={BATCH * STEPS}", f"log_every={BATCH}", "checkpoint_every=64",
    "snapshot_every=96", f"seed={SEED}",
)  # fmt: skip
PACE = 0.03  # seconds that a step takes at least: as short as saves, they would never meet


class Hung(Exception):
    """A process was not done in time."""


class Ground:
    """The folder of a campaign, its data, what this machine allows, and undisturbed runs."""

    def __init__(self, out: Path, limit: float, references: Path | None = None):
        self.out, self.limit, self.references = out, limit, references or out
        self.disk = out / "disk"
        self.pictures, self.latents = out / "data" / "pictures", out / "data" / "latents.npz"
        self._make_data()

    def __enter__(self) -> "Ground":
        return self

    def __exit__(self, *exc: object) -> None:
        if self.disk.is_mount():
            run("umount", self.disk)

    @functools.cached_property
    def mounts(self) -> bool:
        """Whether there is a small file system at `disk`, which can be filled up."""
        self.disk.mkdir(exist_ok=True)
        if self.disk.is_mount():  # of a campaign that was killed
            run("umount", self.disk)
        return run("mount", "-t", "tmpfs", "-o", "size=64m", "faults", self.disk)

    @functools.cached_property
    def locks(self) -> bool:
        """Whether a folder can be made unchangeable."""
        probe = self.out / "probe"
        probe.mkdir(exist_ok=True)
        return run("chattr", "+i", probe) and run("chattr", "-i", probe)

    def _make_data(self) -> None:
        """256 grey 8x8 pictures of two classes, and as many moments of latents."""
        from PIL import Image

        gen = np.random.default_rng(0)
        for split, n in (("train", BATCH * STEPS), ("test", 8)):
            for i in range(n):
                path = self.pictures / split / "ab"[i % 2] / f"{i:03d}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(gen.integers(0, 256, (8, 8), np.uint8)).save(path)
        moments = np.abs(gen.normal(1, 0.3, (BATCH * STEPS * 10 // 9 + 1, 8, 8, 8)))
        np.savez(self.latents, image=moments.astype(np.float32))

    @functools.cache  # noqa: B019 - one ground a process
    def reference(self, run: str, nan: bool = False) -> "Case":
        """An undisturbed run, and what it left; the first campaign that needs it makes it."""
        name = f"undisturbed-{run}{'-nan' * nan}"
        where = self.references / name
        with (self.references / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            case = Case(self, name, random.Random(0), run, where)
            if case.log.with_name("done").exists():
                return case
            if nan:
                put_nan(case.data, ITS_NAN)
            code = case.go(digest=True)
            if code:
                raise RuntimeError(f"the undisturbed run ended with {code}: {case.log.read_text()}")
            case.log.with_name("done").touch()
        return case


ITS_NAN = (5, 70, 150)  # latents of the runs with a NaN in the data


def put_nan(path: Path, places: Any) -> None:
    """NaN in some latents of a file."""
    with np.load(path) as file:
        moments = file["image"]
    moments[list(places), 0, 0, 0] = np.nan
    np.savez(path, image=moments)


class Case:
    """One run in a folder of its own, started any number of times by the same command."""

    batch = BATCH

    def __init__(
        self,
        ground: Ground,
        name: Any,
        rng: random.Random,
        run: str,
        folder: Path | None = None,
    ):
        self.ground, self.rng, self.run = ground, rng, run
        self.folder = folder or ground.out / "trials" / str(name)
        if folder is None or not (folder / "done").exists():
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
        self.workdir = self.folder / "run"
        self.log = self.folder / "log.txt"
        self.data = ground.pictures
        if run == "latents":
            self.data = self.folder / "latents.npz"
            if not self.data.exists():
                shutil.copy(ground.latents, self.data)
        self.detail, self.complaints, self.again, self.nan = "", [], 0, False
        self.mends: list[Callable[[], Any]] = []
        self.overrides: list[str] = []
        self.flags: list[str] = []
        self.seconds = 0.0

    def argv(self) -> list[str]:
        """The command."""
        config, overrides = RUNS[self.run]
        kind = f"npz:{self.data}?dtype=float32" if self.run == "latents" else f"folder:{self.data}"
        settings = (*EVERY, *overrides, *self.overrides, f"data.source={kind}")
        flags = ["--config", config, "--workdir", str(self.workdir), "--no_progress"]
        return ["train", *flags, *self.flags, *(f"--config.{s}" for s in settings)]

    def go(
        self,
        aim: child.Aim | None = None,
        poll: Callable[[int], None] = lambda pid: None,
        digest: bool = False,
        victim: int = 0,
    ) -> int:
        """Starts the command, waits for its end and returns its exit code (negative: a signal).

        aim: where it hurts itself (of two processes, the `victim`). poll: called with its process
        id every few ms. digest: its arrays are summed up afterwards.

        Raises:
          Hung: not done in time, and killed.
        """
        self.mark = self.log.stat().st_size if self.log.exists() else 0
        out = self.folder / "digest.json"
        if self.run == "pair":
            return self._pair(aim, digest, victim, out)
        after = (lambda: child.digest(self.workdir, out)) if digest else (lambda: None)
        pid = child.start(self.argv(), self.log, lambda: child.install(aim, PACE), after)
        code = child.wait(pid, self.ground.limit, lambda: poll(pid))
        if code is None:
            raise Hung(f"after {self.ground.limit:.0f} s")
        return code

    def _pair(self, aim: child.Aim | None, digest: bool, victim: int, out: Path) -> int:
        with socket.socket() as s:
            s.bind(("localhost", 0))
            port = s.getsockname()[1]

        def prepare(i: int) -> None:
            child.install(aim if i == victim else None, PACE)

        address = ["--coordinator", f"localhost:{port}", "--num_processes", "2", "--process_id"]
        pids = [
            child.start([*self.argv(), *address, str(i)], self.log, functools.partial(prepare, i))
            for i in range(2)
        ]
        codes: list[int | None] = [None, None]
        for i in (victim, 1 - victim):
            begin = time.monotonic()
            codes[i] = child.wait(pids[i], self.ground.limit)
            self.seconds = time.monotonic() - begin  # that the other one took to notice
        if None in codes:
            raise Hung(f"exit codes {codes} after {self.ground.limit:.0f} s")
        if digest and codes == [0, 0]:
            summed = functools.partial(child.digest, self.workdir, out)
            child.wait(child.start(["--version"], self.log, after=summed), self.ground.limit)
        if aim and codes[victim] == -9 and codes[1 - victim] == 0:
            self.complaints.append("the process that was left ended with 0")
        return next((c for c in (codes[victim], codes[1 - victim]) if c), 0)

    def text(self) -> str:
        """What the last process printed."""
        with self.log.open("rb") as f:
            f.seek(self.mark)
            return f.read().decode(errors="replace")

    def mend(self) -> None:
        """Takes back what was done to the world around the run."""
        while self.mends:
            self.mends.pop()()

    def close(self, keep: bool) -> None:
        """Removes the folder, unless it is to be looked at."""
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.rmtree(self.workdir, ignore_errors=True)

    def entries(self, name: str = "checkpoints") -> list[int]:
        """The committed entries of a store."""
        folder = self.workdir / name
        return sorted(int(p.name) for p in folder.glob("*") if p.name.isdigit())

    def newest(self) -> int:
        """Images at the newest checkpoint of which every file has its sum; 0: there is none."""
        for n in reversed(self.entries()):
            entry = self.workdir / "checkpoints" / str(n)
            try:
                manifest = self.workdir / "checkpoints" / "manifests" / f"{n}.json"
                sums = json.loads(manifest.read_text())["sha256"]
                found = {f: hashlib.sha256((entry / f).read_bytes()).hexdigest() for f in sums}
            except (OSError, ValueError, KeyError):
                continue
            if found == sums:
                return n
        return 0

    def steps_done(self) -> int:
        """Steps in the metrics."""
        return max(child.records(self.workdir), default=0) // BATCH

    def resumed_at(self) -> int:
        """Images at which the last process began."""
        _, found, rest = self.text().partition("resuming at ")
        return int(rest.split()[0]) if found else 0

    def differences(self) -> list[str]:
        """What is not as in the undisturbed run."""
        like = self.ground.reference(self.run, self.nan)
        mine, its = (json.loads((c.folder / "digest.json").read_text()) for c in (self, like))
        other = sorted(k for k in {*mine, *its} if mine.get(k) != its.get(k))
        found = [f"{len(other)} arrays differ, such as {other[0]}"] if other else []
        try:
            a, b = child.records(self.workdir), child.records(like.workdir)
            found += [f"metrics differ at {n} images" for n in {*a, *b} if a.get(n) != b.get(n)][:1]
        except ValueError as e:
            found.append(str(e))
        left = [p.name for p in self.workdir.rglob("*tmp*") if not p.name.endswith(".json.tmp")]
        found += [f"left behind: {left[:3]}"] if left else []
        if not (self.workdir / "results.json").is_file():
            found.append("no results.json")
        return found


def run(*command: object) -> bool:
    """Whether a command of the system is there and succeeded."""
    if shutil.which(str(command[0])) is None:
        return False
    return not subprocess.run([*map(str, command)], capture_output=True).returncode


def state_of(pid: int) -> str:
    """The letter of a process's state, such as T for stopped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""

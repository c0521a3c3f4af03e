"""The faults of scripts/fault_campaign.py: how each hurts a run, and how often it is tried."""

import dataclasses
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import fault_child as child
import numpy as np
from fault_ground import BATCH, ITS_NAN, SEED, STEPS, Case, Ground, Hung, put_nan, run, state_of

from jaxgen.data import sources

__all__ = ["FAULTS", "Case", "Fault", "Ground", "Hung"]
READS = BATCH * STEPS + 6  # images that are read before training, which reads as many again
NOTHING: Callable[[Ground], str] = lambda ground: ""


@dataclasses.dataclass(frozen=True)
class Fault:
    """`hurt(case)` starts a run, hurts it, and returns how it ended.

    share: trials of 200. runs, weights: which runs it hurts. keeps_all: no step may be lost.
    missing: what this machine lacks for it, in words.
    """

    hurt: Callable[[Case], str]
    share: float
    runs: tuple[str, ...] = ("gan", "edm2")
    weights: tuple[float, ...] = (9, 1)
    keeps_all: bool = False
    missing: Callable[[Ground], str] = NOTHING


def ended(code: int) -> str:
    """An exit code in words."""
    return signal.Signals(-code).name if code < 0 else f"exit {code}"


def aimed(place: str, last: int, delay: float = 0.0, first: int = 1) -> Callable[[Case], str]:
    """SIGKILL when `place` is passed for the first..last-th time, up to `delay` seconds later."""

    def hurt(case: Case) -> str:
        count, late = case.rng.randint(first, last), case.rng.uniform(0, delay)
        case.detail = f"{place} {count}" + f" + {late * 1000:.0f} ms" * (delay > 0)
        return ended(case.go(child.Aim(place, count, child.me(signal.SIGKILL), late)))

    return hurt


def one_of(*hurts: Callable[[Case], str]) -> Callable[[Case], str]:
    """Any of these."""
    return lambda case: case.rng.choice(hurts)(case)


def after(case: Case, marker: str, seconds: float, act: Callable[[int], None]) -> Callable:
    """A poll: once, `seconds` after the process has printed `marker`, does act(pid)."""
    found: list[float] = []

    def poll(pid: int) -> None:
        if not found and (not marker or (case.log.exists() and marker in case.text())):
            found.append(time.monotonic() + seconds)
        if len(found) == 1 and time.monotonic() > found[0]:
            found.append(0)
            act(pid)

    return poll


def kill_any(case: Case) -> str:
    late = case.rng.uniform(0, 2.5)
    case.detail = f"{late:.2f} s after compiling"
    poll = after(case, "compiled", late, lambda pid: os.kill(pid, signal.SIGKILL))
    return ended(case.go(poll=poll))


def kill_start(case: Case) -> str:
    late = case.rng.uniform(0, 2.5)
    case.detail = f"{late:.2f} s after the start"
    return ended(case.go(poll=after(case, "", late, lambda pid: os.kill(pid, signal.SIGKILL))))


def kill_again(case: Case) -> str:
    case.again = 0 if case.mends or case.again else case.rng.randint(1, 2)
    return kill_any(case)


def term(case: Case) -> str:
    count, late = case.rng.randint(1, STEPS - 1), case.rng.uniform(0, 0.3)
    case.detail = f"step {count} + {late * 1000:.0f} ms"
    code = case.go(child.Aim("step", count, child.me(signal.SIGTERM), late))
    if code not in (0, 128 + signal.SIGTERM):
        case.complaints.append(f"SIGTERM ended with {code}")
    return ended(code)


def stop(case: Case) -> str:
    """Stopped for longer than the watchdog's limit, which must not take it for a hang."""
    count, seconds = case.rng.randint(3, STEPS), case.rng.uniform(11, 13)
    case.detail = f"step {count}, for {seconds:.1f} s"
    case.overrides = ["watchdog.seconds=10.0", "watchdog.exit=True"]
    stopped: list[float] = []

    def poll(pid: int) -> None:
        if state_of(pid) == "T":
            stopped.append(time.monotonic())
            if time.monotonic() - stopped[0] > seconds:
                os.kill(pid, signal.SIGCONT)

    code = case.go(child.Aim("step", count, child.me(signal.SIGSTOP)), poll)
    if code:
        case.complaints.append(f"SIGCONT ended with {code}")
    return ended(code)


def stalled(case: Case) -> str:
    """Reading an image never returns, of the first batches or later; the watchdog ends the run."""
    count = READS + case.rng.randint(BATCH, READS * 3 // 4)
    case.detail = f"read {count}"
    case.overrides = [
        "watchdog.seconds=10.0", "watchdog.slow_seconds=120.0", "watchdog.exit=True",
    ]  # fmt: skip
    code = case.go(child.Aim("read", count, child.stall))
    text = "".join(p.read_text() for p in case.workdir.glob("stacks-*.txt"))
    if code != 75 or "in stall" not in text:
        case.complaints.append(f"a hang ended with {code}, stacks {text[:200]!r}")
    return ended(code)


def at_rest(hurt: Callable[[Case, Path], str], manifest: bool = False) -> Callable[[Case], str]:
    """Killed after two to four checkpoints; then a file of the newest (or its sums) is damaged."""

    def damage(case: Case) -> str:
        code = case.go(
            child.Aim("checkpoints committed", case.rng.randint(2, 4), child.me(signal.SIGKILL))
        )
        folder, n = case.workdir / "checkpoints", case.entries()[-1]
        files = sorted(p for p in (folder / str(n)).rglob("*") if p.is_file())
        sums = folder / "manifests" / f"{n}.json"
        path = sums if manifest else case.rng.choice([p for p in files if p.stat().st_size])
        case.detail = f"{hurt(case, path)} {path.relative_to(folder)}"[:60]
        return ended(code)

    return damage


def truncate(case: Case, path: Path) -> str:
    size = path.stat().st_size
    keep = case.rng.randrange(size)
    os.truncate(path, keep)
    return f"{keep} of {size} bytes of"


def flip(case: Case, path: Path) -> str:
    content = bytearray(path.read_bytes())
    place, bit = case.rng.randrange(len(content)), case.rng.randrange(8)
    content[place] ^= 1 << bit
    path.write_bytes(content)
    return f"bit {bit} of byte {place} of"


def delete(case: Case, path: Path) -> str:
    path.unlink()
    return "deleted"


def full_disk(case: Case) -> str:
    """The file system is filled up at a random moment, but for a few bytes."""
    free, count = case.rng.randrange(100_000), case.rng.randint(1, STEPS)
    case.detail = f"{free} bytes left at step {count}"
    case.workdir = case.ground.disk / str(case.folder.name)
    ballast = case.ground.disk / "ballast"
    case.mends.append(lambda: ballast.unlink(missing_ok=True))

    def fill() -> None:
        with ballast.open("wb") as f:
            left = os.statvfs(case.ground.disk)
            os.posix_fallocate(f.fileno(), 0, max(1, left.f_bavail * left.f_bsize - free))

    return refused(case, case.go(child.Aim("step", count, fill)), "No space left")


def read_only(case: Case) -> str:
    """A folder of the run can no longer be written to, or all of it when it is resumed."""
    where = case.rng.choice(["", "checkpoints", "checkpoints/manifests", "snapshots", "mount"])
    count = case.rng.randint(1, STEPS)
    if where == "mount":
        aimed("step", STEPS)(case)
        case.detail = "all, when resuming"
        run("mount", "--bind", case.workdir, case.workdir)
        case.mends.append(lambda: run("umount", case.workdir))
        run("mount", "-o", "remount,bind,ro", case.workdir)
        return refused(case, case.go(), "Read-only file system")
    case.detail = f"{where or 'the workdir'} at step {count}"
    folder = case.workdir / where
    case.mends.append(lambda: run("chattr", "-i", folder))
    lock = child.Aim("step", count, lambda: run("chattr", "+i", folder))
    return refused(case, case.go(lock), "not permitted")


def refused(case: Case, code: int, words: str) -> str:
    """An error in words, or a run that was through before."""
    if code and (code != 2 or words not in case.text()):
        case.complaints.append(f"ended with {code} and without {words!r}")
    return ended(code)


def clock(case: Case) -> str:
    """The clock jumps by a day during the run, which is killed a little later."""
    day, count = case.rng.choice([-86400, 86400]), case.rng.randint(2, STEPS - 4)
    late = case.rng.uniform(0.1, 1.0)
    case.detail = f"{day:+d} s at step {count}, killed {late:.2f} s later"

    def jump() -> None:
        child.shift_clock(day)
        threading.Timer(late, child.me(signal.SIGKILL)).start()

    return ended(case.go(child.Aim("step", count, jump)))


def nan_batch(case: Case) -> str:
    """Three images hold NaN: their steps are skipped, before and after a kill alike."""
    case.nan = True
    put_nan(case.data, ITS_NAN)
    return aimed("step", STEPS)(case)


def nan_data(case: Case) -> str:
    """All data from a checkpoint on is NaN: the run stops, and goes on when it is mended."""
    first = case.rng.choice([16, 24])
    with np.load(case.data) as file:
        moments = file["image"]
    train = sources.load(f"npz:{case.data}?dtype=float32").arrays[0]
    wanted = {train[i].tobytes() for i in order(len(train))[first * BATCH : STEPS * BATCH]}
    put_nan(case.data, [i for i, x in enumerate(moments) if x.tobytes() in wanted])
    case.mends.append(lambda: shutil.copy(case.ground.latents, case.data))
    case.mends.append(lambda: case.flags.append("--allow_changes"))  # of the data
    case.detail = f"NaN from step {first} on"
    return refused(case, case.go(), "not finite")


def order(length: int) -> list[int]:
    """The images of the first epoch, in the order of training."""
    import grain

    shuffled = grain.MapDataset.range(length).seed(SEED).shuffle()
    return [int(shuffled[i]) for i in range(length)]


def bad_image(case: Case) -> str:
    """An image file that is still to come is garbled, cut or deleted; or garbled before."""
    own = case.folder / case.ground.pictures.name
    shutil.copytree(case.ground.pictures, own)
    case.data = own
    files = sources.load(f"folder:{own}").files
    count = case.rng.randint(1, STEPS - 10)
    how = case.rng.choice(["garbled before", "cut", "garbled", "deleted"])
    place = case.rng.randrange((count + 9) * BATCH, STEPS * BATCH)  # not read ahead yet
    path = own / "train" / files[order(len(files))[place]]
    good = path.read_bytes()
    case.mends.append(lambda: path.write_bytes(good))
    body = good.index(b"IDAT") + 4
    garbled = good[:body] + bytes(b ^ 0x55 for b in good[body:])
    bad = good[: body + 5] if how == "cut" else garbled
    case.detail = f"{how}: {path.name}, used in step {place // BATCH}"

    def hurt() -> None:
        if how == "deleted":
            path.unlink()
        else:
            path.write_bytes(bad)

    if "before" in how:
        hurt()
        return refused(case, case.go(), path.name)
    case.detail += f", at step {count}"
    return refused(case, case.go(child.Aim("step", count, hurt)), path.name)


def one_of_two(case: Case) -> str:
    """One of two processes is killed in a step or in a save; the other one must end, too."""
    victim, place = case.rng.randrange(2), case.rng.choice(["step", "checkpoints"])
    count = case.rng.randint(1, STEPS if place == "step" else 4)
    aim = child.Aim(place, count, child.me(signal.SIGKILL), case.rng.uniform(0, 0.2))
    code = case.go(aim, victim=victim)
    case.detail = f"process {victim}, {place} {count}; other {case.seconds:.1f} s"
    return ended(code)


def _needs(what: str, name: str) -> Callable[[Ground], str]:
    return lambda ground: "" if getattr(ground, what) else f"no {name} here"


COMMITS = [
    f"{store} {place}"
    for store in ("checkpoints", "snapshots")
    for place in ("sums", "rename", "committed")
]
FAULTS = {
    "kill: any moment": Fault(kill_any, 18),
    "kill: at the start": Fault(kill_start, 8),
    "kill: in a step": Fault(aimed("step", STEPS), 14),
    "kill: in a prefetch": Fault(
        one_of(aimed("read", 2 * READS - 12, first=READS), aimed("put", STEPS)), 14
    ),
    "kill: in a checkpoint": Fault(aimed("checkpoints", 4, 0.4), 22),
    "kill: in a snapshot": Fault(aimed("snapshots", 3, 0.4), 14),
    "kill: at a commit": Fault(one_of(*(aimed(p, 3) for p in COMMITS)), 18),
    "kill: in a deletion": Fault(aimed("delete", 2), 5),
    "kill: half a record": Fault(aimed("metrics", STEPS), 5),
    "kill: half a JSON file": Fault(aimed("json", 2), 4),
    "kill: again and again": Fault(kill_again, 8),
    "SIGTERM": Fault(term, 12, keeps_all=True),
    "SIGSTOP": Fault(stop, 6, keeps_all=True),
    "truncated file": Fault(at_rest(truncate), 7),
    "flipped bit": Fault(at_rest(flip), 11),
    "deleted file": Fault(at_rest(delete), 6),
    "deleted checksums": Fault(at_rest(delete, manifest=True), 3),
    "full disk": Fault(full_disk, 8, missing=_needs("mounts", "mount")),
    "read-only folder": Fault(read_only, 5, missing=_needs("locks", "chattr")),
    "clock jump": Fault(clock, 5),
    "NaN batch": Fault(nan_batch, 4, ("latents",), (1,)),
    "NaN data": Fault(nan_data, 2, ("latents",), (1,)),
    "bad image": Fault(bad_image, 8),
    "stalled read": Fault(stalled, 5),
    "one of two killed": Fault(one_of_two, 8, ("pair",), (1,)),
}

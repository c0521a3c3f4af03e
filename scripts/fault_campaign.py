#!/usr/bin/env python
"""Starts real training processes, hurts them, resumes them, compares them with undisturbed ones.

    python scripts/fault_campaign.py --trials 200 --seed 0 --out runs/faults
    python scripts/fault_campaign.py --trials 200 --seed 0 --out runs/faults --only 17

A trial is a run of `jaxgen train` (a GAN or a score network of a few thousand weights, 32 steps on
a folder of pictures, four checkpoints, three snapshots) that meets a fault, is mended if something
outside of it was broken, and is started again by the same command. Everything random in it follows
from (seed, trial). It is wrong unless the second process goes on from the newest intact checkpoint
on disk, finishes, and leaves the arrays, the snapshots and the metrics of an undisturbed run, bit
for bit, without leftovers. A process that is not done after --limit seconds is hung.
Faults that need a file system of their own (mount, chattr) are left out, and counted, without them.
"""

import argparse
import csv
import json
import os
import random
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT)]
os.environ |= {"JAX_PLATFORMS": "cpu", "OPENBLAS_NUM_THREADS": "1", "TQDM_DISABLE": "1"}

import fault_child as child  # noqa: E402
import faults  # noqa: E402

from jaxgen.common import provenance  # noqa: E402

COLUMNS = (
    "trial", "fault", "detail", "run", "ended", "resumed_at", "lost_steps", "resumed", "exact",
    "hung", "wrong", "seconds", "commit",
)  # fmt: skip


def parser() -> argparse.ArgumentParser:
    """The flags."""
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--trials", type=int, default=10, help="number of trials (default 10)")
    p.add_argument("--seed", type=int, default=0, help="of the trials (default 0)")
    p.add_argument("--only", type=int, nargs="+", help="run these trials of the campaign only")
    p.add_argument("--faults", help=f"comma-separated, of {', '.join(faults.FAULTS)} (all)")
    p.add_argument("--run", help="of faults that can hurt several runs: gan or edm2 (drawn)")
    p.add_argument("--workers", type=int, default=1, help="trials at a time (default 1)")
    p.add_argument("--limit", type=float, default=300.0, help="seconds a process may take")
    p.add_argument("--out", default="runs/faults", help="folder of runs and results")
    p.add_argument("--references", help="folder of undisturbed runs (default: --out)")
    p.add_argument("--go_on", action="store_true", help="skip the trials that --out has results of")
    p.add_argument("--keep", action="store_true", help="keep the folders of trials that went well")
    return p


def schedule(names: Sequence[str], trials: int) -> list[str]:
    """The fault of every trial: the shares of faults.FAULTS, as even as can be from the start."""
    total = sum(faults.FAULTS[n].share for n in names)
    given, order = dict.fromkeys(names, 0), []
    for t in range(trials):
        due = {n: faults.FAULTS[n].share / total * (t + 1) - given[n] for n in names}
        name = max(names, key=due.__getitem__)
        given[name] += 1
        order.append(name)
    return order


def summary(rows: Sequence[dict]) -> list[dict]:
    """One row a fault, and one of all."""
    groups = {n: [r for r in rows if r["fault"] == n] for n in faults.FAULTS}
    groups = {n: group for n, group in groups.items() if group}
    out = []
    for name, group in [*groups.items(), ("all", list(rows))]:
        ran = [r for r in group if r["ended"] != "skipped"]
        lost = [r["lost_steps"] for r in ran if isinstance(r["lost_steps"], int)]
        out.append(
            {
                "fault": name,
                "trials": len(ran),
                "skipped": len(group) - len(ran),
                "too late": sum(r["ended"] == "exit 0" and r["fault"] != "SIGSTOP" for r in ran),
                "resumed": sum(r["resumed"] for r in ran),
                "exact": sum(r["exact"] for r in ran),
                "lost steps, mean": round(sum(lost) / len(lost), 1) if lost else None,
                "lost steps, max": max(lost) if lost else None,
                "hung": sum(r["hung"] for r in ran),
                "wrong": sum(bool(r["wrong"]) for r in ran),
            }
        )
    return out


def table(rows: Sequence[dict]) -> str:
    """Columns aligned for a terminal."""
    cells = [list(rows[0]), *([str("" if v is None else v) for v in r.values()] for r in rows)]
    widths = [max(len(c[i]) for c in cells) for i in range(len(cells[0]))]
    return "\n".join(
        "  ".join(v.rjust(w) if i else v.ljust(w) for i, (v, w) in enumerate(zip(c, widths)))
        for c in cells
    )


def write(path: Path, rows: Sequence[dict]) -> None:
    """A CSV file of trials."""
    with path.open("w", newline="") as f:
        writer = csv.DictWriter(f, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def campaign(args: argparse.Namespace) -> list[dict]:
    """Runs the trials and returns a row for each; writes trials.csv on the way."""
    out = Path(args.out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(out / "cache"))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    names = args.faults.split(",") if args.faults else list(faults.FAULTS)
    order = schedule(names, args.trials)
    numbers = list(range(args.trials)) if args.only is None else args.only
    rows = read(out / "trials.csv") if args.go_on else []
    numbers = [t for t in numbers if t not in {r["trial"] for r in rows}]
    if args.workers > 1:
        return _shared(args, out, numbers, rows)
    child.warm()
    os.chdir(ROOT)
    with faults.Ground(out, args.limit, Path(args.references or out)) as ground:
        for t in numbers:
            rows.append(trial(ground, t, order[t], args.seed, args.run, args.keep))
            write(out / "trials.csv", rows)
            row = rows[-1]
            print(
                f"{t:4d} {row['fault']:<22} {row['detail']:<34} {row['run']:<7} "
                f"ended {row['ended']!s:>7}, lost {row['lost_steps']!s:>4}, {row['seconds']:5.1f} s"
                f"{'  HUNG' * row['hung']}{'  WRONG: ' + row['wrong'] if row['wrong'] else ''}",
                flush=True,
            )
    return rows


def _shared(
    args: argparse.Namespace, out: Path, numbers: Sequence[int], rows: list[dict]
) -> list[dict]:
    """Several processes of this script, each with a part of the trials."""
    parts = []
    for i in range(args.workers):
        own = [str(t) for t in numbers[i :: args.workers]]
        command = [
            sys.executable, __file__, "--trials", str(args.trials), "--seed", str(args.seed),
            "--limit", str(args.limit), "--out", str(out / f"part{i}"), "--only", *own,
            "--references", str(args.references or out),
            *(["--faults", args.faults] if args.faults else []), *["--keep"] * args.keep,
            *(["--run", args.run] if args.run else []),
        ]  # fmt: skip
        parts.append(subprocess.Popen(command))
    for part in parts:
        part.wait()
    for i in range(args.workers):
        rows = rows + read(out / f"part{i}" / "trials.csv")
    rows.sort(key=lambda r: r["trial"])
    write(out / "trials.csv", rows)
    return rows


def read(path: Path) -> list[dict]:
    """The rows of a CSV file of trials, if it is there."""
    if not path.is_file():
        return []
    with path.open() as f:
        rows = list(csv.DictReader(f))
    for row in rows:
        for name in ("trial", "resumed", "exact", "hung", "resumed_at", "lost_steps"):
            row[name] = int(row[name]) if row[name] else None
    return rows


def trial(
    ground: "faults.Ground", number: int, name: str, seed: int, run: str = "", keep: bool = False
) -> dict:
    """One trial; the row of it."""
    begin = time.monotonic()
    rng = random.Random(f"{seed}-{number}")
    fault = faults.FAULTS[name]
    drawn = rng.choices(fault.runs, fault.weights)[0]
    case = faults.Case(ground, number, rng, run if run in fault.runs else drawn)
    row = dict.fromkeys(COLUMNS, "") | {"trial": number, "fault": name, "run": case.run}
    row["commit"] = (provenance.commit() or "")[:7]
    row |= {"resumed": 0, "exact": 0, "hung": 0, "lost_steps": None, "resumed_at": None}
    missing = fault.missing(ground)
    if missing:
        return row | {"ended": "skipped", "detail": missing, "seconds": 0.0}
    try:
        ended = fault.hurt(case)
        row |= {"ended": ended, "detail": case.detail}
        newest = case.newest()
        done = case.steps_done()
        case.mend()
        for _ in range(case.again):  # hurt once more, while resuming
            fault.hurt(case)
            newest = case.newest()
        code = case.go(digest=True)
        at = case.resumed_at()
        row |= {"resumed_at": at, "lost_steps": max(0, done - at // case.batch)}
        row["resumed"] = int(code == 0)
        wrong = [] if at == newest else [f"went on from {at} with {newest} intact on disk"]
        wrong += case.complaints + ([f"exit code {code}"] if code else case.differences())
        if fault.keeps_all and row["lost_steps"]:
            wrong.append(f"lost {row['lost_steps']} steps")
        row |= {"wrong": "; ".join(wrong), "exact": int(not wrong)}
    except faults.Hung as e:
        row |= {"hung": 1, "detail": f"{case.detail}: {e}"}
    finally:
        case.mend()
        case.close(keep or row["hung"] or bool(row["wrong"]))
    return row | {"seconds": round(time.monotonic() - begin, 1)}


def main(argv: Sequence[str] | None = None) -> int:
    """The command: 0 when nothing hung and nothing was wrong."""
    args = parser().parse_args(argv)
    unknown = [n for n in (args.faults or "").split(",") if n and n not in faults.FAULTS]
    if unknown:
        parser().error(f"unknown faults {unknown}; there are {list(faults.FAULTS)}")
    start = time.monotonic()
    rows = campaign(args)
    rows_by_fault = summary(rows)
    print("\n" + table(rows_by_fault))
    print(f"{time.monotonic() - start:.0f} s on {socket.gethostname()}; {args.out}/trials.csv")
    (Path(args.out) / "summary.json").write_text(json.dumps(rows_by_fault, indent=1) + "\n")
    return int(bool(rows_by_fault[-1]["hung"] or rows_by_fault[-1]["wrong"]))


if __name__ == "__main__":
    sys.exit(main())

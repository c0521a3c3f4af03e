"""Times a start: from calling `jaxgen train` to the first step, with an empty and a full cache.

    python scripts/bench.py start --config configs/edm2/digits.py --repeats 3

Every start is a process of its own with a workdir of its own, which is ended after the first step.
The compilation cache is empty at the first one and full at the others; files of Python and of the
data are in the operating system's cache for all (one start before the first fills it). Lines that
the command prints divide the time.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import measure

from jaxgen.cli import common
from jaxgen.train.store import write_json

# What the command prints, and the part that ends there.
MARKS = (
    ("data: ", "imports, config, data"),
    ("parameters: ", "plan, initial state"),
    ("compiling", "input, shardings"),
    ("compiled", "trace, compile"),
    ("first step", "first step"),
)


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "bench", __doc__.partition("\n")[0], "scripts/bench.py start --config FILE.py --repeats 3"
    )
    p.prog = "scripts/bench.py start"
    p.add_argument("--config", required=True, help="config file, its argument after a colon")
    p.add_argument("--config.NAME", metavar="VALUE", dest="_", help="change a setting")
    p.add_argument("--repeats", type=int, default=3, help="starts with a full cache (default 3)")
    p.add_argument("--timeout", type=float, default=900, help="seconds a start may take (900)")
    p.add_argument("--json", metavar="FILE", help="write everything that was measured here")
    return p


def start(spec: str, overrides: list[str], cache: Path, timeout: float) -> dict[str, float]:
    """Seconds of each part, and "first step done" in all, of one start.

    Raises:
      RuntimeError: the command ended before its first step.
    """
    env = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "jaxgen", "train", "--no_progress", "--config", spec]
        command += ["--workdir", f"{folder}/run", *overrides]
        begin = last = time.perf_counter()
        child = subprocess.Popen(
            command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        found, text, marks = {}, [], list(MARKS)
        try:
            for line in child.stdout:
                text.append(line)
                now = time.perf_counter()
                if now - begin > timeout:
                    raise RuntimeError(f"no first step after {timeout:g} s")
                if line.startswith(marks[0][0]):
                    found[marks.pop(0)[1]] = now - last
                    last = now
                if not marks:
                    return {**found, "all": now - begin}
        finally:
            child.kill()
            child.wait()
            child.stdout.close()
    raise RuntimeError("the command ended before its first step:\n" + "".join(text[-20:]))


def main(argv: list[str]) -> int:
    """Measures, prints, writes."""
    args, rest = parser().parse_with_overrides(argv)
    if args.repeats < 1:
        parser().error("--repeats must be at least 1")
    common.load_config(args.config, rest)  # complains before anything is started
    subprocess.run([sys.executable, "-m", "jaxgen", "train", "--help"], capture_output=True)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        cold = start(args.config, rest, cache, args.timeout)
        warm = [start(args.config, rest, cache, args.timeout) for _ in range(args.repeats)]
        files = [f for f in cache.rglob("*") if f.is_file()]
        size = sum(f.stat().st_size for f in files)
    medians = {k: measure.spread([w[k] for w in warm])["median"] for k in cold}
    print(f"{args.config} {' '.join(rest)}")
    print(f"{'seconds':<24}{'empty cache':>12}{'full cache':>12}")
    for k in cold:
        print(f"{k:<24}{cold[k]:12.2f}{medians[k]:12.2f}")
    ratio = cold["all"] / medians["all"]
    print(f"{ratio:.1f} times quicker; the cache holds {len(files)} files, {size / 1e6:.1f} MB")
    if args.json:
        how = {"mode": "start", "config": args.config, "overrides": rest}
        found = {"empty": cold, "full": warm, "ratio": ratio, "cache_bytes": size}
        found |= {"cache_files": len(files), "machine": measure.machine()}
        write_json(Path(args.json), {**how, **found})
    return 0

"""Times a step on 1 to 8 virtual devices and 1 or 2 processes: compute, collectives, input, saves.

    python scripts/bench.py scaling --config configs/edm2/digits.py --cases 1x1,1x2,1x8,2x1

A case is processes x devices of each; it runs in processes of its own, several of them joined by
gloo on loopback. The first case is the baseline. The virtual devices of a machine share its cores:
the ratio to the baseline shows what splitting costs, not how a pod would scale. bench_parts.py says
how each part is measured; what remains of a step is `rest`: devices waiting for each other, and
what the partitioned program does beside both parts (negative where the parts overlap).
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from jaxgen.cli import common
from jaxgen.train.store import write_json

CASES = "1x1,1x2,1x4,1x8,2x1"
DEVICES = "--xla_force_host_platform_device_count"


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "bench", __doc__.partition("\n")[0], "scripts/bench.py scaling --config FILE.py --repeats 3"
    )
    p.prog = "scripts/bench.py scaling"
    p.add_argument("--config", required=True, help="config file, its argument after a colon")
    p.add_argument("--config.NAME", metavar="VALUE", dest="_", help="change a setting")
    p.add_argument("--cases", default=CASES, help=f"PROCESSESxDEVICES, ... (default {CASES})")
    p.add_argument(
        "--weak", action="store_true", help="the config's batch on every device, not over all"
    )
    p.add_argument("--steps", type=int, default=10, help="of a round (default 10)")
    p.add_argument("--repeats", type=int, default=5, help="timed rounds (default 5)")
    p.add_argument("--timeout", type=float, default=900, help="seconds a case may take (900)")
    p.add_argument("--json", metavar="FILE", help="write everything that was measured here")
    return p


def parse_cases(text: str) -> list[tuple[int, int]]:
    """[(processes, devices of each)] of "1x1,2x4".

    Raises:
      ValueError: not of that form.
    """
    found = []
    for part in text.split(","):
        processes, x, devices = part.partition("x")
        if not (x and processes.isdigit() and devices.isdigit() and int(processes) * int(devices)):
            raise ValueError(f"--cases are PROCESSESxDEVICES such as {CASES}, got {part!r}")
        found.append((int(processes), int(devices)))
    return found


def environment(devices: int) -> dict[str, str]:
    """This process's environment with so many virtual devices of the CPU."""
    flags = [f for f in os.environ.get("XLA_FLAGS", "").split() if not f.startswith(DEVICES)]
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": " ".join([*flags, f"{DEVICES}={devices}"]),
    }


def run_case(processes: int, devices: int, spec: dict[str, Any], timeout: float) -> dict[str, Any]:
    """What process 0 of a case has measured.

    Raises:
      RuntimeError: a process failed, with the end of its output, or took too long.
    """
    with tempfile.TemporaryDirectory() as folder, socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
        s.close()
        out, described = Path(folder) / "out.json", Path(folder) / "case.json"
        coordinator = f"localhost:{port}"
        write_json(
            described,
            {**spec, "processes": processes, "coordinator": coordinator, "out": str(out)},
        )
        script = Path(__file__).with_name("bench_parts.py")
        children, logs = [], []
        for i in range(processes):
            logs.append(Path(folder) / f"{i}.log")
            with logs[-1].open("w") as log:
                command = [sys.executable, script, described, str(i)]
                how = {"stdout": log, "stderr": subprocess.STDOUT, "env": environment(devices)}
                children.append(subprocess.Popen(list(map(str, command)), **how))
        try:
            codes = [c.wait(timeout) for c in children]
        except subprocess.TimeoutExpired as e:
            raise RuntimeError(f"{processes}x{devices}: not done after {timeout:g} s") from e
        finally:
            for c in children:
                c.kill()
        if any(codes) or not out.is_file():
            text = "\n".join(log.read_text()[-2000:] for log in logs)
            raise RuntimeError(f"{processes}x{devices}: exit codes {codes}\n{text}")
        return json.loads(out.read_text())


def row(name: str, r: dict[str, Any], baseline: dict[str, Any]) -> str:
    """A case in one line, milliseconds."""
    ms = lambda seconds: f"{seconds * 1e3:9.4g}"
    step, compute, sent = (r[k]["median"] for k in ("step", "compute", "collectives"))
    rest = step - compute - sent - r["input"]
    images = (r["batch"] / step) / (baseline["batch"] / baseline["step"]["median"])
    parts = (step, compute, sent, r["input"], rest, r["save"]["median"])
    return f"{name:<7}{r['batch']:6}" + "".join(map(ms, parts)) + f"{images:10.2f}"


def main(argv: list[str]) -> int:
    """Runs the cases one after the other, prints a table, writes JSON."""
    args, rest = parser().parse_with_overrides(argv)
    if args.steps < 1 or args.repeats < 1:
        parser().error("--steps and --repeats must be at least 1")
    config, cases = common.load_config(args.config, rest), parse_cases(args.cases)
    print(config)
    what = f"{args.repeats} rounds of {args.steps} steps, medians"
    print(f"baseline            {args.cases.partition(',')[0]}; {what}; milliseconds", flush=True)
    names = ("step", "compute", "sending", "input", "rest", "save", "images/s")
    print(f"{'case':<7}{'batch':>6}" + "".join(f"{n:>9}" for n in names[:-1]) + f"{names[-1]:>10}")
    found: dict[str, Any] = {}
    for processes, devices in cases:
        batch = config.batch * (processes * devices if args.weak else 1)
        spec = {"config": args.config, "overrides": [*rest, f"--config.batch={batch}"]}
        spec |= {"steps": args.steps, "repeats": args.repeats}
        name = f"{processes}x{devices}"
        r = found[name] = run_case(processes, devices, spec, args.timeout)
        print(row(name, r, next(iter(found.values()))), flush=True)
    for name, r in found.items():
        sent = [f"{v['number']} {k} of {v['bytes'] / 1e6:.3g} MB" for k, v in r["sent"].items()]
        print(f"{name:<7}a step sends {', '.join(sent) or 'nothing'}")
    where = found[name]["machine"]
    size = f"state {r['state_bytes'] / 1e6:.3g} MB"
    print(f"machine             {where['machine']}; {size}")
    print("The devices share these cores: the split matters here, not the scaling.")
    if args.json:
        how = {k: getattr(args, k) for k in ("config", "weak", "steps", "repeats")}
        settings = {"overrides": rest, "settings": json.loads(config.to_json())}
        write_json(Path(args.json), {"mode": "scaling", **how, **settings, "cases": found})
    return 0

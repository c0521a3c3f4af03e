"""`jaxgen reproduce`: starts the run of a results.json again and compares its first losses."""

import contextlib
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxgen.cli import common, train
from jaxgen.cli.saved import as_tuples

TOLERANCE = 1e-3  # of the largest loss, where the same bits cannot be expected
SAME = ("versions", "commit", "python", "device", "machine", "xla_flags", "mesh", "processes")
WHERE = ("--config.mesh.", "--config.microbatches=")  # settings that other hardware may need


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "reproduce",
        "Start the run of a results.json again and compare the losses of its first steps: bit for "
        "bit where versions, machine and mesh are the same, and within --tolerance elsewhere. Exit "
        "code 1 when they differ.",
        "jaxgen reproduce runs/digits/results.json --steps 10",
    )
    p.add_argument("results", help="results.json of a run, or its folder")
    p.add_argument("--steps", type=int, help="steps to compare (default: all that were recorded)")
    p.add_argument("--full", action="store_true", help="go on to the end of the run")
    p.add_argument(
        "--workdir", help="new folder of the repeated run (default: a temporary one; for --full)"
    )
    p.add_argument(
        "--tolerance",
        type=float,
        help="difference allowed, as a part of the largest recorded loss (default: 0 where all is "
        f"the same, else {TOLERANCE:g})",
    )
    p.add_argument(
        "--allow_other_data", action="store_true", help="compare although the data have changed"
    )
    p.add_argument(
        "--config.mesh.NAME", metavar="VALUE", help="other devices; microbatches too", dest="_"
    )
    p.add_argument("--no_progress", action="store_true", help="no progress bar")
    common.add_process_flags(p)
    return p


def main(argv: list[str]) -> int:
    """Runs the command; 0 when the losses are the same, 1 when they differ."""
    args, rest = parser().parse_known_args(argv)
    strange = [a for a in rest if not a.startswith(WHERE)]
    if strange:
        parser().error(
            f"{strange[0]}: only --config.mesh.NAME=VALUE and --config.microbatches=N may differ"
        )
    if args.full and not args.workdir:
        parser().error("--full needs a --workdir for the whole run")
    started, recorded, saved = read(args.results)
    count = len(recorded) if args.steps is None else args.steps
    if not 1 <= count <= len(recorded):
        raise ValueError(
            f"--steps must be in 1..{len(recorded)}, the steps that {args.results} has, got {count}"
        )
    if args.full and (lines := train.changes(started["config"], saved["config"])):
        raise ValueError(
            f"settings of {args.results} were changed on the way ({'; '.join(lines.values())}), so "
            "no one command repeats all of it; leave --full out to compare its first steps"
        )
    from ml_collections import ConfigDict

    config = common.load_config(ConfigDict(as_tuples(started["config"])), rest)
    with common.several(args), _folder(args) as workdir:
        return _repeat(config, started, recorded[:count], saved, workdir, args)


def _repeat(
    config: Any, started: dict, recorded: list, saved: dict, workdir: Path, args: Any
) -> int:
    """Trains and compares."""
    import jax

    from jaxgen.common import provenance
    from jaxgen.train import firsts

    mesh = dict(common.make_mesh(config).shape)
    now = {**provenance.facts(), "mesh": mesh, "processes": jax.process_count()}
    others = differences(started, now)
    tolerance = args.tolerance
    if tolerance is None:
        tolerance = TOLERANCE if others else 0.0
    first = jax.process_index() == 0
    if first:
        print(
            "everything that is known to matter is the same" if not others else "other than then:"
        )
        print("".join(f"  {line}\n" for line in others), end="")
    code = train.run(
        config,
        workdir,
        {"reproduce": str(args.results)},
        progress=not args.no_progress,
        expected_data=None if args.allow_other_data else started["data_fingerprint"],
        steps=None if args.full else len(recorded),
    )
    if code or not first:
        return code
    repeated = firsts.read(workdir / "first_steps.json")["steps"]
    rows, wrong = firsts.compare(recorded, repeated, tolerance)
    print(f"\n{'step':>5}  {'loss':<16} {'recorded':>16} {'repeated':>16}")
    for row in rows:
        step, name, a, b = row
        mark = "  differs" if row in wrong else ""
        print(f"{step:>5}  {name.removesuffix('/loss'):<16} {_text(a)} {_text(b)}{mark}")
    if args.full:
        end = json.loads((workdir / "results.json").read_text())
        for name, value in firsts.losses(saved["last"]).items():
            print(f"  end  {name.removesuffix('/loss'):<16} {_text(value)} "
                  f"{_text(end['last'].get(name))}")  # fmt: skip
    how = "bit for bit" if tolerance == 0 else f"within {tolerance:g} of the largest loss"
    if wrong:
        print(f"{len(wrong)} of {len(rows)} losses are not the same {how}")
        return 1
    print(f"all {len(rows)} losses of {len(recorded)} steps are the same {how}")
    return 0


def _text(value: float | None) -> str:
    return f"{'not finite' if value is None else format(value, '.9g'):>16}"


def read(path: str | Path) -> tuple[dict, list, dict]:
    """(what started the run, its first steps, the whole) of a results.json.

    Raises:
      ValueError: no such file, or one without first steps.
    """
    from jaxgen.train import firsts

    path = Path(path)
    path = path / "results.json" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(
            f"there is no {path}; a run of jaxgen train writes its results.json when it ends or "
            "is stopped by a signal"
        )
    try:
        saved = json.loads(path.read_text())
        started, steps = saved.get("started"), saved.get("first_steps")
    except (ValueError, AttributeError, RecursionError) as e:
        raise ValueError(f"{path} is not the results.json of a run: {e}") from e
    if not started or not steps:
        raise ValueError(
            f"{path} has no record of the run's first steps: it is of an older version, or the run "
            "went on from weights that had been trained before"
        )
    kinds = {"config": dict, "versions": dict, "data_fingerprint": str}
    parts = [(saved, "config", dict), (saved, "last", dict)]
    parts += [(started, k, v) for k, v in kinds.items()]
    wrong = [k for x, k, kind in parts if not isinstance(x, dict) or not isinstance(x.get(k), kind)]
    if wrong or not firsts.are_steps(steps):
        raise ValueError(
            f"{path} is damaged: {', '.join(wrong) or 'its first steps'} are not what a run writes"
        )
    return started, steps, saved


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A line for each fact that may change the bits of a loss and is not as it was."""
    from jaxgen.common.mesh import in_words

    lines = []
    for name in SAME:
        a, b = then.get(name), now[name]
        if name == "versions":
            old = a or {}
            lines += [f"{k}: {old.get(k)} -> {v}" for k, v in b.items() if old.get(k) != v]
        elif a != b:
            a, b = ((in_words(x) if isinstance(x, dict) else x) for x in (a, b))
            lines.append(f"{name}: {a} -> {b}")
    return lines


@contextlib.contextmanager
def _folder(args: Any) -> Iterator[Path]:
    """--workdir, which must hold no run yet, or a temporary folder."""
    if args.workdir:
        if common.read_saved(args.workdir) is not None:
            raise ValueError(
                f"{args.workdir} holds a run already; take a new folder (jaxgen train --workdir "
                f"{args.workdir} goes on with a repetition that was cut off)"
            )
        yield Path(args.workdir)
        return
    import jax

    if jax.process_count() > 1:
        raise ValueError("several processes need a --workdir that all of them see")
    with tempfile.TemporaryDirectory(prefix="jaxgen-") as folder:
        yield Path(folder)

"""`jaxgen train`: a config becomes a run in a workdir; the same command again goes on with it."""

import dataclasses
import json
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.cli import common


def parser() -> common.Parser:
    """The flags; `--config.name=value` overrides go to the config."""
    p = common.Parser(
        "train",
        "Train the run that a config describes, or go on with it.",
        "jaxgen train --config configs/edm2/digits.py --workdir runs/digits --config.batch=64",
    )
    run = p.add_argument_group("run")
    run.add_argument("--config", help="config file, with its argument after a colon: file.py:debug")
    run.add_argument("--workdir", required=True, help="folder of the run, made if missing")
    run.add_argument(
        "--config.NAME", metavar="VALUE", help="change a setting: --config.batch=64", dest="_"
    )
    resume = p.add_argument_group("resuming")
    resume.add_argument(
        "--allow_changes", action="store_true", help="go on although the config has changed"
    )
    resume.add_argument(
        "--no_verify", action="store_true", help="skip the checksums of what is read"
    )
    look = p.add_argument_group("output")
    look.add_argument("--no_progress", action="store_true", help="no progress bar")
    look.add_argument("--dry_run", action="store_true", help="print the config and stop")
    common.add_process_flags(p)
    return p


def main(argv: list[str]) -> int:
    """Runs the command; 0 when finished, 128 + signal when stopped by one."""
    args, rest = parser().parse_with_overrides(argv)
    saved = common.read_saved(args.workdir)
    command = {"config": args.config, "overrides": rest}
    if saved and {"import", "reproduce"} & set(saved["command"]):
        config = _of_workdir(saved, args, rest)
        command = {**saved["command"], "overrides": rest}
    else:
        if args.config is None:
            if saved is None:
                parser().error("--config is needed for a new run")
            args.config = saved["command"]["config"]
            rest = [*saved["command"]["overrides"], *rest]
            command = {"config": args.config, "overrides": rest}
        config = common.load_config(args.config, rest)
    if args.dry_run:
        print(config)
        return 0
    changed = _changes(saved, config, args)
    with common.several(args):
        return run(
            config,
            args.workdir,
            command,
            saved,
            changed,
            verify=not args.no_verify,
            progress=not args.no_progress,
            expected_data=None if args.allow_changes else (saved or {}).get("data_fingerprint"),
        )


def _of_workdir(saved: Any, args: Any, overrides: list[str]) -> Any:
    """The config to go on with imported weights or a reproduced run, which no file has.

    Raises:
      ValueError: weights without a state of training; without data; another config.
    """
    from ml_collections import ConfigDict

    if not (Path(args.workdir) / "checkpoints").is_dir():
        raise ValueError(
            f"{args.workdir} holds imported weights, and no state of training to go on from; "
            "train in another --workdir"
        )
    if args.config is not None:
        raise ValueError(
            f"{args.workdir} has a config of its own; leave --config out and change it by "
            "--config.NAME=VALUE"
        )
    config = common.load_config(ConfigDict(saved["config"]), overrides)
    if saved["facts"]["name"] == "imported":
        raise ValueError(
            f"{args.workdir} was imported without data to train on; import it again with --data "
            "SOURCE"
        )
    return config


FREE = ("mesh.", "watchdog.")  # settings that do not change what is trained


def changes(old: Any, new: Any) -> dict[str, str]:
    """{key: "key: old -> new"} of the settings that are not the same, FREE ones left out."""
    return {k: line for k, line in _differing(old, new).items() if not k.startswith(FREE)}


def _differing(old: Any, new: Any) -> dict[str, str]:
    old, new = common.flatten(old), common.flatten(new)
    missing = object()
    keys = [k for k in {**old, **new} if old.get(k, missing) != new.get(k, missing)]
    return {k: f"{k}: {old.get(k, '(not there)')} -> {new.get(k, '(not there)')}" for k in keys}


def _changes(saved: Any, config: Any, args: Any) -> list[str]:
    """The keys in which a resumed run's config differs; refused unless FREE or allowed."""
    if saved is None:
        return []
    refused = changes(saved["config"], config)
    if refused and not args.allow_changes:
        lines = "".join(f"  {line}\n" for line in refused.values())
        raise ValueError(
            f"{args.workdir} holds a run with another config:\n{lines}"
            "Use the same settings, another --workdir, or --allow_changes to go on with these"
        )
    return list(_differing(saved["config"], config).values())


def run(
    config: Any,
    workdir: str | Path,
    command: dict,
    saved: Any = None,
    changed: Sequence[str] = (),
    *,
    verify: bool = True,
    progress: bool = True,
    expected_data: str | None = None,
    steps: int | None = None,
) -> int:
    """Builds the plan and trains it; 0 when finished, 128 + signal when stopped by one.

    Args:
      config: the ConfigDict. workdir: the run's folder. command: how it was asked for.
      saved: config.json of the run that goes on. changed: its settings that are others now.
      verify: checksums. progress: a bar. expected_data: the fingerprint that the data must have.
      steps: to stop after, without samples; None: the whole run.
    """
    import jax

    from jaxgen import recipes
    from jaxgen.common import mesh as meshes
    from jaxgen.common import processes, provenance, units
    from jaxgen.data import pipeline
    from jaxgen.data.fingerprint import fingerprint
    from jaxgen.data.source import limited
    from jaxgen.train import firsts, kept, loop, store, watchdog
    from jaxgen.train.plan import Stage

    first = jax.process_index() == 0
    log = (lambda text: tqdm_print(text)) if first else (lambda text: None)
    workdir = Path(workdir)
    mesh = common.make_mesh(config)
    meshes.check_batch(config.batch, mesh, config.microbatches)
    source = common.load_source(config.data.source, "train")
    source = limited(source, config.data.limit) if config.data.limit else source
    facts = common.source_facts(source, config)
    built = recipes.build(config, facts)
    stages = [Stage(built, units.images(config.images))] if hasattr(built, "players") else built
    if steps is not None:
        stages = _cut(stages, steps * config.batch)
    digest = fingerprint(source)
    processes.check_same("the data", digest)
    if expected_data not in (None, digest):
        raise ValueError(
            f"the images or labels of {config.data.source!r} have changed since the run began "
            f"(fingerprint {digest[:12]}, expected {expected_data[:12]}). Bring the old ones back, "
            "or say that others will do (train --allow_changes, reproduce --allow_other_data)"
        )
    changed = [*changed, *_moved(saved, dict(mesh.shape))]
    how = {
        "config": json.loads(config.to_json()),
        "facts": facts,
        "data_fingerprint": digest,
        "mesh": dict(mesh.shape),
        "processes": jax.process_count(),
        **provenance.facts(),
    }
    about = {
        **how,
        "command": command,
        "history": [*(saved or {}).get("history", []), *changed],
    }
    if first:
        if saved is None:
            print(config)
        for line in changed:
            print(f"changed: {line}")
        store.write_json(workdir / "config.json", about)
    log(f"data: {source!r}")
    log(f"devices: {mesh.size} ({meshes.in_words(mesh.shape)})")

    def data(start_step: int) -> Any:
        host = pipeline.batches(
            source,
            config.batch,
            config.seed,
            start_step,
            rows=meshes.local_rows(mesh, config.batch),
        )
        return pipeline.to_device(host, lambda b: meshes.put_batch(b, mesh))

    start = time.perf_counter()
    try:
        final, nimg = loop.train(
            stages,
            data,
            workdir=workdir,
            mesh=mesh,
            batch=config.batch,
            seed=config.seed,
            microbatches=config.microbatches,
            every=loop.Every(
                log=units.images(config.log_every),
                checkpoint=units.images(config.checkpoint_every),
                snapshot=units.images(config.snapshot_every),
            ),
            keep=config.keep_checkpoints,
            snapshot_dtype=config.snapshot_dtype,
            max_skips=config.max_skips,
            hooks=_hooks(config, workdir, facts, mesh) if steps is None else [],
            meta={"config": how["config"], **provenance.facts()},
            each=firsts.FirstSteps(workdir, how, config.batch) if first else None,
            fresh_snapshots=not all(line.startswith(FREE) for line in changed),
            verify=verify,
            watch=watchdog.of(config.get("watchdog", {})),
            traces=kept.folder(),
            progress=progress,
            log=log,
        )
        code, end = 0, f"finished: {units.describe(nimg)} images in {workdir}"
        del final
    except loop.Stopped as e:
        code, end = 128 + e.signum, str(e)
    if first:
        from jaxgen.train import writer

        records = writer.read(workdir / "metrics.jsonl")
        record = firsts.read(workdir / "first_steps.json")
        results = {
            "finished": code == 0,
            "nimg": records[-1]["nimg"] if records else 0,
            "seed": config.seed,
            "seconds": round(time.perf_counter() - start, 1),
            "last": next((r for r in reversed(records) if firsts.losses(r)), {}),
            "first_steps": record.get("steps", []),
            **about,
            "started": record.get("started"),  # what made the first steps, if not all of the above
        }
        store.write_json(workdir / "results.json", results)
    log(end)
    return code


def _cut(stages: Sequence[Any], until: int) -> list[Any]:
    """Stages up to so many images."""
    before = [0, *(s.until for s in stages)]
    cut = [dataclasses.replace(s, until=min(s.until, until)) for s in stages]
    return [s for s, start in zip(cut, before) if start < until]


def _moved(saved: Any, axes: Mapping[str, int]) -> list[str]:
    """A line for the history when the run goes on on other devices; they change no batch."""
    from jaxgen.common.mesh import in_words

    old = (saved or {}).get("mesh", axes)
    return [f"mesh.devices: {in_words(old)} -> {in_words(axes)}"] if old != axes else []


def _hooks(config: Any, workdir: Path, facts: dict, mesh: Any) -> list:
    """A grid of samples of the first tracked average now and then."""
    from jaxgen.common import units
    from jaxgen.train.loop import Hook

    every = units.images(config.sample_every)
    if not every:
        return []

    def draw(plan: Any, state: Any, nimg: int) -> None:
        from jaxgen.cli import sampling

        if plan.sample is None:
            return
        run = common.Run(workdir, config, facts, plan, mesh)
        profile = next(iter(state.averages), None)
        params = state.averages[profile] if profile else state.params
        path = workdir / "samples" / f"{nimg:012d}.png"
        sampling.grid_of(
            plan, params, facts, path, mesh=mesh, num=64, seed=config.seed, source=run.held_out()
        )

    return [Hook("samples", every, draw)]


def tqdm_print(text: str) -> None:
    """Prints above a progress bar."""
    from tqdm import tqdm

    tqdm.write(text, file=sys.stdout)
    sys.stdout.flush()

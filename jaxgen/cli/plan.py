"""`jaxgen plan`: what a config needs on a machine, before it runs there; see docs/planning.md."""

import dataclasses
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgen.cli import common

TRIED = ("mesh.fsdp", "microbatches", "model.remat")  # what --search changes


def parser() -> common.Parser:
    """The flags; `--config.name=value` overrides go to the config."""
    p = common.Parser(
        "plan",
        "Estimate memory, time and cost of a run, on machines that need not be here.",
        "jaxgen plan --config configs/edm2/imagenet512.py:xxl --topology v5p:8x8x8 "
        "--config.mesh.fsdp=64",
    )
    run = p.add_argument_group("run")
    run.add_argument("--config", required=True, help="config file, its argument after a colon")
    run.add_argument("--config.NAME", metavar="VALUE", dest="_", help="change a setting")
    run.add_argument("--shape", help="of an image, such as 64x64x3, where the data are not here")
    run.add_argument("--labels", type=int, help="number of classes, 0 for none (with --shape)")
    on = p.add_argument_group("machine")
    on.add_argument(
        "--topology",
        default="here",
        help="v4, v5e, v5p, v6e, tpu7x with the shape of a slice (v5p:8x8x8, v5e:16x16), a100, "
        "h100, h200 with a number (h200:64), or here (default)",
    )
    on.add_argument("--slices", type=int, default=1, help="TPU slices, joined by a network")
    how = p.add_argument_group("how")
    how.add_argument(
        "--search", action="store_true", help="try remat, fsdp and microbatches: what fits?"
    )
    how.add_argument(
        "--compile",
        action="store_true",
        help="compile the real step for these TPUs, which need not be here (needs libtpu and, for "
        "networks of convolutions, minutes; kept in ~/.cache/jaxgen/aot)",
    )
    how.add_argument("--no_measure", action="store_true", help="here: do not compile and time")
    how.add_argument("--json", metavar="FILE", help="write all numbers here")
    return p


@dataclasses.dataclass
class Planning:
    """A config, the facts of its data and the machine; `note` says where the facts are from."""

    config: Any
    facts: dict[str, Any]
    dtype: str
    topology: Any
    note: str

    @classmethod
    def open(cls, args: Any, overrides: list[str]) -> "Planning":
        """From the flags."""
        from jaxgen.planning import chips, here

        config = common.load_config(args.config, overrides)
        facts, dtype, note = facts_of(config, args.shape, args.labels)
        topology = (
            here.topology() if args.topology == "here" else chips.parse(args.topology, args.slices)
        )
        if config.dtype == "auto" and topology.chip.kind != "cpu":
            config.dtype = "bfloat16"  # as on the machine that is planned for
        return cls(config, facts, dtype, topology, note)

    def plan(self) -> Any:
        """Of the last stage, which has the largest images."""
        from jaxgen import recipes

        return common.last_stage(recipes.build(self.config, self.facts))

    def mesh(self, devices: Any = None) -> Any:
        """The config's mesh, abstract or of devices."""
        from jaxgen.common import mesh

        axes = self.config.mesh
        if devices is not None:
            return common.make_mesh(self.config, devices)
        n = self.topology.chips
        made = mesh.abstract_mesh(n, axes.data, axes.fsdp, axes.get("tensor", 1))
        if made.shape["data"] % self.topology.slices:
            raise ValueError(
                f"mesh.data must be a multiple of the {self.topology.slices} slices, between which "
                f"only it runs, got {dict(made.shape)}; lower mesh.fsdp or mesh.tensor"
            )
        return made

    def devices(self) -> list[Any]:
        """What the topology consists of, to compile for.

        Raises:
          ValueError: no TPUs, or no libtpu.
        """
        from jaxgen.planning import aot

        if self.topology.chip.kind != "tpu" or self.topology.row:
            raise ValueError(
                f"--compile is for a TPU topology such as v5e:4x4, got {self.topology}; --topology "
                "here compiles and times the step on this machine"
            )
        shape = "x".join(map(str, self.topology.shape))
        return aot.devices(f"{self.topology.name}:{shape}", self.topology.slices)

    def data(self) -> dict[str, Any]:
        """Structs of the global batch."""
        from jaxgen.planning import estimate

        f = self.facts
        return estimate.structs(
            f["shape"], self.dtype, f["label_kind"], f["label_dim"], self.config.batch
        )

    def estimate(self, settings: Mapping[str, Any] | None = None) -> Any:
        """Of the config, with some settings changed for this once."""
        from ml_collections import ConfigDict

        from jaxgen.common import units
        from jaxgen.planning import estimate

        config = ConfigDict(self.config.to_dict())
        for name, value in (settings or {}).items():
            *path, last = name.split(".")
            node = config
            for part in path:
                node = node[part]
            node[last] = value
        changed = dataclasses.replace(self, config=config)
        return estimate.estimate(
            changed.plan(),
            self.topology,
            changed.mesh(),
            changed.data(),
            microbatches=config.microbatches,
            images=units.images(config.images),
        )

    def other_remat(self) -> Any:
        """The estimate with model.remat switched; None where the config has no such key."""
        if "model.remat" not in (now := self.settings()):
            return None
        return self.estimate({"model.remat": not now["model.remat"]})

    def settings(self) -> dict[str, Any]:
        """The present values of what a search changes."""
        flat = common.flatten(self.config)
        now = {n: flat[n] for n in (*TRIED, "mesh.tensor") if n in flat}
        now["mesh.fsdp"] = self.mesh().shape["fsdp"]
        return now


def facts_of(config: Any, shape: str | None, labels: int | None) -> tuple[dict, str, str]:
    """(facts, dtype of images, where they are from): from flags, the table, or the source itself.

    Raises:
      ValueError: none of them knows.
    """
    from jaxgen.data import facts, sources

    spec = config.data.source
    if shape:
        sides = shape.lower().split("x")
        if len(sides) != 3 or not all(s.isdigit() and int(s) for s in sides):
            raise ValueError(f"--shape is HEIGHTxWIDTHxCHANNELS such as 64x64x3, got {shape!r}")
        kind = "class" if labels else "none"
        dtype = "float32" if config.data.latents or "float32" in spec else "uint8"
        found = facts.Facts(tuple(map(int, sides)), kind, labels or 0, 0, dtype)
        note = "as given by flags"
    elif labels is not None:
        raise ValueError("--labels goes with --shape")
    elif found := facts.known(spec):
        note = "as published, not opened"
    else:
        try:
            source = sources.load(spec, "train")
        except (OSError, ValueError) as e:
            raise ValueError(
                f"the data {spec!r} are not here, and their shape is not known; say it with "
                f"--shape 64x64x3 --labels 10. ({str(e).splitlines()[0]})"
            ) from e
        found = facts.Facts(
            tuple(source.shape), source.label_kind, source.label_dim, len(source),
            source.dtype.name,
        )  # fmt: skip
        note = "opened"
    has = config.data.labels
    named = {
        "name": spec,
        "shape": found.shape,
        "label_kind": found.labels if has else "none",
        "label_dim": found.label_dim if has else 0,
        "length": found.length,
        "class_names": None,
    }
    return named, found.dtype, note


def main(argv: list[str]) -> int:
    """Runs the command; 0 when the run fits, 1 when it does not."""
    args, rest = parser().parse_with_overrides(argv)
    common.setup_jax()
    import jax

    from jaxgen.common import mesh as meshes
    from jaxgen.planning import estimate, here, report
    from jaxgen.train import store

    if args.topology != "here":
        jax.config.update("jax_platforms", "cpu")  # nothing is computed: leave accelerators alone
    planning = Planning.open(args, rest)
    devices = planning.devices() if args.compile else []
    config, facts = planning.config, planning.facts
    found = planning.estimate()
    plan, mesh = planning.plan(), planning.mesh()
    shape = "x".join(map(str, facts["shape"]))
    labels = f"{facts['label_dim']} {facts['label_kind']}" if facts["label_dim"] else "no"
    axes = meshes.in_words(mesh.shape)
    print(f"{args.config} on {planning.topology} = {found.chips} chips ({axes})")
    print(f"data: {facts['name']}: {shape} {planning.dtype}, {labels} labels ({planning.note})")
    print(
        f"batch {found.batch} in {found.microbatches} parts, "
        f"{found.batch // meshes.batch_parts(mesh)} images a chip; compute in "
        f"{config.dtype}"
    )
    measured = None
    if args.topology == "here" and not args.no_measure:
        real = planning.mesh(jax.devices())
        measured = here.measure(plan, real, planning.data(), microbatches=config.microbatches)
    state = estimate.arguments(plan, mesh, planning.data())[0]
    print(report.layout(state))
    other = planning.other_remat()
    print(report.memory(found, measured and measured.need))
    if other:
        print(report.remat(other, config.model.remat))
    print(report.work(found))
    print(report.time(found, measured and measured.seconds))
    results = {"config": json.loads(config.to_json()), "facts": facts, "estimate": found.json()}
    if other:
        results["other_remat"] = other.json()
    if measured:
        results["measured"] = dataclasses.asdict(measured)
    fits = found.fits
    if args.compile:
        fits, results["compiled"] = compiled(planning, found, devices)
    if args.search:
        results["search"] = search(planning, found)
    print("assumed: " + "; ".join(found.notes))
    if args.json:
        store.write_json(Path(args.json), results)
    return 0 if fits else 1


def compiled(planning: Planning, found: Any, devices: list[Any]) -> tuple[bool, Any]:
    """Compiles the step and prints what the compiler says; (whether it fits, the numbers)."""
    from jaxgen.planning import aot, report

    try:
        programs = aot.compile_step(
            planning.plan(),
            planning.data(),
            planning.mesh(devices),
            microbatches=planning.config.microbatches,
            log=lambda text: print(text, file=sys.stderr, flush=True),
        )
    except aot.DoesNotFit as e:
        print(f"compiler: {e}")
        return False, str(e)
    print(report.compiled(found, aot.combined(programs), planning.topology.name))
    return True, [dataclasses.asdict(p) for p in programs]


def search(planning: Planning, found: Any) -> list[dict[str, Any]]:
    """Tries other settings, prints those that fit."""
    from jaxgen.planning import report
    from jaxgen.planning import search as searching

    now = planning.settings()
    tries = searching.candidates(
        found.batch,
        found.chips,
        now,
        "model.remat" in now,
        planning.topology.near,
        planning.topology.slices,
    )
    results = searching.search(planning.estimate, tries, now, found, print)
    print(report.found(results, found))
    return [{"changes": f.changes, "estimate": f.estimate.json()} for f in results]

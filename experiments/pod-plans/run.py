"""Which runs of the papers' sizes fit on which pods, and how fast should they be?

For every preset and pod the estimate of `jaxgen plan`, with the first of a few settings that fits.
A few cases are compiled by the TPU compiler beside, whose numbers are kept in compiled.json. Where
libtpu is installed, those that are missing there are compiled.
"""

import dataclasses
import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments import common
from jaxgen import recipes
from jaxgen.cli import common as cli
from jaxgen.cli import plan as command
from jaxgen.common import mesh as meshes
from jaxgen.common import provenance, units
from jaxgen.planning import aot, chips, estimate, program
from jaxgen.planning.report import CLOCK

SIZES = ("xs", "s", "m", "l", "xl", "xxl")
PRESETS = {
    **{f"EDM2-{s.upper()} 512": f"edm2/imagenet512.py:{s}" for s in SIZES},
    "ADM 256": "edm/imagenet256.py",
    "StyleGAN2-F 1024": "stylegan2/ffhq1024.py:f",
    "StyleGAN3-R 1024": "stylegan3/paper.py:r,size=1024",
}
CHECKS = {  # only compiled: a small GAN, and a part of EDM2-XXL that compiles in minutes
    "StyleGAN2 32": "ada/paper.py:cifar10,noaug",
    "EDM2-XXL, one level": "edm2/imagenet512.py:xxl",
}
ONE_LEVEL = ("channel_mult=(1,)", "num_blocks=2", "attn_resolutions=()", "channels_per_head=512")
GANS = ("StyleGAN2-F 1024", "StyleGAN3-R 1024")
PODS = ("v5e:16x16", "v5p:8x8x8", "v6e:16x16", "h200:8", "h200:64", "h200:512")
GAN_PODS = ("v5e:2x4", "v5p:2x2x2", "v6e:2x4", *PODS[3:])  # their batch is 32
GROUP = 4  # images that a discriminator compares: the fewest of a chip
SHARED = {"v5e": 16, "v5p": 64, "v6e": 16, "h200": 8}  # mesh.fsdp of diffusion models
FULL = 0.9  # of a chip's memory may be taken
COMPILED = (  # preset, pod, batch, fsdp
    ("EDM2-XS 512", "v5e:16x16", 2048, 16),
    ("EDM2-XS 512", "v6e:16x16", 2048, 16),
    ("EDM2-XXL 512", "v5p:8x8x8", 2048, 64),
    ("EDM2-XXL 512", "v5p:4x4x4", 2048, 16),
    ("EDM2-XXL, one level", "v5p:2x2x1", 16, 4),
    ("EDM2-XXL, one level", "v5p:2x2x1", 16, 1),
    ("StyleGAN2 32", "v5e:2x2", 256, 1),
)
KEPT = Path(__file__).resolve().parent / "compiled.json"
WEAK = {  # 16 to 512 chips: (a slice's shape, slices)
    "v5e": (("4x4", 1), ("8x8", 1), ("16x16", 1), ("16x16", 2)),
    "v5p": (("2x2x4", 1), ("4x4x4", 1), ("4x8x8", 1), ("8x8x8", 1)),
    "v6e": (("4x4", 1), ("8x8", 1), ("16x16", 1), ("16x16", 2)),
    "h200": (("16", 1), ("64", 1), ("256", 1), ("512", 1)),
}
FEWEST = {"v5e": "4x4", "v5p": "2x2x4", "v6e": "4x4", "h200": "8"}  # what efficiency refers to


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is chosen for a pod."""

    fsdp: int
    remat: bool
    microbatches: int

    def __str__(self) -> str:
        words = [f"fsdp {self.fsdp}"] * (self.fsdp > 1) + ["remat"] * self.remat
        return ", ".join([*words, *[f"{self.microbatches} microbatches"] * (self.microbatches > 1)])


@functools.cache
def opened(preset: str, remat: bool, debug: bool) -> tuple[Any, Any, Mapping[str, Any], str]:
    """(config, plan, facts, dtype of images) of a preset."""
    spec = {**PRESETS, **CHECKS}[preset]
    spec += (",debug" if ":" in spec else ":debug") * debug
    changes = [f"model.{o}" for o in ONE_LEVEL] if "level" in preset else []
    config = cli.load_config(
        str(common.ROOT / "configs" / spec), [f"--config.{c}" for c in ("dtype=bfloat16", *changes)]
    )
    if remat:
        config.model.remat = True
    facts, dtype, _ = command.facts_of(config, None, None)
    return config, cli.last_stage(recipes.build(config, facts)), facts, dtype


class Tracer:
    """Traces a plan's step once for each number of images a chip."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] = {}
        self.trace = program.parts

    def __call__(
        self, plan: Any, data: Mapping[str, Any], *, share: int, microbatches: int = 1
    ) -> Any:
        key = id(plan), next(iter(data.values())).shape[0] // share, microbatches
        if key not in self.known:
            self.known[key] = self.trace(plan, data, share=share, microbatches=microbatches)
        return self.known[key]


def data_of(preset: str, batch: int, debug: bool) -> dict[str, Any]:
    """Structs of a preset's global batch."""
    _, _, facts, dtype = opened(preset, False, debug)
    return estimate.structs(facts["shape"], dtype, facts["label_kind"], facts["label_dim"], batch)


def plan(e: common.Experiment, preset: str, pod: Any, batch: int, how: Setting) -> Any:
    """The estimate of one case."""
    config, made, _, _ = opened(preset, how.remat, e.debug)
    mesh = meshes.abstract_mesh(pod.chips, -1, min(how.fsdp, pod.chips))
    images = units.images(config.images)
    data = data_of(preset, batch, e.debug)
    return estimate.estimate(made, pod, mesh, data, microbatches=how.microbatches, images=images)


def settle(e: common.Experiment, preset: str, pod: Any, batch: int) -> tuple[Setting, Any]:
    """The first that fits: as it is, with remat, with as many microbatches as the need asks for."""
    config, *_ = opened(preset, False, e.debug)
    diffusion = "model" in config
    how = Setting(min(SHARED[pod.name], pod.chips) if diffusion else 1, False, 1)
    found = plan(e, preset, pod, batch, how)
    if found.need > FULL * found.hbm and diffusion:
        how = dataclasses.replace(how, remat=True)
        found = plan(e, preset, pod, batch, how)
    while found.need > FULL * found.hbm:
        images = found.memory["activations"] * how.microbatches
        room = max(FULL * found.hbm - found.need + found.memory["activations"], 1)
        more = [n for n in range(how.microbatches + 1, batch // pod.chips + 1)
                if batch // pod.chips % n == 0]  # fmt: skip
        if not more:
            break
        parts = next((n for n in more if images / n < room), more[-1])
        how = dataclasses.replace(how, microbatches=parts)
        found = plan(e, preset, pod, batch, how)
    return how, found


def row(e: common.Experiment, preset: str, pod: Any) -> common.Row:
    """A row of the table."""
    config, *_ = opened(preset, False, e.debug)
    batch = max(config.batch, pod.chips * (GROUP if preset in GANS else 1))
    how, found = settle(e, preset, pod, batch)
    few = chips.parse(f"{pod.name}:{FEWEST[pod.name]}")
    few = few if few.chips < pod.chips else pod
    fewest = plan(e, preset, few, batch // pod.chips * few.chips, how)
    a_chip = lambda x: x.images_per_second / x.chips
    fits = found.need <= FULL * found.hbm
    e.log(f"{preset} on {pod}: {found.need / chips.GIB:.2f} GiB, {how}")
    return {
        "preset": preset,
        "pod": str(pod),
        "chips": pod.chips,
        "batch": batch,
        "settings": str(how) or "as it is",
        "GiB": round(found.need / chips.GIB, 2),
        "of": round(found.hbm / chips.GIB, 1),
        "fits": "yes" if fits else "no",
        "step ms": found.seconds["step"] * 1e3 if fits else None,
        "MFU": round(found.mfu, 3) if fits else None,
        "images/s": round(found.images_per_second) if fits else None,
        "days": found.days if fits else None,
        "chip-hours": round(found.chip_hours) if fits else None,
        "efficiency": round(a_chip(found) / a_chip(fewest), 3) if fits else None,
        "compute ms": found.seconds["compute"] * 1e3,
        "collectives ms": found.seconds["collectives"] * 1e3,
        "TFLOP a chip": sum(found.flops.values()) / 1e12,
        "paper's batch": config.batch,
        "fsdp": how.fsdp,
        "remat": how.remat,
        "microbatches": how.microbatches,
    }


def allocated() -> int | None:
    """Bytes of the fullest program's temporaries as libtpu's log of this process has them.

    What XLA tells programs counts holes between arrays twice.
    """
    folder = Path(os.environ.get("TPU_LOG_DIR", "/tmp/tpu_logs"))
    text = "".join(f.read_text() for f in folder.glob(f"tpu_driver.*.INFO.*.{os.getpid()}"))
    said = re.findall(r"Program hbm req.*\n(?:    .*\n)*?    HLO temp +([\d.]+)([KMG]) ", text)
    unit = {"K": 2**10, "M": 2**20, "G": 2**30}
    return max((round(float(n) * unit[u]) for n, u in said), default=None)


def compiled(e: common.Experiment, preset: str, pod: str, batch: int, fsdp: int) -> common.Row:
    """What the compiler says of a case, kept or compiled now, beside the estimate.

    Empty without libtpu.
    """
    where, how = chips.parse(pod), Setting(fsdp, False, 1)
    same = {"preset": preset, "pod": pod, "batch": batch, "fsdp": fsdp}
    kept = json.loads(KEPT.read_text()) if KEPT.is_file() else []
    entry = next((x for x in kept if {n: x[n] for n in same} == same), None)
    if entry is None and not importlib.util.find_spec("libtpu"):
        e.log(f"{preset} on {pod} is not in {KEPT.name}, and libtpu is not here to compile it")
        return {}
    if entry is None:
        _, made, _, _ = opened(preset, False, e.debug)
        mesh = meshes.make_mesh(-1, fsdp, devices=aot.devices(pod))
        start = time.process_time()
        programs = aot.compile_step(made, data_of(preset, batch, e.debug), mesh, log=e.log)
        entry = same | {
            "commit": provenance.commit(),
            "versions": {n: importlib.metadata.version(n) for n in ("jax", "jaxlib", "libtpu")},
            "cpu_seconds": round(time.process_time() - start, 1),
            "allocated": allocated(),
            "programs": [dataclasses.asdict(p) for p in programs],
        }
        if not e.debug:
            KEPT.write_text(json.dumps([*kept, entry], indent=1) + "\n")
    found = plan(e, preset, where, batch, how)
    programs = [aot.Program(**(p | {"phases": tuple(p["phases"])})) for p in entry["programs"]]
    its = aot.combined(programs)
    holds = entry["allocated"] and its["need"] - its["temporary"] + entry["allocated"]
    return same | {
        "settings": str(how),
        "images a chip": batch // where.chips,
        "GiB": round(found.need / chips.GIB, 2),
        "compiled GiB": round(its["need"] / chips.GIB, 2),
        "memory": f"{found.need / its['need'] - 1:+.1%}",
        "allocated GiB": holds and round(holds / chips.GIB, 2),
        "against it": holds and f"{found.need / holds - 1:+.1%}",
        "TFLOP a chip": sum(found.flops.values()) / 1e12,
        "compiled TFLOP": its["flops"] / 1e12,
        "FLOPs": f"{sum(found.flops.values()) / its['flops'] - 1:+.1%}",
        "compute ms": found.seconds["compute"] * 1e3,
        "compiler's ms": its["cycles"] / CLOCK[where.name] * 1e3,
        "compiled collectives MiB": round(sum(its["collectives"].values()) / 2**20),
        "compiled code GiB": round(its["code"] / chips.GIB, 2),
        "compile CPU s": entry["cpu_seconds"] and round(entry["cpu_seconds"]),
    }


def weak(e: common.Experiment) -> list[common.Row]:
    """EDM2-XXL with four images a chip (the paper's batch on 512) from 16 to 512 chips."""
    rows: list[common.Row] = []
    for name, pods in WEAK.items():
        how = None
        for shape, slices in pods[-1:] + pods[:-1]:  # the largest has the least room beside others
            pod = chips.parse(f"{name}:{shape}", slices)
            if how is None:
                fitting = [
                    s
                    for s in (Setting(min(16, pod.near), remat, 1) for remat in (False, True))
                    if (x := plan(e, "EDM2-XXL 512", pod, 4 * pod.chips, s)).need <= FULL * x.hbm
                ]
                how = fitting[0]
            found = plan(e, "EDM2-XXL 512", pod, 4 * pod.chips, how)
            rows.append(
                {
                    "chip": name,
                    "chips": pod.chips,
                    "slices": pod.slices,
                    "settings": str(how),
                    "images a chip": 4,
                    "step ms": found.seconds["step"] * 1e3,
                    "compute ms": found.seconds["compute"] * 1e3,
                    "collectives ms": found.seconds["collectives"] * 1e3,
                }
            )
    rows.sort(key=lambda r: (list(WEAK).index(r["chip"]), r["chips"]))
    for r in rows:
        first = next(x for x in rows if x["chip"] == r["chip"])
        r["efficiency"] = round(first["step ms"] / r["step ms"], 3)
    return rows


SHOWN = (
    "preset", "pod", "batch", "settings", "GiB", "of", "fits", "step ms", "MFU", "images/s", "days",
    "chip-hours", "efficiency",
)  # fmt: skip
BESIDE = (
    "preset", "pod", "settings", "images a chip", "GiB", "compiled GiB", "memory", "allocated GiB",
    "against it", "TFLOP a chip", "compiled TFLOP", "compute ms", "compiler's ms",
)  # fmt: skip


def run(e: common.Experiment) -> None:
    """Estimates, compiles what is missing, writes."""
    presets = ("EDM2-XS 512",) if e.debug else tuple(PRESETS)
    rows = []
    with mock.patch.object(program, "parts", Tracer()):
        for preset in presets:
            pods = GAN_PODS if preset in GANS else PODS
            for text in ("v5e:4x4", "h200:8") if e.debug else pods:
                rows.append(row(e, preset, chips.parse(text)))
        scaling = [] if e.debug else weak(e)
        checks = [] if e.debug else [c for case in COMPILED if (c := compiled(e, *case))]
    figure(e, rows, scaling)
    named = [{"preset": "weak scaling of EDM2-XXL 512"} | r for r in scaling]
    e.write([*rows, *named, *({"preset": f"compiled: {c['preset']}"} | c for c in checks)], SHOWN)
    if not e.debug:
        common.put_table(e.folder / "README.md", rows, SHOWN)
    print("\n" + common.table(checks, BESIDE))


def figure(e: common.Experiment, rows: list[common.Row], scaling: list[common.Row]) -> None:
    """MFU of the presets on each pod, and efficiency of EDM2-XXL from 16 to 512 chips."""
    import matplotlib.pyplot as plt
    import numpy as np

    fig, axes = plt.subplots(1, 2, figsize=(13, 4.5), layout="constrained", width_ratios=(2, 1))
    presets = list(dict.fromkeys(r["preset"] for r in rows))
    columns = {p: [r for r in rows if r["preset"] == p] for p in presets}
    most = max(map(len, columns.values()))
    for k in range(most):
        of = [columns[p][k] for p in presets]
        bars = axes[0].bar(
            np.arange(len(presets)) + (k - most / 2) * 0.8 / most,
            [r["MFU"] or 0 for r in of],
            0.8 / most,
            label=f"{of[0]['pod'].partition(':')[0]}, {of[0]['chips']} chips",
        )
        for bar, r in zip(bars, of):
            if not r["MFU"]:
                axes[0].text(bar.get_x(), 0.01, "no", fontsize=7)
    axes[0].set_xticks(np.arange(len(presets)), [p.replace(" ", "\n") for p in presets], fontsize=8)
    axes[0].set(ylabel="estimated MFU")
    axes[0].legend(fontsize=8, title="diffusion models' pods", title_fontsize=8)
    for name in dict.fromkeys(r["chip"] for r in scaling):
        mine = [r for r in scaling if r["chip"] == name]
        axes[1].plot([r["chips"] for r in mine], [r["efficiency"] for r in mine], "o-", label=name)
    axes[1].axhline(0.85, color="k", ls=":")
    axes[1].set(xscale="log", xlabel="chips", ylabel="step on 16 chips / step", ylim=(0, 1.1))
    ticks = sorted({r["chips"] for r in scaling})
    axes[1].set_xticks(ticks, list(map(str, ticks)))
    axes[1].minorticks_off()
    axes[1].set_title("EDM2-XXL 512, four images a chip", fontsize=10)
    if scaling:
        axes[1].legend(fontsize=8)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

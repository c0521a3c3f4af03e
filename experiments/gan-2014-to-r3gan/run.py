"""Eleven years of GANs on the same images (1406.2661 to 2501.05441): is each step a gain?

Every generator of configs/gan, each with its paper's loss, regularisers and optimizer, sees equally
many images. Distance, precision and recall of the averaged generator, parameters, and the cost of
training in CPU seconds, which hardly depend on what else the machine does.
"""

import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from configs import lineage
from experiments import common
from jaxgen import recipes
from jaxgen.cli import common as cli
from jaxgen.cli import sampling
from jaxgen.common import trees, units
from jaxgen.train import state
from jaxgen.train.plan import Plan

PAPERS = {  # year and arXiv id
    "mlp": (2014, "1406.2661"),
    "dcgan": (2015, "1511.06434"),
    "pggan": (2017, "1710.10196"),
    "stylegan": (2018, "1812.04948"),
    "biggan": (2018, "1809.11096"),
    "stylegan2": (2019, "1912.04958"),
    "stylegan3": (2021, "2106.12423"),
    "r3gan": (2025, "2501.05441"),
}
assert set(PAPERS) == set(lineage.MEMBERS)
CLASSES = 10


def cost(run: cli.Run, steps: int) -> float:
    """CPU seconds of all cores for 1000 images of training, without compiling.

    Measured over `steps`, so that lazy regularisers have their turn, in each stage of a run that
    grows.
    """
    found = recipes.build(run.config, run.facts)
    if isinstance(found, Plan):
        return seconds(run, found, steps)
    ends = [0, *(s.until for s in found)]
    shares = np.diff(ends) / ends[-1]
    return float(sum(share * seconds(run, s.plan, steps) for share, s in zip(shares, found)))


def seconds(run: cli.Run, plan: Plan, steps: int) -> float:
    """CPU seconds for 1000 images of one plan."""
    timer = common.Timer(run, plan)
    timer(steps)  # compiles
    return timer(steps)["CPU seconds"]


def strip(judge: common.Judge) -> np.ndarray:
    """An image of each class, side by side."""
    run = judge.run
    rows = sampling.inputs(run.plan, run.facts, CLASSES, labels=None)
    params = run.average(None).params
    drawn = sampling.collect(judge.plain.sampler(params, rows, CLASSES, judge.seed))["image"]
    return units.to_uint8(np.concatenate(list(drawn), 1))


def real_strip(judge: common.Judge) -> np.ndarray:
    """The first test image of each class."""
    images, labels = cli.load_source(judge.run.config.data.source, "test").arrays
    return np.concatenate([images[np.argmax(labels == c)] for c in range(CLASSES)], 1)


def run(e: common.Experiment) -> None:
    """Trains and scores one after the other."""
    members = e.pick(list(PAPERS), list(PAPERS), ["mlp", "dcgan"])
    num, steps = e.pick(5000, 10_000, 32), e.pick(32, 512, 2)
    rows, strips, judge = [], {}, None
    for member in members:
        path = common.lineage(e, member)
        judge = common.Judge(path, num, e.seed, num_real=num, like=judge)
        sizes = state.abstract(judge.run.plan, judge.run.mesh).params
        row = {
            "generator": member,
            "year": PAPERS[member][0],
            "paper": f"arXiv:{PAPERS[member][1]}",
            **judge(),
            "CPU s/kimg": cost(judge.run, steps),
            "G params": trees.count(sizes["generator"]),
            "D params": trees.count(sizes["discriminator"]),
        }
        rows.append(row)
        strips[member] = strip(judge)
        e.log(f"{member}: {row}; {time.process_time():.0f} CPU seconds so far")
    floor = {"generator": f"real test images, by {judge.net}", **judge.floor}
    figure(e, rows, floor, {**strips, "real": real_strip(judge)})
    named = ["generator", "year", "paper", "frechet", "precision", "recall"]
    e.write([*rows, floor], [*named, "CPU s/kimg", "G params", "D params"])


def figure(e: common.Experiment, rows: Any, floor: common.Row, strips: Any) -> None:
    """Distances, precision against recall, and an image of each class."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(
        1, 3, figsize=(17, 5), layout="constrained", width_ratios=(1, 0.9, 1.1)
    )
    at, colors = np.arange(len(rows)), [f"C{i}" for i in range(len(rows))]
    axes[0].bar(at, [r["frechet"] for r in rows], color=colors)
    axes[0].axhline(floor["frechet"], color="k", ls=":", label="real test images")
    axes[0].set_xticks(at, [f"{r['generator']}\n{r['year']}" for r in rows], fontsize=8)
    axes[0].set(ylabel="Fréchet distance", yscale="log")
    axes[0].legend()
    for r, color in zip(rows, colors):
        place = r["recall"], r["precision"]
        axes[1].plot(*place, "o", color=color)
        axes[1].annotate(r["generator"], place, (4, 4), textcoords="offset points")
    axes[1].plot(floor["recall"], floor["precision"], "k*", ms=10, label="real test images")
    axes[1].set(xlabel="recall", ylabel="precision")
    axes[1].legend()
    sheet = np.concatenate(list(strips.values()), 0)
    axes[2].imshow(sheet.squeeze(), cmap="gray", vmin=0, vmax=255)
    size = sheet.shape[0] // len(strips)
    axes[2].set_yticks(size * (np.arange(len(strips)) + 0.5) - 0.5, list(strips))
    axes[2].set_xticks([])
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run, runs="lineage")

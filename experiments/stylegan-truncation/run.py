"""What does truncation of styles buy and cost: precision and recall over psi (1812.04948)?

One trained StyleGAN2. Styles are moved towards the mean of their class, w = mean + psi (w - mean),
in all layers or in the first ones only; images are compared with as many real ones.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from experiments.truncated import Truncated
from jaxgen.cli import sampling
from jaxgen.common import units

CLASSES = 10
PSIS = (0.0, 0.2, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.2, 1.4)
SHOWN = (0.0, 0.4, 0.7, 1.0, 1.4)
LAYERS = {"all layers": None, "first half": 0.5}  # share of the layers that are truncated


def run(e: common.Experiment) -> None:
    """Trains once, scores every psi."""
    path = common.lineage(e, "stylegan2")
    num = e.pick(2000, 10_000, 32)
    judge = common.Judge(path, num, e.seed, num_real=num)
    images = Truncated(judge)
    seeds = range(e.seed, e.seed + e.pick(2, 1, 1))
    psis = [0.0, 1.0] if e.debug else PSIS
    rows = []
    for layers, share in LAYERS.items():
        for psi in psis:
            scores = [judge.score(images(psi, share, num, s)) for s in seeds]
            rows.append({"layers": layers, "psi": psi, **common.over_seeds(scores)})
            e.log(f"{rows[-1]}")
    figure(e, rows, judge, images)
    metrics = [f"{n}{s}" for n in ("frechet", "precision", "recall") for s in ("", " std")]
    real = {"layers": "real test images", **judge.floor}
    e.write([*rows, real], ["layers", "psi", *metrics])


def figure(e: common.Experiment, rows: list[common.Row], judge: Any, images: Truncated) -> None:
    """Precision against recall, distance over psi, images of every class at several psi."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(16, 4.8), layout="constrained")
    for layers in LAYERS:
        line = [r for r in rows if r["layers"] == layers]
        of = {n: [r[n] for r in line] for n in ("psi", "recall", "precision", "frechet")}
        error = [r["frechet std"] for r in line]
        axes[0].plot(of["recall"], of["precision"], "o-", label=layers)
        axes[1].errorbar(of["psi"], of["frechet"], error, fmt="o-", label=layers)
        for r in line[:: 2 if layers == "all layers" else len(line)]:
            at = (r["recall"], r["precision"])
            axes[0].annotate(f"{r['psi']:g}", at, (4, 4), textcoords="offset points", fontsize=8)
    floor = judge.floor
    axes[0].plot(floor["recall"], floor["precision"], "k*", ms=10, label="real test images")
    axes[0].set(xlabel="recall", ylabel="precision", title="points are psi")
    axes[1].axhline(floor["frechet"], color="k", ls=":", label="real test images")
    axes[1].set(xlabel="psi", ylabel="Fréchet distance", yscale="log")
    for ax in axes[:2]:
        ax.legend()
    columns = []
    for psi in SHOWN:
        drawn = sampling.collect(images(psi, None, 2 * CLASSES, e.seed))["image"]
        pairs = units.to_uint8(drawn).reshape(2, CLASSES, *drawn.shape[1:])
        columns.append(np.concatenate(list(np.concatenate(list(pairs), 2)), 0))
    columns = [np.pad(c, ((0, 0), (1, 1), (0, 0)), constant_values=255) for c in columns]
    sheet = np.concatenate(columns, 1)
    axes[2].imshow(sheet.squeeze(), cmap="gray", vmin=0, vmax=255)
    width = columns[0].shape[1]
    axes[2].set_xticks(width * (np.arange(len(SHOWN)) + 0.5), [f"{p:g}" for p in SHOWN])
    axes[2].set_yticks([])
    axes[2].set(xlabel="psi, two images of each class")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run, runs="lineage")

"""What does a noisy classifier's gradient do to samples, with and without classes (2105.05233)?

A classifier of noisy images guides a score network that knows no classes and one that does, at
several scales. Another classifier, the feature net of the metrics, which was trained on clean
images, says whether the class that was asked for has come.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from jaxgen.cli import guiding, sampling
from jaxgen.common import pictures, units

SCALES = (0.0, 0.5, 1.0, 2.0, 4.0, 10.0)
NETWORKS = {"unconditional": "data.labels=False", "conditional": "data.labels=True"}


def train(e: common.Experiment) -> dict[str, Path]:
    """The workdirs of both score networks and of the classifier."""
    images = e.pick(80_000, 3_000_000, 64)
    data = e.pick("digits", "fashion_mnist", "digits")
    small = e.pick(("model.model_channels=16",), (), ())
    timing = [f"images={images}", f"checkpoint_every={images}", f"snapshot_every={images // 5}"]
    paths = {
        name: e.train(name, f"configs/edm2/{data}.py", *small, labels, *timing)
        for name, labels in NETWORKS.items()
    }
    wide = ["data.source=fashion_mnist", "precond.sigma_data=0.7"]
    wide += ["model.channel_mult=(1,2,2)", "model.attn_resolutions=(7,)"]
    paths["classifier"] = e.train(
        "classifier", "configs/adm_classifier/digits.py", *e.pick([], wide, []), *timing
    )
    return paths


def guided(
    e: common.Experiment, judge: common.Judge, classifier: Path, scale: float
) -> tuple[common.Row, np.ndarray]:
    """The scores at a scale, and 20 of the images, two of each class."""
    args = argparse.Namespace(guide=str(classifier), guidance=scale, interval=None)
    guide = guiding.open_guide(judge.run, args)
    scorer = judge.scorer({"steps": e.pick(12, 18, 3)}, guide)
    batch = sampling.inputs(judge.run.plan, judge.run.facts, judge.num, labels=None, guide=guide)
    params = judge.run.average(None).params
    images = sampling.collect(scorer.sampler(params, batch, judge.num, e.seed))
    shown = units.to_uint8(images["image"])
    wanted = batch["label"].argmax(-1)
    right = np.asarray(scorer.net.logits(shown)).argmax(-1) == wanted
    row = {"scale": scale, "accuracy": float(right.mean())}
    return row | judge._plain(scorer.score(iter([images]))), shown[:20]


def run(e: common.Experiment) -> None:
    """Trains, guides, scores, writes."""
    paths = train(e)
    rows, grids = [], {}
    for name in NETWORKS:
        judge = common.Judge(paths[name], e.pick(2000, 10_000, 20), e.seed)
        for scale in SCALES:
            row, grids[name, scale] = guided(e, judge, paths["classifier"], scale)
            rows.append({"network": name} | row)
            e.log(str(rows[-1]))
    figure(e, rows, grids)
    e.write(rows)


def figure(e: common.Experiment, rows: list[common.Row], grids: dict) -> None:
    """Precision, recall, accuracy and distance against the scale; images of four settings."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplot_mosaic("ab;cc", figsize=(12, 9), layout="constrained")
    place = np.arange(len(SCALES))
    for ax, name in zip((axes["a"], axes["b"]), NETWORKS):
        mine = [row for row in rows if row["network"] == name]
        for what in ("accuracy", "precision", "recall"):
            ax.plot(place, [row[what] for row in mine], "o-", label=what)
        other = ax.twinx()
        other.plot(place, [row["frechet"] for row in mine], "k^--", label="frechet")
        other.set(yscale="log", ylabel="frechet")
        ax.set(xlabel="scale", title=f"{name} network", ylim=(0, 1.03))
        ax.set_xticks(place, [f"{s:g}" for s in SCALES])
    lines = [a + b for a, b in zip(*(x.get_legend_handles_labels() for x in (ax, other)))]
    fig.legend(*lines, ncols=4, loc="outside upper center")
    chosen = [(n, s) for n in NETWORKS for s in (0.0, 1.0, 10.0)]
    strips = [pictures.grid(grids[key], 20, scale=8) for key in chosen]
    axes["c"].imshow(np.concatenate(strips, 0).squeeze(), cmap="gray")
    height = strips[0].shape[0]
    middle = [height * (i + 0.5) for i in range(len(chosen))]
    axes["c"].set_yticks(middle, [f"{n}, {s:g}" for n, s in chosen])
    axes["c"].set(xticks=[], title="classes 0 to 9, twice, at three scales")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

"""Does adaptive augmentation keep a discriminator from learning few images by heart (2006.06676)?

StyleGAN2 trained on subsets of digits, or of Fashion-MNIST, without augmentation and with ADA:
distance of samples to the whole training set and r_t, the mean sign of the discriminator's output
for real images, over time.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from jaxgen.cli import sampling
from jaxgen.common import pictures, units
from jaxgen.train import writer
from jaxgen.train.store import Store

TARGET = 0.6  # of r_t
KINDS = {"without": "none", "ADA": "ada"}
POINTS = 10  # in time


def train(e: common.Experiment, size: int, kind: str, images: int) -> Path:
    """A run on `size` images."""
    return e.train(
        f"{size}-{KINDS[kind]}",
        f"configs/gan/{e.pick('digits', 'fashion_mnist', 'digits')}.py:stylegan2",
        f"data.limit={size}",
        "data.labels=False",
        "loss.path_every=0",
        "loss.r1_gamma=0.1",
        f"augment.kind={KINDS[kind]}",
        f"augment.target={TARGET if kind == 'ADA' else 0.0}",
        f"augment.images={e.pick(20_000, 500_000, 100)}",
        f"images={images}",
        f"snapshot_every={images // POINTS}",
        f"checkpoint_every={images}",
        f"log_every={images // (4 * POINTS)}",
    )


def curves(judge: common.Judge, seed: int) -> dict[str, Any]:
    """Over time: images seen and scores of the snapshots; images seen and logged values."""
    with Store(judge.run.workdir / "snapshots", verify=False) as store:
        times = store.numbers()
    log = [r for r in writer.read(judge.run.workdir / "metrics.jsonl") if "disc/loss" in r]
    of = lambda name: [r.get(name, 0.0) for r in log]
    return {
        "times": times,
        "scores": [judge.over([seed], nimg=t)[0] for t in times],
        "logged": of("nimg"),
        "r_t": of("disc/real_sign"),
        "p": of("disc/augment_p"),
    }


def row(size: int, kind: str, found: dict[str, Any]) -> common.Row:
    """Best and last distance; the rest at the end, r_t and p over its last quarter."""
    scores, late = found["scores"], np.array(found["logged"]) > 0.75 * found["times"][-1]
    best = int(np.argmin([s["frechet"] for s in scores]))
    return {
        "images": size,
        "augmentation": kind,
        "best frechet": scores[best]["frechet"],
        "after": found["times"][best],
        **scores[-1],
        "r_t": float(np.array(found["r_t"])[late].mean()),
        "p": float(np.array(found["p"])[late].mean()),
        **{f"frechet at {t}": s["frechet"] for t, s in zip(found["times"], scores)},
    }


def run(e: common.Experiment) -> None:
    """Trains every size with and without, scores the snapshots."""
    sizes = e.pick((100, 300, 1200), (500, 2000, 10_000), (100,))
    images, num = e.pick(102_400, 5_120_000, 64), e.pick(2000, 10_000, 16)
    rows: list[common.Row] = []
    found, shown, judge = {}, {}, None
    for size in sizes:
        for kind in KINDS:
            metrics = "frechet", "precision_recall"
            judge = common.Judge(train(e, size, kind, images), num, e.seed, metrics, like=judge)
            found[size, kind] = curves(judge, e.seed)
            drawn = judge.plain.sampler(judge.run.average(None).params, {}, 48, e.seed)
            shown[size, kind] = units.to_uint8(sampling.collect(drawn)["image"])
            rows.append(row(size, kind, found[size, kind]))
            e.log(f"{rows[-1]}")
    figure(e, found, judge.floor)
    samples(e, shown)
    rows = [{"images": "(real test images)", **judge.floor}, *rows]
    columns = ["images", "augmentation", "best frechet", "after", "frechet", "precision", "recall"]
    e.write(rows, [*columns, "r_t", "p"])


def figure(e: common.Experiment, found: dict[tuple, dict[str, Any]], floor: common.Row) -> None:
    """Distance, r_t and p over time."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(15, 4.3), layout="constrained")
    sizes = list(dict.fromkeys(size for size, _ in found))
    for (size, kind), of in found.items():
        style = {"color": f"C{sizes.index(size)}", "ls": "-" if kind == "ADA" else "--"}
        distance = [s["frechet"] for s in of["scores"]]
        x = np.array(of["times"]) / 1e3
        axes[0].plot(x, distance, marker="o", ms=4, label=f"{size} images, {kind}", **style)
        x = np.array(of["logged"]) / 1e3
        axes[1].plot(x, of["r_t"], **style)
        if kind == "ADA":
            axes[2].plot(x, of["p"], **style)
    axes[0].axhline(floor["frechet"], color="k", ls=":", label="real test images")
    axes[0].set(xlabel="thousand images seen", ylabel="Fréchet distance", yscale="log")
    axes[0].legend(fontsize=8)
    axes[1].axhline(TARGET, color="k", ls=":")
    axes[1].set(xlabel="thousand images seen", ylabel="r_t = E[sign D(real)]")
    axes[2].set(xlabel="thousand images seen", ylabel="p of ADA")
    e.save(fig)


def samples(e: common.Experiment, shown: dict[tuple, np.ndarray]) -> None:
    """Last samples: a row a size, without and with ADA."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(len(shown) // 2, 2, figsize=(12, 1.1 * len(shown)), squeeze=False)
    for ax, ((size, kind), x) in zip(axes.flat, shown.items()):
        ax.imshow(pictures.grid(x, 12, scale=1).squeeze(), cmap="gray", vmin=0, vmax=255)
        ax.set_title(f"{size} images, {kind}", fontsize=10)
        ax.axis("off")
    fig.tight_layout()
    e.save(fig, "samples.png")


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

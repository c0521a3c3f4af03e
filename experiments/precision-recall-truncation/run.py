"""Which axis does truncation move, and what does one number hide (1904.06991)?

The StyleGAN2 of stylegan-truncation, its styles moved towards their class's mean or away from it:
precision and recall at several k, density and coverage, realism of single images, and the parts of
the Frechet distance.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from experiments.truncated import Truncated
from jaxgen.cli import sampling
from jaxgen.common import pictures, units
from jaxgen.metrics.frechet import between, fit
from jaxgen.metrics.precision_recall import precision_recall
from jaxgen.metrics.realism import realism

PSIS = (0.0, 0.3, 0.5, 0.7, 0.85, 1.0, 1.15, 1.3, 1.5)
KS = (1, 3, 10)
METRICS = ("frechet", "precision_recall", "density_coverage", "realism")
COLUMNS = (
    "frechet", "mean part", "spread part", "precision", "recall", "density", "coverage", "realism",
)  # fmt: skip


def parts(fake: np.ndarray, real: np.ndarray) -> common.Row:
    """The Frechet distance's |m1 - m2|^2, and the rest, of covariances."""
    one, two = fit(fake), fit(real)
    mean = float(np.square(one.mean - two.mean).sum())
    return {"mean part": mean, "spread part": between(one, two) - mean}


def score(judge: common.Judge, images: Any, ks: tuple[int, ...]) -> common.Row:
    """All measures of images that come in chunks; precision and recall at every k."""
    found = judge.score(images)
    fake, real = judge.plain.fake, judge.plain.real
    found |= parts(fake, real)
    for k in ks:
        at = precision_recall(fake, real, k=k)
        found |= {f"precision k={k}": at["precision"], f"recall k={k}": at["recall"]}
    return found


def run(e: common.Experiment) -> None:
    """Trains once, scores every psi."""
    path = common.lineage(e, "stylegan2")
    num = e.pick(3000, 20_000, 32)
    judge = common.Judge(path, num, e.seed, METRICS, num_real=num)
    images = Truncated(judge)
    seeds = range(e.seed, e.seed + e.pick(2, 2, 1))
    rows = []
    for psi in [0.5, 1.0] if e.debug else PSIS:
        scores = [score(judge, images(psi, None, num, s), KS) for s in seeds]
        rows.append({"psi": psi, **common.over_seeds(scores)})
        e.log(f"{rows[-1]}")
    floor = score(judge, iter([{"image": held_out(judge, num)}]), KS)
    rows.append({"psi": "real test images", **floor})
    # Half of the images of psi = 1, the more real ones: another way to trade.
    best = most_real(e, judge, images, num)
    rows.append({"psi": "1, the more real half", **score(judge, iter([{"image": best}]), KS)})
    figure(e, rows)
    e.write(rows, ["psi", *COLUMNS])


def held_out(judge: common.Judge, num: int) -> np.ndarray:
    """Test images in [-1, 1], as many as samples if there are."""
    from jaxgen.cli import common as cli
    from jaxgen.cli import references

    test = cli.load_source(judge.run.config.data.source, "test")
    test = references.choose(test, min(num, len(test)))
    found = np.concatenate(list(references.images(test, slice(0, len(test)))))
    return found.astype(np.float32) / 127.5 - 1


def most_real(e: common.Experiment, judge: common.Judge, images: Truncated, num: int) -> np.ndarray:
    """The half with the higher realism of 2 `num` images; and a picture of both ends."""
    drawn = sampling.collect(images(1.0, None, 2 * num, e.seed))["image"]
    judge.score(iter([{"image": drawn}]))
    order = np.argsort(-realism(judge.plain.fake, judge.plain.real), kind="stable")
    columns = 24
    shown = drawn[np.concatenate([order[:columns], order[-columns:]])[: 2 * columns]]
    sheet = pictures.grid(units.to_uint8(shown), columns=columns, scale=1)
    e.out.mkdir(parents=True, exist_ok=True)
    pictures.save_png(sheet.repeat(2, 0).repeat(2, 1), e.out / "realism.png")
    return drawn[order[:num]]


def figure(e: common.Experiment, rows: list[common.Row]) -> None:
    """The plane of precision and recall, measures over psi, the distance's parts."""
    import matplotlib.pyplot as plt

    line = [r for r in rows if isinstance(r["psi"], float)]
    real, half = rows[-2:]
    of = {n: np.array([r[n] for r in line]) for n in line[0] if not n.endswith(" std")}
    fig, axes = plt.subplots(1, 4, figsize=(19, 4.6), layout="constrained")
    for k in KS:
        axes[0].plot(of[f"recall k={k}"], of[f"precision k={k}"], "o-", ms=4, label=f"k = {k}")
        axes[0].plot(real[f"recall k={k}"], real[f"precision k={k}"], "k*", ms=9)
    for r in line[::2]:
        at = (r["recall k=3"], r["precision k=3"])
        axes[0].annotate(f"{r['psi']:g}", at, (4, 4), textcoords="offset points", fontsize=8)
    axes[0].plot(half["recall k=3"], half["precision k=3"], "s", color="C3", label="more real half")
    axes[0].set(xlabel="recall", ylabel="precision", title="points are psi; stars real test images")
    for n in ("precision", "recall", "density", "coverage"):
        axes[1].plot(of["psi"], of[n], "o-", ms=4, label=n)
    axes[1].set(xlabel="psi", ylabel="share (density: a mean count over k)")
    for n, label in (
        ("frechet", "Fréchet distance"),
        ("mean part", "of it: between means"),
        ("spread part", "of it: between covariances"),
    ):
        axes[2].plot(of["psi"], of[n], "o-", ms=4, label=label)
    axes[2].axhline(real["frechet"], color="k", ls=":", label="real test images")
    axes[2].set(xlabel="psi", ylabel="distance", ylim=(0, None))
    axes[3].plot(of["precision"], of["frechet"], "o-", ms=4, label="over precision")
    axes[3].plot(of["recall"], of["frechet"], "o-", ms=4, label="over recall")
    for r in line:
        if r["psi"] > 0.6:
            at = (r["recall"], r["frechet"])
            axes[3].annotate(f"{r['psi']:g}", at, (4, 4), textcoords="offset points", fontsize=8)
    axes[3].set(xlabel="precision or recall", ylabel="Fréchet distance")
    for ax in axes:
        ax.legend(fontsize=8)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run, runs="lineage")

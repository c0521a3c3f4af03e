"""How far does a Frechet distance fall when the same images are only drawn otherwise (2203.06026)?

Generated images are real ones: blurred, or of classes in wrong shares. From a pool of them some are
drawn, by weights that match the feature net's own classes, or that minimise the distance on one
half of the real images. All is judged on the other half, by that net and by others that the weights
never saw.
"""

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from scipy.ndimage import gaussian_filter

from experiments import common
from jaxgen.cli.nets import open_net
from jaxgen.data import sources
from jaxgen.metrics import histogram_attack, sensitivity, stream
from jaxgen.metrics.frechet import frechet_from_moments

BLUR = 0.6  # pixels
RATIO = 10.0  # of the commonest class to the rarest, in the pool of wrong shares


class Case(NamedTuple):
    """data; the net that is attacked; those that judge as well; images in a pool, drawn, real in
    each half; steps; pools."""

    data: str
    net: Any
    others: list[Any]
    pool: int
    num: int
    real: int
    steps: int
    pools: tuple[str, ...] = ("blurred", "wrong shares")


def cases(e: common.Experiment) -> list[Case]:
    """A small net with many images, and an ImageNet net with fewer where there is CIFAR-10."""
    if e.debug:
        return [
            Case("digits", open_net("digits-classifier"), [open_net("random")], 300, 150, 150, 5)
        ]
    net = open_net("fashion-classifier")
    others = [open_net(n) for n in ("random", "digits-classifier", "pixels")]
    sizes = e.pick((12_000, 4000, 5000, 60), (20_000, 5000, 5000, 200), ())
    found = [Case("fashion_mnist", net, others, *sizes)]
    root = Path(os.environ.get("JAXGEN_DATA", ""))
    if os.environ.get("JAXGEN_DATA") and (root / "cifar10").is_dir():
        file = root / "efficientnet_lite0" / "efficientnet_lite0_fp16.npz"
        net = open_net("efficientnet_lite0", file if file.is_file() else None)
        others = [open_net("random")]
        file = root / "fid_inception768" / "inception_mixed6e_fp16.npz"
        if file.is_file():
            others.append(open_net("inception-64", file, like="pytorch-fid"))
        sizes = e.pick((3000, 1200, 1500, 30), (20_000, 5000, 5000, 200), ())
        found.append(Case("cifar10", net, others, *sizes, pools=("blurred",)))
    return found


def pool(case: Case, kind: str, seed: int) -> np.ndarray:
    """Images (n, h, w, c) uint8 from the training split."""
    images, labels = (np.asarray(a) for a in sources.load(case.data, "train").arrays[:2])
    order = np.random.default_rng(seed).permutation(len(images))
    if kind == "blurred":
        soft = images[order[: case.pool]].astype(np.float32)
        return gaussian_filter(soft, (0, BLUR, BLUR, 0)).round().astype(np.uint8)
    classes = labels.max() + 1
    shares = RATIO ** (-np.arange(classes) / (classes - 1))
    whole = min(case.pool, (np.bincount(labels) / shares * shares.sum()).min())
    counts = np.floor(whole * shares / shares.sum()).astype(int)
    return images[np.concatenate([order[labels[order] == c][:k] for c, k in enumerate(counts)])]


def attack(e: common.Experiment, case: Case, shown: dict[str, Any]) -> list[common.Row]:
    """Features once, then weights, draws and distances."""
    net, rows, batch = case.net, [], e.pick(32, 512, 32)
    real = np.asarray(sources.load(case.data, "test").arrays[0])
    real = real[np.random.default_rng(e.seed).permutation(len(real))]
    seen, held = real[: case.real], real[case.real : 2 * case.real]
    of = lambda n, x: stream.features(n, [x], batch=batch)
    judges = {n.name: (n, sensitivity.fit(of(n, held))) for n in (net, *case.others)}
    features = of(net, seen)
    target, real_classes = sensitivity.fit(features), np.asarray(net.head(features)).argmax(1)
    e.log(f"{case.data}, {net.name}: features of the real images")
    distance = lambda x, judge: frechet_from_moments(*sensitivity.fit(x)[:2], *judges[judge][1][:2])
    for kind in case.pools:
        images = pool(case, kind, e.seed)
        found = {n: of(judge, images) for n, (judge, _) in judges.items()}
        own = found[net.name]
        classes = np.asarray(net.head(own)).argmax(1)
        lowered = histogram_attack.minimise(own, target, case.steps)
        start, end = lowered.distances[0], lowered.distances[-1]
        e.log(f"{kind}: {start:.4g} to {end:.4g}, at most {lowered.gap:.2g} above the minimum")
        ways = {
            "all alike": np.full(len(own), 1 / len(own)),
            "top classes matched": histogram_attack.match(classes, real_classes),
            "distance minimised": lowered.weights,
        }
        first = None
        for way, weights in ways.items():
            draws = [
                histogram_attack.resample(weights, case.num, s) for s in range(e.pick(3, 3, 1))
            ]
            scores = [{n: distance(x[d], n) for n, x in found.items()} for d in draws]
            means = common.over_seeds(scores)
            first = first or means
            for n in judges:
                rows.append(
                    {"data": case.data, "pool": kind, "drawn": way,
                     "effective": round(histogram_attack.effective(weights)),
                     "judge": n, "frechet": means[n], "std": means[f"{n} std"],
                     "relative": means[n] / first[n]}
                )  # fmt: skip
                e.log(f"{rows[-1]}")
        shown[f"{case.data}, {kind}"] = images, lowered
    for n, (judge, _) in judges.items():
        x = of(judge, seen[: case.num])
        rows.append({"data": case.data, "pool": "real", "drawn": "the other half", "judge": n,
                     "frechet": distance(x, n)})  # fmt: skip
    return rows


def run(e: common.Experiment) -> None:
    """All cases."""
    shown: dict[str, Any] = {}
    rows = [row for case in cases(e) for row in attack(e, case, shown)]
    figure(e, rows, shown)
    e.write(rows, ["data", "pool", "drawn", "effective", "judge", "frechet", "std", "relative"])


def figure(e: common.Experiment, rows: list[common.Row], shown: dict[str, Any]) -> None:
    """Distances over steps; distances relative to drawing alike; images drawn most and least."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
    for name, (_, lowered) in shown.items():
        axes[0].plot(np.array(lowered.distances) / lowered.distances[0], label=name)
    axes[0].set(xlabel="step", ylabel="distance / distance of all alike", ylim=(0, 1.05),
                title="to the real images that weights are fitted to")  # fmt: skip
    axes[0].legend(fontsize=8)
    judges = list(dict.fromkeys(r["judge"] for r in rows))
    groups = list(
        dict.fromkeys((r["data"], r["pool"], r["drawn"]) for r in rows if "relative" in r)
    )
    groups = [g for g in groups if g[2] != "all alike"]
    for at, group in enumerate(groups):
        inside = [r for r in rows if (r["data"], r["pool"], r["drawn"]) == group]
        for i, r in enumerate(inside):
            axes[1].barh(
                at + 0.2 * (1.5 - i), r["relative"], 0.18, color=f"C{judges.index(r['judge'])}"
            )
    for i, name in enumerate(judges):
        axes[1].barh(0, 0, color=f"C{i}", label=name)
    axes[1].axvline(1, color="k", lw=0.8)
    axes[1].set_yticks(range(len(groups)), ["\n".join(g) for g in groups], fontsize=8)
    axes[1].set(xlabel="distance / distance of all alike", title="to other real images")
    axes[1].legend(fontsize=8)
    images, lowered = list(shown.values())[-1]
    order, side = np.argsort(lowered.weights)[::-1], 6
    pair = [images[o[: side * side]].reshape(side, side, *images.shape[1:])
            for o in (order, order[::-1])]  # fmt: skip
    sheets = [np.concatenate(list(np.concatenate(list(p), 1)), 1) for p in pair]
    gap = np.full((len(sheets[0]), images.shape[1] // 2, images.shape[3]), 255, np.uint8)
    axes[2].imshow(np.concatenate([sheets[0], gap, sheets[1]], 1).squeeze(), cmap="gray")
    axes[2].set(xticks=[], yticks=[], title=f"{list(shown)[-1]}: drawn most | least")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

"""How far does a Frechet distance fall when the same images are only drawn otherwise (2203.06026)?

Generated images are real ones: blurred, or of classes in wrong shares. They are drawn anew by
weights that match the feature net's own classes, or that minimise the distance on one half of the
real images. All is judged on the other half, by that net and by others that the weights never saw.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np
from scipy.ndimage import gaussian_filter

from experiments import common
from jaxgen.cli.nets import open_net
from jaxgen.data import sources
from jaxgen.metrics import histogram_attack, sensitivity, stream
from jaxgen.metrics.frechet import frechet

BLUR = 0.6  # pixels
RATIO = 10.0  # of the commonest class to the rarest, in the set of wrong shares


def choose(e: common.Experiment) -> tuple[str, Any, list[Any]]:
    """The data, the net that is attacked, and those that judge as well."""
    root = Path(os.environ.get("JAXGEN_DATA", ""))
    if e.debug:
        return "digits", open_net("digits-classifier"), [open_net("random")]
    if os.environ.get("JAXGEN_DATA") and (root / "cifar10").is_dir():
        file = root / "efficientnet_lite0" / "efficientnet_lite0_fp16.npz"
        net = open_net("efficientnet_lite0", file if file.is_file() else None)
        others = [open_net("random")]
        file = root / "fid_inception768" / "inception_mixed6e_fp16.npz"
        if file.is_file():
            others.insert(0, open_net("inception-192", file, like="pytorch-fid"))
        return "cifar10", net, others
    return "fashion_mnist", open_net("fashion-classifier"), [open_net("random")]


def sets(name: str, num: int, seed: int) -> dict[str, np.ndarray]:
    """Two sets of `num` images each (num, h, w, c) uint8 from the training split."""
    images, labels = (np.asarray(a) for a in sources.load(name, "train").arrays[:2])
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(images))
    soft = images[order[:num]].astype(np.float32)
    soft = gaussian_filter(soft, (0, BLUR, BLUR, 0)).round().astype(np.uint8)
    classes = labels.max() + 1
    shares = RATIO ** (-np.arange(classes) / (classes - 1))
    counts = np.floor(num * shares / shares.sum()).astype(int)
    rest = order[num:]
    picked = [rest[labels[rest] == c][:k] for c, k in enumerate(counts)]
    return {"blurred": soft, "wrong shares": images[np.concatenate(picked)]}


def run(e: common.Experiment) -> None:
    """Features once, then weights and distances."""
    name, net, others = choose(e)
    num, steps = e.pick((2000, 30), (10_000, 100), (300, 5))
    batch = e.pick(32, 512, 32)
    real = np.asarray(sources.load(name, "test").arrays[0])
    seen, held = real[: len(real) // 2][:num], real[len(real) // 2 :][:num]
    of = lambda n, x: stream.features(n, [x], batch=batch)
    judges = {n.name: (n, of(n, held)) for n in (net, *others)}
    seen_features = of(net, seen)
    target = sensitivity.fit(seen_features)
    e.log(f"{name}, {net.name}: features of the real images")
    classes = np.asarray(net.head(seen_features)).argmax(1)
    rows, curves, drawn = [], {}, {}
    for kind, images in sets(name, num, e.seed).items():
        found = {n: of(judge, images) for n, (judge, _) in judges.items()}
        own = found[net.name]
        attack = histogram_attack.minimise(own, target, steps)
        e.log(f"{kind}: {attack.distances[0]:.4g} to {attack.distances[-1]:.4g}")
        curves[kind] = attack.distances
        ways = {
            "all alike": np.full(len(own), 1 / len(own)),
            "top classes matched": histogram_attack.match(
                np.asarray(net.head(own)).argmax(1), classes
            ),
            "distance minimised": attack.weights,
        }
        for way, weights in ways.items():
            repeats = []
            for seed in range(e.pick(3, 3, 1)):
                chosen = histogram_attack.resample(weights, num, seed)
                repeats.append({n: frechet(x[chosen], judges[n][1]) for n, x in found.items()})
            rows.append(
                {"images": kind, "drawn": way,
                 "effective": round(histogram_attack.effective(weights)),
                 **common.over_seeds(repeats)}
            )  # fmt: skip
            e.log(f"{rows[-1]}")
        drawn[kind] = images, attack.weights
    floor = {n: frechet(of(judge, seen), held) for n, (judge, held) in judges.items()}
    rows.append({"images": "real", "drawn": "the other half", **floor})
    figure(e, rows, list(judges), curves, drawn)
    e.write(
        rows, ["images", "drawn", "effective", *[f"{n}{s}" for n in judges for s in ("", " std")]]
    )


def figure(e: common.Experiment, rows: list, nets: list[str], curves: dict, drawn: dict) -> None:
    """Distances relative to those of images drawn alike; the most and the least drawn images."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(15, 4.4), layout="constrained")
    for kind, line in curves.items():
        axes[0].plot(line, label=kind)
    axes[0].set(xlabel="step", ylabel=f"Fréchet distance, {nets[0]}", yscale="log",
                title="on the real images that the weights were fitted to")  # fmt: skip
    axes[0].legend()
    labels = []
    for kind in curves:
        first, *rest = (r for r in rows if r["images"] == kind)
        for r in rest:
            at = len(labels)
            labels.append(f"{kind}:\n{r['drawn']}")
            for i, n in enumerate(nets):
                axes[1].bar(at + 0.27 * (i - 1), r[n] / first[n], 0.25, color=f"C{i}",
                            label=n if not at else None)  # fmt: skip
    axes[1].axhline(1, color="k", lw=0.8)
    axes[1].set_xticks(range(len(labels)), labels, fontsize=8)
    axes[1].set(ylabel="distance / distance drawn alike", title="on other real images")
    axes[1].legend(fontsize=8)
    images, weights = drawn["blurred"]
    order = np.argsort(weights)[::-1]
    side = 8
    pair = [images[o[: side * side]].reshape(side, side, *images.shape[1:])
            for o in (order, order[::-1])]  # fmt: skip
    sheets = [np.concatenate(list(np.concatenate(list(p), 1)), 1) for p in pair]
    gap = np.full((len(sheets[0]), images.shape[1] // 2, images.shape[3]), 255, np.uint8)
    axes[2].imshow(np.concatenate([sheets[0], gap, sheets[1]], 1).squeeze(), cmap="gray")
    axes[2].set(xticks=[], yticks=[], title="blurred: those drawn most | least")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

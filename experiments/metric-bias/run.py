"""How do measures depend on the number of samples (1911.07023, 1801.01401, 2002.09797)?

Real images against other real images, as they are, with noise, or without two classes: what each
measure says of n samples, whose true value does not depend on n.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from jaxgen.cli import common as cli
from jaxgen.metrics import features, stream
from jaxgen.metrics.frechet import frechet
from jaxgen.metrics.frechet_infinity import frechet_infinity
from jaxgen.metrics.kernel import kernel_error
from jaxgen.metrics.precision_recall import density_coverage, precision_recall

NOISE = 12.0  # standard deviation in grey levels of 255
WITHOUT = (0, 1)  # classes
NAMES = ("same", "noise", "two classes less")
MEASURES = ("frechet", "frechet_infinity", "kernel", "precision", "recall", "density", "coverage")


def sets(e: common.Experiment) -> tuple[str, np.ndarray, dict[str, np.ndarray]]:
    """The net's name, features of the reference, and of samples of each distribution."""
    name, size = e.pick(("fashion_mnist", 5000), ("fashion_mnist", 30_000), ("digits", 400))
    source = cli.load_source(name, "train")
    images, labels = source.arrays
    rng = np.random.default_rng(e.seed)
    order = rng.permutation(len(images))
    real, other = order[:size], order[size:][: e.pick(10_000, None, None)]
    rest = order[size:][: e.pick(12_600, None, None)]  # of which a fifth is left out
    noisy = images[other] + NOISE * rng.standard_normal(images[other].shape, np.float32)
    of = {
        NAMES[0]: images[other],
        NAMES[1]: np.clip(np.rint(noisy), 0, 255).astype(np.uint8),
        NAMES[2]: images[rest[~np.isin(labels[rest], WITHOUT)]],
    }
    net = features.load(features.default_for(name, source.shape))
    return net.name, stream.features(net, [images[real]]), {
        n: stream.features(net, [x]) for n, x in of.items()
    }  # fmt: skip


def measure(fake: np.ndarray, real: np.ndarray, seed: int) -> common.Row:
    """All measures of n samples against the whole reference."""
    value, error = kernel_error(fake, real)
    return {
        "frechet": frechet(fake, real),
        "frechet_infinity": frechet_infinity(fake, real, seed=seed).distance,
        "kernel": 1000 * value,
        "kernel_error": 1000 * error,
        **precision_recall(fake, real),
        **density_coverage(fake, real),
    }


def run(e: common.Experiment) -> None:
    """Every distribution at every n, on parts that do not overlap where there are enough."""
    net, real, samples = sets(e)
    sizes = e.pick((100, 250, 500, 1000, 2500, 5000, 10_000), (500, 2000, 8000, 30_000),
                   (50, 100, 200))  # fmt: skip
    rows = []
    for name, x in samples.items():
        for n in sizes:
            repeats = min(e.pick(4, 5, 2), len(x) // n)
            found = [measure(x[i * n : (i + 1) * n], real, e.seed + i) for i in range(repeats)]
            rows.append({"distribution": name, "n": n, "repeats": repeats})
            rows[-1] |= common.over_seeds(found)
            e.log(f"{rows[-1]}")
    e.log(f"features of {net}, reference of {len(real)} images")
    figure(e, rows)
    e.write(rows, ["distribution", "n", "repeats", *MEASURES])


def figure(e: common.Experiment, rows: list[common.Row]) -> None:
    """Each measure over n, bars of a standard deviation over repeats."""
    import matplotlib.pyplot as plt

    panels = ("frechet", "frechet_infinity", "kernel", "precision", "recall", "density", "coverage")
    titles = {"frechet": "Fréchet distance", "kernel": "kernel distance × 1000"}
    titles["frechet_infinity"] = "Fréchet distance, extrapolated"
    fig, axes = plt.subplots(2, 4, figsize=(17, 7.5), layout="constrained")
    for ax, m in zip(axes.flat, panels):
        for i, name in enumerate(NAMES):
            line = [r for r in rows if r["distribution"] == name]
            of = [r["n"] for r in line], [r[m] for r in line], [r[f"{m} std"] for r in line]
            ax.errorbar(*of, fmt="o-", ms=4, capsize=2, color=f"C{i}", label=name)
        ax.set(xscale="log", xlabel="samples", title=titles.get(m, m))
        if m == "frechet":
            ax.set(yscale="log")
        if m in ("frechet_infinity", "kernel"):
            ax.axhline(0, color="k", lw=0.8)
    axes[0, 0].legend()
    ax = axes[1, 3]
    for i, name in enumerate(NAMES):
        line = [r for r in rows if r["distribution"] == name and r["repeats"] > 1]
        n = [r["n"] for r in line]
        ax.plot(n, [r["kernel_error"] for r in line], "-", color=f"C{i}")
        ax.plot(n, [r["kernel std"] for r in line], "o", color=f"C{i}", ms=4)
    ax.set(xscale="log", yscale="log", xlabel="samples")
    ax.set(title="kernel: error as told (line), spread over repeats")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

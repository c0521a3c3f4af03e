"""Does a network learn tomography from noisy projections alone (2212.07431, 2001.11801)?

PSNR of filtered back-projection, total variation, networks trained without a reference, and one
trained with it, on sparse and on noisy scans of random ellipses; larger budgets add helical scans.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen.cli import common as cli
from jaxgen.common import rng, units
from jaxgen.metrics.psnr import psnr
from jaxgen.noise.backprojection import WINDOWS
from jaxgen.recipes import tomography
from jaxgen.samplers import total_variation

SCANS = {  # config, noise
    "sparse": ("phantoms", {"angles": 12, "photons": 10_000.0}),
    "noisy": ("phantoms", {"angles": 48, "photons": 300.0}),
    "helical": ("helical", {"turn": 24, "photons": 1000.0}),
}
RUNS = {  # method of the config, overrides
    "simulator": ("simulator", ()),
    "simulator, plain squares": ("simulator", ("loss.sharpen=False",)),
    "noise2inverse": ("noise2inverse", ()),
    "supervised": ("supervised", ()),
}
LAMBDAS = (0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064)


def training(e: common.Experiment, scan: str, method: str) -> Path:
    """One trained network."""
    config, noise = SCANS[scan]
    word, changes = RUNS[method]
    flat = config == "phantoms"
    source = "phantoms?size=48&num=1000" if flat else "phantoms?size=24&depth=12&num=150"
    source = e.pick(source, source, "phantoms?size=16&num=32" + "&depth=4" * (not flat))
    images = e.pick("12k" if flat else "500", "100k", "64")
    size = {
        "data.source": source,
        "images": images,
        "batch": 8 if flat else 2,
        "model.features": e.pick(16 if flat else 8, 32, 2),
        "log_every": "400",
        "snapshot_every": images,
        "checkpoint_every": images,
        **{f"noise.{k}": v for k, v in noise.items()},
    }
    size |= {"model.last_features": e.pick((16, 16), (64, 32), (4, 4))} if flat else {}
    overrides = [f"{k}={v}" for k, v in size.items()]
    name = f"{scan}-{method}".replace(", ", "-").replace(" ", "-")
    return e.train(name, f"configs/tomography/{config}.py:{word}", *overrides, *changes)


def objects(source: Any, num: int) -> jax.Array:
    """The first images or volumes of a source, in [-1, 1]."""
    return units.from_uint8(jnp.asarray(np.stack([source[i]["image"] for i in range(num)])))


def best(options: Any, restore: Callable, x: jax.Array, y: jax.Array) -> Any:
    """The option whose restoration of the scans y is nearest to x."""
    return max(options, key=lambda option: psnr(restore(option, y), x).mean())


def baselines(scanner: Any, axes: tuple[int, ...], steps: int) -> dict[str, tuple]:
    """name -> (settings, restore(setting, y)); the setting is chosen on training images."""
    filtered = lambda window: jax.jit(type(scanner)(**{**vars(scanner), "window": window}).start)
    windows = {w: filtered(w) for w in WINDOWS}
    tv = jax.jit(lambda lam, y: total_variation.minimise(scanner, y, lam, steps, axes))
    return {
        "back-projection": (("ram-lak",), lambda w, y: windows[w](y)),
        "back-projection, best window": (tuple(WINDOWS), lambda w, y: windows[w](y)),
        "total variation": (LAMBDAS, tv),
    }


def compare(e: common.Experiment, scan: str, methods: list[str]) -> tuple[list, dict]:
    """Rows of one scan, and the results of its first test object by method."""
    runs = {m: cli.Run.open(training(e, scan, m)) for m in methods}
    run = runs[methods[0]]
    scanner = tomography.scanner_of(run.config, run.facts)
    flat = scan != "helical"
    num, choose = e.pick(64 if flat else 8, 64, 4), e.pick(8 if flat else 2, 8, 2)
    source = {s: cli.load_source(run.config.data.source, s) for s in ("train", "test")}
    num = min(num, len(source["test"]))
    x, known = objects(source["test"], num), objects(source["train"], choose)
    keys = rng.seed_keys(e.seed, jnp.arange(num + choose))
    scanned = jax.jit(scanner.corrupt)
    y, of_known = scanned(keys[:num], x), scanned(keys[num:], known)
    axes, steps = ((1, 2) if flat else (1, 2, 3)), e.pick(200 if flat else 100, 400, 10)
    found, rows = {}, []

    def add(name: str, setting: Any, image: Any) -> None:
        decibels = psnr(image, x)
        found[name] = np.asarray(image[0])
        rows.append({
            "scan": scan,
            "views": scanner.views,
            "photons": int(scanner.photons),
            "method": name,
            "setting": setting,
            "psnr": float(decibels.mean()),
            "standard error": float(decibels.std(ddof=1) / np.sqrt(num)),
        })  # fmt: skip
        e.log(f"{rows[-1]}")

    for name, (options, restore) in baselines(scanner, axes, steps).items():
        setting = best(options, restore, known, of_known) if len(options) > 1 else options[0]
        add(name, setting, restore(setting, y))
    for name, run in runs.items():
        draw = jax.jit(run.plan.sample.fn)
        images = units.to_uint8(x) if flat else x
        out = draw(run.average(None).params, keys[:num], {"image": jnp.asarray(images)}, {})
        np.testing.assert_allclose(out["target"], x, atol=1e-5)
        add(name, None, np.asarray(out["image"]))
    found["object"] = np.asarray(x[0])
    return rows, found


def run(e: common.Experiment) -> None:
    """All scans and methods."""
    rows, pictures = [], {}
    for scan in e.pick(("sparse", "noisy"), SCANS, SCANS):
        methods = [m for m in RUNS if scan == "noisy" or m != "simulator, plain squares"]
        methods = ["simulator", "supervised"] if scan == "helical" else methods
        new, pictures[scan] = compare(e, scan, methods)
        rows += new
    figure(e, rows, pictures)
    e.write(rows, ["scan", "views", "photons", "method", "setting", "psnr", "standard error"])


def figure(e: common.Experiment, rows: list[common.Row], pictures: dict[str, dict]) -> None:
    """One object a scan, restored by each method; of volumes the middle slice."""
    import matplotlib.pyplot as plt

    names = ["object", *dict.fromkeys(r["method"] for r in rows)]
    names.remove("back-projection, best window")
    shape = len(pictures), len(names)
    size = 2 * shape[1], 2.2 * shape[0]
    fig, axes = plt.subplots(*shape, figsize=size, layout="constrained", squeeze=False)
    for line, (scan, found) in zip(axes, pictures.items(), strict=True):
        score = {r["method"]: r["psnr"] for r in rows if r["scan"] == scan}
        for ax, name in zip(line, names, strict=True):
            ax.set_axis_off()
            if name not in found:
                continue
            image = found[name][..., found[name].shape[-1] // 2]
            ax.imshow(image, cmap="gray", vmin=-1, vmax=0.6)
            text = f"{name}\n{score[name]:.1f} dB" if name in score else f"{scan}: {name}"
            ax.set_title(text, fontsize=8)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

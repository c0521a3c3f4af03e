"""Does a blind-spot network restore as well as one with clean targets (1901.10277)?

One network, with and without the blind spot, trained by each method on the same noisy photographs
(sigma 25), and scored on the same test images. The plain twin serves the methods that need no
blind spot.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen.cli import common as commands
from jaxgen.common import rng, units
from jaxgen.data import images, sources
from jaxgen.metrics import psnr
from jaxgen.noise import operators
from jaxgen.recipes import build

METHODS = {  # name -> arguments of configs/blindspot/photos.py
    "Noise2Clean": "noise2clean",
    "Noise2Noise": "noise2noise",
    "blind spot, sigma known": "blindspot,known",
    "blind spot, sigma learned": "blindspot,global",
    "blind spot, mean only": "blindspot,none",
    "Noise2Void": "noise2void",
    "Noise2Self": "noise2self",
}
SIGMA = 25.0
BORDER = 16  # pixels


def folder() -> Path | None:
    """Where the grey photographs lie, if they do."""
    data = os.environ.get("JAXGEN_DATA")
    found = Path(data) / "denoise_gray" if data else None
    return found if found and found.is_dir() else None


def tests(e: common.Experiment) -> dict[str, np.ndarray]:
    """Test images by their set, uint8 (n, size, size, 1): the middles of photographs."""
    size, step = e.pick(256, 256, 32), e.pick(4, 1, 40)
    if folder() is None:
        source = sources.load(f"photos?grey=1&size={size}", "test")
        return {"photos": np.stack([source[i]["image"] for i in range(len(source))])[::step]}
    return {
        "Set12": np.stack([middle(p, size) for p in sorted((folder() / "set12").glob("*.png"))]),
        "BSD68": np.stack(
            [middle(p, size) for p in sorted((folder() / "bsd68").glob("*.png"))[::step]]
        ),
    }


def middle(path: Path, size: int) -> np.ndarray:
    """The central square of a grey photograph."""
    x = images.read(path, 1)
    top, left = ((n - size) // 2 for n in x.shape[:2])
    return x[top : top + size, left : left + size]


def noisy(clean: np.ndarray, seed: int) -> jax.Array:
    """Images of [-1, 1] with noise, one key an image."""
    keys = rng.seed_keys(seed, np.arange(len(clean)))
    return operators.gaussian(keys, units.from_uint8(jnp.asarray(clean)), SIGMA)


def decibels(x: np.ndarray, clean: np.ndarray) -> float:
    """Mean PSNR of 8-bit images."""
    return float(psnr.psnr_8bit(x, clean).mean())


class Restorer:
    """A run's restorer, one image at a time, compiled once a size; `loss` changes its config."""

    def __init__(self, path: Path, **loss: Any):
        run = commands.Run.open(path)
        run.config.loss.update(loss)
        plan = build(run.config, run.facts)
        self.knows = run.config.loss.method == "blindspot" and "noise" not in plan.players
        self.knows = self.knows and run.config.loss.covariance != "none"
        self.params = run.average(None).params
        restore = plan.exports["restore"].fn
        self.fn = jax.jit(lambda p, x, level: restore(p, {})(x, level))

    def __call__(self, y: jax.Array, level: float = SIGMA) -> np.ndarray:
        """Restored images (n, h, w, 1) of [-1, 1]."""
        one = jnp.full((1,), level) if self.knows else None
        return np.concatenate([np.asarray(self.fn(self.params, x[None], one)) for x in y])

    @property
    def sigma(self) -> float | None:
        """The learned sigma in grey levels."""
        if "noise" not in self.params:
            return None
        raw = float(self.params["noise"]["raw"])
        return float(255 * (np.log1p(np.exp(raw - 4)) + 1e-3))


def run(e: common.Experiment) -> None:
    """Trains each method once, restores the test images with it."""
    data = "bsd400" if folder() else "photos"
    found = tests(e)
    seen = {name: noisy(clean, e.seed) for name, clean in found.items()}
    score = lambda restore: {n: decibels(restore(seen[n]), clean) for n, clean in found.items()}
    rows = [{"method": "noisy images", **score(np.asarray)}]
    shown: dict[str, np.ndarray] = {}
    first = next(iter(found))
    for method in list(METHODS)[: e.pick(6, 7, 4)]:
        words, size = METHODS[method], "small," if e.budget == "cpu" else ""
        config = f"configs/blindspot/photos.py:{size}{data},{words}"
        path = e.train(words.replace(",", "-"), config)
        restorer = Restorer(path)
        rows.append({"method": method, **score(restorer), "sigma": restorer.sigma})
        shown[method] = restorer(seen[first][:1])[0]
        e.log(f"{rows[-1]}")
        if method == "blind spot, sigma known":
            far = lambda y: restorer(y, 1e6)  # noqa: B023
            rows.append({"method": "  its prior's mean", **score(far)})
            if folder():
                padding(e, path)
    columns = list(found)
    figure(e, rows, columns, found[first][0], np.asarray(seen[first][0]), shown)
    e.write(rows, ["method", *columns, "sigma"])


def padding(e: common.Experiment, path: Path) -> None:
    """Prints decibels of whole photographs (321 x 481), padded with zeros or by reflection."""
    clean = [images.read(p, 1) for p in sorted((folder() / "bsd68").glob("*.png"))]
    clean = np.stack([x for x in clean if x.shape[0] < x.shape[1]])[: e.pick(6, 40, 1)]
    y = noisy(clean, e.seed)
    rows = []
    for name, reflect in (("zeros", False), ("reflection", True)):
        x = Restorer(path, reflect=reflect)(y)
        whole, last = slice(None), slice(-BORDER, None)
        places = {"whole": (whole, whole), "bottom": (last, whole), "right": (whole, last)}
        places |= {"top": (slice(BORDER), whole)}
        of = {n: decibels(x[:, i, j], clean[:, i, j]) for n, (i, j) in places.items()}
        rows.append({"padding": name, **of})
    print(common.table(rows, list(rows[0])), flush=True)


def figure(
    e: common.Experiment,
    rows: list[common.Row],
    sets: list[str],
    clean: np.ndarray,
    noise: np.ndarray,
    shown: dict[str, np.ndarray],
) -> None:
    """Decibels of every method; a part of a test image by each."""
    import matplotlib.pyplot as plt

    fig = plt.figure(figsize=(11, 6), layout="constrained")
    parts = fig.subfigures(1, 2, width_ratios=(2, 3))
    ax = parts[0].subplots()
    bars = rows[1:]
    at = np.arange(len(bars))[::-1]
    for k, name in enumerate(sets):
        values = [r[name] for r in bars]
        ax.barh(at - 0.35 * k, values, 0.35, label=name)
        for i, v in zip(at, values):
            ax.text(v, i - 0.35 * k, f" {v:.2f}", va="center", fontsize=8)
    low = min(r[n] for r in bars for n in sets)
    high = max(r[n] for r in bars for n in sets)
    ax.set_xlim(low - 0.5, high + 0.2 * (high - low) + 0.5)
    ax.set_yticks(at - 0.17, [r["method"].strip() for r in bars])
    ax.set(xlabel="PSNR (dB), sigma 25")
    ax.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2)
    n = clean.shape[0]
    part = slice(n // 8, n // 2), slice(3 * n // 8, 3 * n // 4), 0
    pictures = {"clean": units.from_uint8(jnp.asarray(clean)), "noisy": noise, **shown}
    axes = parts[1].subplots(3, 3).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, (name, x) in zip(axes, pictures.items()):
        shade = {"cmap": "gray", "vmin": 0, "vmax": 255, "interpolation": "nearest"}
        ax.imshow(units.to_uint8(x)[part], **shade)
        ax.set_title(name, fontsize=9)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

"""Is a restorer trained on noisy targets as good as one trained on clean ones (1803.04189)?

The same small U-Net is trained twice for each of four corruptions, with the same images, order and
noise of the inputs; only the targets differ. Photographs are BSD400 and Set12 below JAXGEN_DATA, or
those that ship in installed packages.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np

from experiments import common
from jaxgen.cli import photo_files, restore
from jaxgen.common import rng, units
from jaxgen.data import sources
from jaxgen.metrics.psnr import psnr_8bit
from jaxgen.recipes import common as recipes

NOISES = {  # the level of the test
    "gaussian": {"sigma": 25.0},
    "poisson": {"lam": 30.0},
    "bernoulli": {"p": 0.5},
    "text": {"p": 0.25},
}
METHODS = {"clean": "Noise2Clean", "noisy": "Noise2Noise"}
CONFIG = "configs/noise2noise/photos.py"


def real() -> bool:
    """Whether JAXGEN_DATA has the photographs."""
    root = os.environ.get("JAXGEN_DATA")
    return bool(root) and (Path(root) / "denoise_gray" / "bsd400").is_dir()


def photos(e: common.Experiment) -> dict[str, np.ndarray]:
    """Clean test photos (h, w, 1) uint8 by name: Set12, or crops of the packages' test photos."""
    if real() and not e.debug:
        folder = Path(os.environ["JAXGEN_DATA"]) / "denoise_gray" / "set12"
        return {p.name: photo_files.read(p).pixels for p in sorted(folder.glob("*.png"))}
    images = sources.load("photos?size=128&grey=1", "test").images[: e.pick(None, None, 2)]
    return {f"{i:02d}": x for i, x in enumerate(images)}


class Corruption:
    """A corruption of whole photos, done in squares of `size` pixels.

    Text is larger on larger images: squares as those of the training keep its size. The other
    corruptions are the same for any squares.
    """

    def __init__(self, name: str, size: int, seed: int):
        noise = recipes.corruption(name, **NOISES[name])
        self.size, self.key = size, rng.fold(jax.random.key(seed), "test", name)
        self.corrupt = jax.jit(noise.corrupt)

    def __call__(self, name: str, clean: np.ndarray) -> np.ndarray:
        """float32 (h, w, 1) in [-1, 1] and beyond."""
        (h, w, _), n = clean.shape, self.size
        squares = clean.reshape(h // n, n, w // n, n).swapaxes(1, 2).reshape(-1, n, n, 1)
        keys = rng.image_keys(rng.fold(self.key, name), len(squares))
        noisy = np.asarray(self.corrupt(keys, units.from_uint8(squares)))
        return noisy.reshape(h // n, w // n, n, n).swapaxes(1, 2).reshape(h, w, 1)


def run(e: common.Experiment) -> None:
    """Trains, restores the test photos, tabulates."""
    data, size = ("bsd400", "small") if real() else ("photos", "small")
    data, size = e.pick((data, size), (data, ""), ("photos", ""))
    clean = photos(e)
    rows, curves, shown = [], {}, {}
    for noise in NOISES:
        word = ",".join(filter(None, (data, size, noise)))
        for target, method in METHODS.items():
            arg = word + (",clean" if target == "clean" else "")
            path = e.train(f"{data}-{noise}-{target}-seed{e.seed}", f"{CONFIG}:{arg}")
            curves[noise, method], results = judge(e, path, noise, clean)
            shown.setdefault(noise, []).append(results["image"])
            shown.setdefault((noise, "noisy"), results["noisy"])
        level = ", ".join(f"{k} {v:g}" for k, v in NOISES[noise].items())
        for nimg in curves[noise, method]:
            scores = {m: curves[noise, m][nimg] for m in METHODS.values()}
            rows.append(
                {
                    "corruption": f"{noise}, {level}",
                    "images": nimg,
                    "input": results["input"],
                    **scores,
                    "gap": scores["Noise2Noise"] - scores["Noise2Clean"],
                }
            )
            e.log(f"{rows[-1]}")
    figure(e, curves, shown, next(iter(clean.values())))
    e.write(rows)


def judge(
    e: common.Experiment, path: Path, noise: str, clean: dict[str, np.ndarray]
) -> tuple[dict[int, float], dict[str, Any]]:
    """Mean PSNR of the restored photos at every snapshot of a run; the first photo at the last."""
    from jaxgen.cli import common as cli
    from jaxgen.train.store import Store

    with Store(path / "snapshots") as store:
        numbers = store.numbers()
    crop = cli.Run.open(path).config.data.crop
    corrupt = Corruption(noise, crop, e.seed)
    noisy = {name: corrupt(name, x) for name, x in clean.items()}
    mean = lambda found: float(np.mean([psnr_8bit(found[n][None], clean[n][None]) for n in clean]))
    curve, done = {}, {}
    for nimg in numbers:
        flags = ["--workdir", str(path), "--out", "unused", "--nimg", str(nimg)]
        flags += ["--tile", "128", "--overlap", "32"]
        restorer = restore.Restorer(restore.parser().parse_args(["unused", *flags]))
        done = {name: restorer(x, name) for name, x in noisy.items()}
        curve[nimg] = mean(done)
    first = next(iter(clean))
    return curve, {"input": mean(noisy), "image": done[first], "noisy": noisy[first]}


def figure(e: common.Experiment, curves: Any, shown: Any, clean: np.ndarray) -> None:
    """Decibels over images seen, and a piece of one photo: noisy, by both methods, clean."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 4, figsize=(10, 5.4), layout="constrained")
    cut = lambda x: np.asarray(x if x.dtype == np.uint8 else units.to_uint8(x))[64:128, 64:128, 0]
    for ax, below, noise in zip(axes[0], axes[1], NOISES):
        for method, style in zip(METHODS.values(), ("k--", "C1-")):
            curve = curves[noise, method]
            ax.plot(list(curve), list(curve.values()), style, marker="o", ms=4, label=method)
        ax.set(title=noise, xlabel="images seen")
        images = [cut(shown[noise, "noisy"]), *map(cut, shown[noise]), cut(clean)]
        rows = [np.concatenate(images[:2], 1), np.concatenate(images[2:], 1)]
        below.imshow(np.concatenate(rows), cmap="gray", vmin=0, vmax=255)
        below.set(title="input | Noise2Clean\nNoise2Noise | clean", xticks=[], yticks=[])
    axes[0, 0].set(ylabel="PSNR, dB")
    axes[0, 0].legend()
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

"""Do the published DnCNN weights reach their published decibels through our pipeline (1608.03981)?

Corruption, restoration, rounding and PSNR are those of `jaxgen restore`; noise is drawn by jax, and
for comparison by numpy as the authors' test draws it. Needs $JAXGEN_DATA/denoise_gray.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from jaxgen.cli import import_weights, photo_files, restore
from jaxgen.common import pictures

SIGMA = 25
PUBLISHED = {"set12": 30.43, "bsd68": 29.23}  # these weights, by their authors' code
SETS = {"set12": "Set12", "bsd68": "BSD68"}


def data(e: common.Experiment) -> Path:
    """The folder with weights and photos; a made-up one for debug runs.

    Raises:
      FileNotFoundError: there is none.
    """
    if e.debug:
        return made_up(e.workdir / "data")
    folder = Path(os.environ.get("JAXGEN_DATA") or ".") / "denoise_gray"
    if not (folder / "dncnn_sigma25.npz").is_file():
        raise FileNotFoundError(
            "set JAXGEN_DATA to a folder with denoise_gray/dncnn_sigma25.npz and the photos of "
            "denoise_gray/set12 and denoise_gray/bsd68"
        )
    return folder


def made_up(folder: Path) -> Path:
    """A small random network and pieces of the photos that ship in packages."""
    from jaxgen.data import sources

    images = sources.load("photos?size=80&grey=1", "test").images
    for i, name in enumerate(SETS):
        for k in range(2):
            pictures.save_png(images[3 * i + k], folder / name / f"{k}.png")
    rng, arrays = np.random.default_rng(0), {}
    for i, (a, b) in enumerate([(1, 4), (4, 4), (4, 1)]):
        arrays[f"model.{2 * i}.weight"] = rng.normal(0, 0.1, (b, a, 3, 3)).astype("f4")
        arrays[f"model.{2 * i}.bias"] = np.zeros(b, "f4")
    np.savez(folder / "dncnn_sigma25.npz", **arrays)
    return folder


def by_command(folder: Path, model: Path, out: Path, seed: int, tile: int) -> list[restore.Result]:
    """The photos' decibels from `jaxgen restore`."""
    flags = ["--workdir", str(model), "--out", str(out), "--tile", str(tile)]
    flags += ["--add_noise", f"gaussian,sigma={SIGMA},seed={seed}"]
    return list(restore.restore_all(restore.parser().parse_args([str(folder), *flags])))


def with_numpy(folder: Path, model: Path) -> list[restore.Result]:
    """Likewise, with the same numpy noise for photos of one size, as the authors' test has it."""
    flags = ["--workdir", str(model), "--out", "unused", "--tile", "0"]
    restorer = restore.Restorer(restore.parser().parse_args([str(folder), *flags]))
    found = []
    for path in sorted(folder.glob("*.png")):
        clean = photo_files.read(path).pixels
        noise = np.random.RandomState(0).normal(0, SIGMA / 255, clean.shape)
        noisy = np.float32(2 * (clean / 255 + noise) - 1)
        found.append(restore.scored(path.name, restorer(noisy, path.name), noisy, clean))
    return found


def run(e: common.Experiment) -> None:
    """Imports the weights, restores both sets, tabulates the means."""
    folder, model = data(e), e.workdir / "dncnn"
    if not model.exists():
        import_weights.main([str(folder / "dncnn_sigma25.npz"), "--out", str(model)])
    ways = [("set12", "jax", s, 256) for s in range(e.seed, e.seed + e.pick(3, 10, 1))]
    ways += [("set12", "jax", e.seed, 0), ("set12", "numpy", 0, 0)]
    ways += [("bsd68", "jax", s, 0) for s in range(e.seed, e.seed + e.pick(1, 10, 1))]
    ways += [("bsd68", "numpy", 0, 0)]
    rows, each = [], {}
    for name, noise, seed, tile in ways:
        if noise == "jax":
            out = e.workdir / f"{name}-{seed}-{tile}"
            found = by_command(folder / name, model, out, seed, tile)
        else:
            found = with_numpy(folder / name, model)
        each[name, noise, seed, tile] = found
        rows.append(
            {
                "set": SETS[name],
                "photos": len(found),
                "noise": f"{noise}, seed {seed}",
                "tiles": f"{tile} pixels" if tile else "none",
                "PSNR in": float(np.mean([r.psnr_input for r in found])),
                "PSNR": float(np.mean([r.psnr for r in found])),
                "published": None if e.debug else PUBLISHED[name],
            }
        )
        e.log(f"{rows[-1]}")
    figure(e, each, folder)
    e.write(rows)


def figure(e: common.Experiment, each: dict[Any, list[restore.Result]], folder: Path) -> None:
    """Decibels of every photo of Set12; one of them clean, noisy and restored."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(12, 3.6), layout="constrained")
    for (name, noise, seed, tile), found in each.items():
        if name == "set12":
            label = f"{noise}, seed {seed}, {f'tiles of {tile}' if tile else 'no tiles'}"
            numbers = [Path(r.name).stem for r in found]
            axes[0].plot(numbers, [r.psnr for r in found], "o", ms=4, alpha=0.7, label=label)
    if not e.debug:
        axes[0].axhline(PUBLISHED["set12"], color="k", ls=":", label="published mean")
    axes[0].set(xlabel="photo of Set12", ylabel="PSNR, dB")
    axes[0].legend(fontsize=8)
    last = sorted((folder / "set12").glob("*.png"))[-1]
    clean = photo_files.read(last).pixels
    flags = f"gaussian,sigma={SIGMA},seed={e.seed}"
    noisy = np.clip(restore.Noise(flags)(last.name, clean) * 127.5 + 127.5, 0, 255)
    done = photo_files.read(e.workdir / f"set12-{e.seed}-256" / last.name).pixels
    top, left = (max(n // 2 - 72, 0) for n in clean.shape[:2])
    cut = lambda x: x[top : top + 144, left : left + 144, 0]
    axes[1].imshow(np.concatenate([cut(x) for x in (clean, noisy, done)], 1), cmap="gray")
    axes[1].set(title="clean, noisy, restored", xticks=[], yticks=[])
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

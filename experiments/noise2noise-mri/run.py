"""Can undersampled spectra be restored by a network that never saw a full one (1803.04189, 3.4)?

A tenth of the frequencies is measured, at random, and reweighted so that the mean is right. One
network learns from pairs of such images, another one from clean targets; both are compared with the
zero-filled image, with and without the measured frequencies put back into the result.
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
from jaxgen.cli import common as cli
from jaxgen.cli import sampling
from jaxgen.common import rng, units
from jaxgen.metrics.psnr import psnr_8bit
from jaxgen.noise import fourier, operators

RATE = 0.1
METHODS = {"clean": "clean targets", "noisy": "Noise2Noise"}
SIZE = 64  # pixels of a test image


def test_images(data: str, num: int) -> np.ndarray:
    """(n, 64, 64, 1) float32, at most num of them."""
    spec = {
        "phantoms": "phantoms",
        "bsd400": f"bsd400?size={SIZE}",
        "photos": f"photos?grey=1&size={SIZE}",
    }
    source = cli.load_source(spec[data], "test")
    rows = [source[i]["image"] for i in range(min(num, len(source)))]
    return np.asarray(units.from_uint8(np.stack(rows)))


def zero_filled(x: np.ndarray, seed: int) -> np.ndarray:
    """F^-1(m F x) with the masks that the sampler draws."""
    keys = rng.seed_keys(seed, np.arange(len(x)))
    noise = operators.make("fourier", rate=RATE)
    level = jnp.full((len(x),), RATE)
    mask = noise.mask(rng.split(keys, 2)[1], x, level)
    return np.asarray(fourier.image(fourier.transform(x) * mask))


def restored(path: Path, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """ "image" with the measured frequencies, "alone" as the network gives it, and "input"."""
    run = cli.Run.open(path)
    params = run.average(None).params
    sampler = sampling.Sampler(run.plan, run.mesh, 64, {"level": RATE})
    found = sampling.collect(sampler(params, {"image": x}, len(x), seed))
    restore = jax.jit(run.plan.exports["restore"].fn(params, {}))
    parts = [restore(found["input"][i : i + 64]) for i in range(0, len(x), 64)]
    return found | {"alone": np.concatenate(parts)}


def run(e: common.Experiment) -> None:
    """Trains both networks on both data sets and compares them on the same spectra."""
    photos = "bsd400" if os.environ.get("JAXGEN_DATA") else "photos"
    rows, pictures = [], {}
    for data in e.pick(("phantoms", photos), ("phantoms", photos), ("phantoms",)):
        x = test_images(data, e.pick(100, 1000, 8))
        small = e.pick(",small", "", ",small")
        score = lambda y, x=x: psnr_8bit(np.asarray(y), x)
        zero, found, scores = zero_filled(x, e.seed), {}, {}
        for key, name in METHODS.items():
            config = f"configs/noise2noise/mri.py:{data}{small}{',clean' * (key == 'clean')}"
            found[key] = restored(e.train(f"{data}-{key}", config), x, e.seed)
            scores[key] = score(found[key]["image"])
            e.log(f"{data}, {name}: {scores[key].mean():.2f} dB")
        y = found["clean"]["input"]
        rows += [
            {"data": data, "image": "reweighted spectrum (input)", "PSNR": score(y).mean()},
            {"data": data, "image": "zero-filled", "PSNR": score(zero).mean()},
        ]
        for key, name in METHODS.items():
            gap = scores[key] - scores["clean"]
            row = {"data": data, "image": name, "PSNR": scores[key].mean()}
            row |= {"network alone": score(found[key]["alone"]).mean()}
            if key == "noisy":
                error = gap.std(ddof=1) / np.sqrt(len(gap))
                row |= {"against clean targets": gap.mean(), "standard error": error}
            rows.append({n: float(v) if n not in ("data", "image") else v for n, v in row.items()})
        shown = {"true": x, "input": y, "zero-filled": zero}
        shown |= {name: found[key]["image"] for key, name in METHODS.items()}
        pictures[data] = {name: units.to_uint8(v) for name, v in shown.items()}
    e.write(rows, list(rows[-1]))
    figure(e, pictures)


def figure(e: common.Experiment, pictures: dict[str, Any]) -> None:
    """A row an image: true, input, zero-filled, both networks."""
    import matplotlib.pyplot as plt

    lines = [(images, i) for images in pictures.values() for i in (0, 3)]
    names = list(lines[0][0])
    size = (2.2 * len(names), 2.3 * len(lines))
    fig, axes = plt.subplots(len(lines), len(names), figsize=size, layout="constrained")
    for line, (images, i) in zip(axes, lines):
        for ax, name in zip(line, names):
            ax.imshow(images[name][i, ..., 0], cmap="gray", vmin=0, vmax=255)
            ax.set_xticks([])
            ax.set_yticks([])
            if name != "true":
                dB = psnr_8bit(images[name][i : i + 1], images["true"][i : i + 1])[0]
                ax.set_xlabel(f"{dB:.1f} dB")
    for ax, name in zip(axes[0], names):
        ax.set_title(name)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

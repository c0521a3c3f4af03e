"""Which places of an image does a Frechet distance react to (2203.06026)?

Generated images are real ones, blurred. Heat maps of the distance's gradient are compared with the
places that the feature net's own classes depend on, and with what covering each place really does.
"""

import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import numpy as np
from scipy.ndimage import gaussian_filter

from experiments import common
from jaxgen.cli.nets import open_net
from jaxgen.data import sources
from jaxgen.metrics import sensitivity, stream

CELLS = 4  # an image is covered in 4 x 4 places
BLUR = 0.6  # pixels


def choose(e: common.Experiment) -> tuple[str, Any]:
    """The data, and a feature net whose features are a spatial mean."""
    root = Path(os.environ.get("JAXGEN_DATA", ""))
    if e.debug:
        return "digits", open_net("random")
    if os.environ.get("JAXGEN_DATA") and (root / "cifar10").is_dir():
        file = root / "efficientnet_lite0" / "efficientnet_lite0_fp16.npz"
        return "cifar10", open_net("efficientnet_lite0", file if file.is_file() else None)
    return "fashion_mnist", open_net("efficientnet_lite0")


def load(name: str, split: str, num: int) -> np.ndarray:
    """The first images of a split (n, h, w, c) uint8, with three channels."""
    x = np.asarray(sources.load(name, split).arrays[0][:num])
    return x if x.shape[-1] == 3 else np.repeat(x, 3, -1)


def per_image(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The correlation over places of maps (n, h, w), one number an image."""
    a, b = (x.reshape(len(x), -1) - x.mean((1, 2))[:, None] for x in (a, b))
    return (a * b).sum(1) / np.sqrt((a * a).sum(1) * (b * b).sum(1))


def shrink(maps: np.ndarray, cells: int) -> np.ndarray:
    """Maps (n, h, w) by bilinear interpolation to (n, cells, cells)."""
    return np.asarray(jax.image.resize(maps, (len(maps), cells, cells), "bilinear"))


def covered(images: np.ndarray) -> np.ndarray:
    """Each image with one of its places in the image's mean colour (n * CELLS^2, h, w, c)."""
    side = images.shape[1] // CELLS
    mean = images.mean((1, 2)).astype(np.uint8)
    out = np.repeat(images[:, None], CELLS * CELLS, 1)
    for k in range(CELLS * CELLS):
        i, j = (side * v for v in divmod(k, CELLS))
        out[:, k, i : i + side, j : j + side] = mean[:, None, None]
    return out.reshape(-1, *images.shape[1:])


def run(e: common.Experiment) -> None:
    """Fits, differentiates, compares."""
    name, net = choose(e)
    num, shown = e.pick((1600, 32), (10_000, 256), (400, 8))
    generated = load(name, "train", num + shown)
    sigma = (0, BLUR, BLUR, 0)
    generated = gaussian_filter(generated.astype(np.float32), sigma).round().astype(np.uint8)
    images, rest = generated[:shown], generated[shown:]
    batch = e.pick(32, 512, 32)
    of = lambda x: stream.features(net, [x], batch=batch)
    fake, real = sensitivity.fit(of(rest)), sensitivity.fit(of(load(name, "test", num)))
    e.log(f"{name}, {net.name}: features of {2 * num} images")
    features = of(images)
    slopes = sensitivity.gradient(features, fake, real)
    e.log("gradients")
    maps = np.concatenate([np.asarray(net.maps(images[i : i + 16])) for i in range(0, shown, 16)])
    heat = sensitivity.heat(maps, slopes)

    # What covering a place does to the feature, and so to the distance.
    moved = of(covered(images)).reshape(shown, CELLS, CELLS, -1)
    change = np.einsum("nhwd,nd->nhw", features[:, None, None] - moved, slopes)
    rows: list[common.Row] = []

    def compare(what: str, values: np.ndarray) -> None:
        error = values.std(ddof=1) / len(values) ** 0.5
        rows.append({"heat map and": what, "correlation": values.mean(), "error": error})
        e.log(f"{rows[-1]}")

    magnitude = np.abs(heat)
    cams: dict[str, np.ndarray] = {}
    if net.net.head is not None:
        weights, logits = np.asarray(net.params["fc_w"]), np.asarray(net.head(features))
        rng = np.random.default_rng(e.seed)
        top = logits.argsort(1)[:, ::-1]
        picked = {
            "top class of the image": top[:, 0],
            "top class of another image": np.roll(top[:, 0], 1),
            "any of the 1000 classes": rng.integers(0, logits.shape[1], shown),
        }
        for what, classes in picked.items():
            cams[what] = np.einsum("nhwd,dn->nhw", maps, weights[:, classes])
            compare(what, per_image(magnitude, cams[what]))
    compare("length of the activations", per_image(magnitude, np.linalg.norm(maps, axis=-1)))
    compare("change when covered", per_image(shrink(heat, CELLS), change))
    compare(
        "change when covered, another image", per_image(shrink(heat, CELLS), np.roll(change, 1, 0))
    )
    share = magnitude / magnitude.sum((1, 2), keepdims=True)
    low, high = share.shape[1] // 4, share.shape[1] - share.shape[1] // 4
    middle = share[:, low:high, low:high].sum((1, 2))
    area = ((high - low) / share.shape[1]) ** 2
    rows.append({"heat map and": f"share in the middle {100 * area:.0f}% of the area",
                 "share": middle.mean(), "error": middle.std(ddof=1) / shown**0.5})  # fmt: skip
    signs = (heat > 0).mean((1, 2))
    rows.append({"heat map and": "share of places that raise the distance",
                 "share": signs.mean(), "error": signs.std(ddof=1) / shown**0.5})  # fmt: skip
    figure(e, images, heat, next(iter(cams.values()), None), change)
    e.write(rows, ["heat map and", "correlation", "share", "error"])


def figure(e: common.Experiment, images: Any, heat: Any, cam: Any, change: Any) -> None:
    """Images, heat maps, class maps and the effect of covering, one column an image."""
    import matplotlib.pyplot as plt

    n = min(10, len(images))
    lines = {"image": None, "heat map": heat, "top class": cam, "covered": change}
    lines = {k: v for k, v in lines.items() if k == "image" or v is not None}
    fig, axes = plt.subplots(len(lines), n, figsize=(1.25 * n, 1.3 * len(lines)))
    for row, (label, maps) in zip(axes, lines.items(), strict=True):
        for ax, i in zip(row, range(n), strict=True):
            if maps is None:
                ax.imshow(images[i])
            else:
                top = np.abs(maps[i]).max()
                ax.imshow(maps[i], cmap="RdBu_r", vmin=-top, vmax=top)
            ax.set(xticks=[], yticks=[])
        row[0].set_ylabel(label)
    fig.subplots_adjust(wspace=0.05, hspace=0.05)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

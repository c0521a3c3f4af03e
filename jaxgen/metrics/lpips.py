"""LPIPS: two images' distance in VGG-16's activations, weighted by channel (arXiv:1801.03924).

    d(a, b) = sum over l of the mean over pixels of |w_l^(1/2) (a_l - b_l)|^2              (Eq. 1)

a_l are the activations of layer l, of unit length in every pixel, w_l >= 0 learned weights of its
channels. So d is the squared distance of two vectors, which are this net's features: what measures
squared distances (perceptual path length) measures LPIPS with it.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics import nets, resize, vgg16
from jaxgen.metrics.nets import Arrays, Net, Params

CHANNELS = tuple(vgg16.CONVS[i] for i in vgg16.TAPS)
EPS = 1e-10  # added to a vector's length


def convert(arrays: Arrays) -> dict[str, np.ndarray]:
    """Parameters from VGG-16's convolutions and LPIPS's `lin0.model.1.weight` to `lin4...`.

    The convolutions are torchvision's `features.0.weight`, ... (the dense layers are ignored) or
    named `0.weight`, ... Raises ValueError.
    """
    prefix = "features." if any(n.startswith("features.") for n in arrays) else ""
    lins = {f"lin{i}.model.1.weight": (1, c, 1, 1) for i, c in enumerate(CHANNELS)}
    expected = vgg16.trunk_shapes(prefix) | lins
    found = nets.take("lpips", arrays, expected, [r"classifier\..*"])
    params = vgg16.trunk(found, prefix)
    for i, name in enumerate(lins):
        if found[name].min() < 0:
            raise ValueError(f"{name} has negative weights; those of LPIPS are not below 0")
        params[f"lin{i}"] = found[name].ravel()
    return nets.float32(params)


def embeddings(params: Params, x: jax.Array) -> list[jax.Array]:
    """w^(1/2) a of each layer (n, h', w', c), of scaled images (n, h, w, 3), h, w >= 16."""
    found = []
    for i, a in enumerate(vgg16.taps(params, x)):
        squares = (a * a).sum(-1, keepdims=True)
        # The root has no gradient at 0, where the pixel's vector is 0 whatever the length.
        length = jnp.sqrt(jnp.where(squares > 0, squares, 1.0))
        unit = a / (jnp.where(squares > 0, length, 0.0) + EPS)
        found.append(jnp.sqrt(params[f"lin{i}"]) * unit)
    return found


def per_layer(params: Params, a: jax.Array, b: jax.Array) -> jax.Array:
    """The five terms (n, 5) of the distance of scaled images a and b (n, h, w, 3)."""
    pairs = zip(embeddings(params, a), embeddings(params, b), strict=True)
    return jnp.stack([((x - y) ** 2).sum(-1).mean((1, 2)) for x, y in pairs], -1)


def spatial(params: Params, a: jax.Array, b: jax.Array) -> jax.Array:
    """Where the images differ (n, h, w): every layer's terms, brought to their size."""
    pairs = zip(embeddings(params, a), embeddings(params, b), strict=True)
    maps = [((x - y) ** 2).sum(-1, keepdims=True) for x, y in pairs]
    return sum(resize.resize(m, a.shape[1:3], "torch-bilinear") for m in maps)[..., 0]


def features(params: Params, x: jax.Array) -> jax.Array:
    """One vector an image (n, d), whose squared distances are LPIPS; d depends on the size."""

    def flat(parts: Sequence[jax.Array]) -> list[jax.Array]:
        return [p.reshape(len(p), -1) / (p.shape[1] * p.shape[2]) ** 0.5 for p in parts]

    return jnp.concatenate(flat(embeddings(params, x)), -1)


NETS = {
    "lpips": Net(
        "lpips",
        None,
        None,
        "none",
        "lpips shift and scale",
        features,
        convert,
        source="two files: torchvision's vgg16-397923af.pth and the vgg.pth in the package lpips, "
        "given as --weights vgg16-397923af.pth,vgg.pth or as vgg16.pth and lpips.pth in a folder",
    )
}

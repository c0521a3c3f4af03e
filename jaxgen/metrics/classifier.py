"""Classifier: small convolutional nets whose penultimate layers are the built-in feature spaces.

A stack of 3x3 convolutions with SiLU (smooth, so that features move smoothly with the image), some
of stride 2, then a dense layer with SiLU. Its output times a stored gain, which makes the mean
square 1 on the training set, is the feature; a linear head on it gives the logits. Used to train
(scripts/train_classifiers.py) and to measure alike.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.common import rng

Params = Mapping[str, jax.Array]


class Spec(NamedTuple):
    """input_shape (h, w, c); convs: (channels, stride) in order; dim: features; classes: logits."""

    input_shape: tuple[int, int, int]
    convs: tuple[tuple[int, int], ...]
    dim: int
    classes: int = 10


def shapes(spec: Spec) -> dict[str, tuple[int, ...]]:
    """The name and shape of every parameter."""
    h, w, c = spec.input_shape
    out: dict[str, tuple[int, ...]] = {}
    for i, (channels, stride) in enumerate(spec.convs):
        out |= {f"conv{i}_w": (3, 3, c, channels), f"conv{i}_b": (channels,)}
        h, w, c = -(-h // stride), -(-w // stride), channels
    out |= {"dense_w": (h * w * c, spec.dim), "dense_b": (spec.dim,), "gain": ()}
    return out | {"head_w": (spec.dim, spec.classes), "head_b": (spec.classes,)}


def init(key: jax.Array, spec: Spec) -> dict[str, jax.Array]:
    """He-normal weights, zero biases, unit gain; each leaf from the key folded with its name."""

    def draw(name: str, shape: tuple[int, ...]) -> jax.Array:
        if len(shape) < 2:
            return jnp.ones(shape) if name == "gain" else jnp.zeros(shape)
        fan_in = 1
        for n in shape[:-1]:
            fan_in *= n
        return (2.0 / fan_in) ** 0.5 * jax.random.normal(rng.fold(key, name), shape)

    return {name: draw(name, shape) for name, shape in shapes(spec).items()}


def features(params: Params, x: jax.Array, spec: Spec) -> jax.Array:
    """Features (n, dim) float32 of images x (n, *spec.input_shape) in [-1, 1].

    Highest matmul precision everywhere, so that accelerators give the numbers of the CPU.
    """
    high = jax.lax.Precision.HIGHEST
    for i, (_, stride) in enumerate(spec.convs):
        x = jax.lax.conv_general_dilated(
            x,
            params[f"conv{i}_w"],
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=high,
        )
        x = jax.nn.silu(x + params[f"conv{i}_b"])
    x = jnp.dot(x.reshape(len(x), -1), params["dense_w"], precision=high)
    return params["gain"] * jax.nn.silu(x + params["dense_b"])


def logits(params: Params, features: jax.Array, bias: bool = True) -> jax.Array:
    """Logits (n, classes) from features (n, dim), with or without the head's bias."""
    found = jnp.dot(features, params["head_w"], precision="highest")
    return found + params["head_b"] if bias else found

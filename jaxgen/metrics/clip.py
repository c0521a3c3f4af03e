"""CLIP: the image half of a network trained on pictures and their captions (arXiv:2103.00020).

A vision transformer with a norm before and after its blocks; the class token, normed and projected,
is the feature, not scaled to unit length. GELU is x sigmoid(1.702 x), norms have eps 1e-5.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics import nets
from jaxgen.metrics.dinov2 import patches
from jaxgen.metrics.nets import Arrays, Net, Params

EPS = 1e-5


class Spec(NamedTuple):
    """width; number of blocks and heads; pixels of a patch; width of the feature; image's side."""

    width: int
    depth: int
    heads: int
    patch: int
    dim: int
    size: int = 224


SPECS = {
    "clip-vit-b32": Spec(768, 12, 12, 32, 512),
    "clip-vit-b16": Spec(768, 12, 12, 16, 512),
    "clip-vit-l14": Spec(1024, 24, 16, 14, 768),
}

OPENAI = {
    "cls": "visual.class_embedding",
    "position": "visual.positional_embedding",
    "patch": "visual.conv1.weight",
    "before": "visual.ln_pre",
    "after": "visual.ln_post",
    "projection": "visual.proj",
    "block": "visual.transformer.resblocks.{}.",
    "norm1": "ln_1",
    "qkv": (("attn.in_proj_weight",), ("attn.in_proj_bias",)),
    "out": "attn.out_proj",
    "norm2": "ln_2",
    "in": "mlp.c_fc",
    "back": "mlp.c_proj",
}
TRANSFORMERS = {
    "cls": "vision_model.embeddings.class_embedding",
    "position": "vision_model.embeddings.position_embedding.weight",
    "patch": "vision_model.embeddings.patch_embedding.weight",
    "before": "vision_model.pre_layrnorm",  # spelt so there
    "after": "vision_model.post_layernorm",
    "projection": "visual_projection.weight",
    "block": "vision_model.encoder.layers.{}.",
    "norm1": "layer_norm1",
    "qkv": tuple(tuple(f"self_attn.{n}_proj.{p}" for n in "qkv") for p in ("weight", "bias")),
    "out": "self_attn.out_proj",
    "norm2": "layer_norm2",
    "in": "mlp.fc1",
    "back": "mlp.fc2",
}
IGNORED = [  # the text's half, and constants
    r"(transformer|ln_final|token_embedding|text_model|text_projection)(\..*)?",
    r"positional_embedding|logit_scale|input_resolution|context_length|vocab_size",
    r"vision_model\.embeddings\.position_ids",
]


def _pairs(spec: Spec, names: dict) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """(our name, published names that are concatenated, shape of each) of all parameters."""
    c = spec.width

    def both(ours: str, theirs: str, o: int, *rest: int) -> Iterator:
        yield f"{ours}.w", [f"{theirs}.weight"], (o, *rest)
        yield f"{ours}.b", [f"{theirs}.bias"], (o,)

    yield "cls", [names["cls"]], (c,)
    yield "position", [names["position"]], (1 + (spec.size // spec.patch) ** 2, c)
    yield "patch.w", [names["patch"]], (c, 3, spec.patch, spec.patch)
    yield from both("before", names["before"], c)
    for i in range(spec.depth):
        at, ours = names["block"].format(i), f"{i}."
        weights, biases = ([at + n for n in part] for part in names["qkv"])
        yield from both(f"{ours}norm1", at + names["norm1"], c)
        yield f"{ours}qkv.w", weights, (3 * c // len(weights), c)
        yield f"{ours}qkv.b", biases, (3 * c // len(biases),)
        yield from both(f"{ours}out", at + names["out"], c, c)
        yield from both(f"{ours}norm2", at + names["norm2"], c)
        yield from both(f"{ours}in", at + names["in"], 4 * c, c)
        yield from both(f"{ours}back", at + names["back"], c, 4 * c)
    yield from both("after", names["after"], c)
    shape = (c, spec.dim) if names is OPENAI else (spec.dim, c)
    yield "projection.w", [names["projection"]], shape


def convert(arrays: Arrays, spec: Spec, what: str = "clip") -> dict[str, np.ndarray]:
    """Parameters from OpenAI's state dict or transformers', with or without the text's half.

    Raises:
      ValueError: other names or shapes.
    """
    names = OPENAI if OPENAI["cls"] in arrays else TRANSFORMERS
    pairs = list(_pairs(spec, names))
    expected = {n: shape for _, theirs, shape in pairs for n in theirs}
    found = nets.take(what, arrays, expected, IGNORED)
    params = {ours: np.concatenate([found[n] for n in theirs]) for ours, theirs, _ in pairs}
    params["patch.w"] = nets.hwio(params["patch.w"]).reshape(-1, spec.width)
    turned = ("qkv.w", "out.w", "in.w", "back.w")
    turned += () if names is OPENAI else ("projection.w",)
    for name in params:
        if name.endswith(turned):
            params[name] = params[name].T
    return nets.float32(params)


def features(params: Params, x: jax.Array, spec: Spec) -> jax.Array:
    """Features (n, dim) of standardised images (n, size, size, 3)."""
    dense = lambda x, name: nets.dot(x, params[f"{name}.w"]) + params[f"{name}.b"]
    norm = lambda x, name: nets.layer_norm(x, params[f"{name}.w"], params[f"{name}.b"], EPS)
    x = nets.dot(patches(x, spec.patch), params["patch.w"])
    cls = jnp.broadcast_to(params["cls"], (len(x), 1, spec.width))
    x = norm(jnp.concatenate([cls, x], 1) + params["position"], "before")
    for i in range(spec.depth):
        q, k, v = jnp.split(dense(norm(x, f"{i}.norm1"), f"{i}.qkv"), 3, -1)
        x = x + dense(nets.attention(q, k, v, spec.heads), f"{i}.out")
        y = dense(norm(x, f"{i}.norm2"), f"{i}.in")
        x = x + dense(y * jax.nn.sigmoid(1.702 * y), f"{i}.back")
    return nets.dot(norm(x[:, 0], "after"), params["projection.w"])


NETS = {
    name: Net(
        name,
        spec.dim,
        (spec.size, spec.size, 3),
        "bicubic-antialias",
        "clip mean and std",
        functools.partial(features, spec=spec),
        functools.partial(convert, spec=spec, what=name),
        source="transformers' files (model.safetensors) and state dicts of OpenAI's network are "
        "read; OpenAI's own .pt files are programs, and are not",
    )
    for name, spec in SPECS.items()
}

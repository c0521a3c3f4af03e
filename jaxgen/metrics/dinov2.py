"""DINOv2: a vision transformer trained without labels, of S, B or L size (arXiv:2304.07193).

Patches of 14 pixels and a class token, whose vector after the last norm is the feature. Blocks
x + g1 attention(norm(x)), x + g2 MLP(norm(x)) with learned gains g, exact GELU, norms of eps 1e-6.
The table of positions is 37x37; for other sizes it is resized bicubically, by the factor
(n + 0.1) / 37 that the authors' code passes.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics import nets, resize
from jaxgen.metrics.nets import Arrays, Net, Params

EPS, OFFSET = 1e-6, 0.1


class Spec(NamedTuple):
    """width; number of blocks and heads; side of the table of positions; pixels of a patch."""

    width: int
    depth: int
    heads: int
    table: int = 37
    patch: int = 14


SPECS = {
    "dinov2-vits14": Spec(384, 12, 6),
    "dinov2-vitb14": Spec(768, 12, 12),
    "dinov2-vitl14": Spec(1024, 24, 16),
}

# The published layouts: the authors' (and timm's), and those of transformers by version. A block's
# name comes before; q, k and v are one array or three.
AUTHORS = {
    "cls": "cls_token",
    "position": "pos_embed",
    "patch": "patch_embed.proj",
    "norm": "norm",
    "block": "blocks.{}.",
    "norm1": "norm1",
    "qkv": ("attn.qkv",),
    "out": "attn.proj",
    "gain1": "ls1.gamma",
    "norm2": "norm2",
    "in": "mlp.fc1",
    "back": "mlp.fc2",
    "gain2": "ls2.gamma",
}
TRANSFORMERS = {
    **AUTHORS,
    "cls": "embeddings.cls_token",
    "position": "embeddings.position_embeddings",
    "patch": "embeddings.patch_embeddings.projection",
    "norm": "layernorm",
    "block": "encoder.layer.{}.",
    "qkv": tuple(f"attention.attention.{n}" for n in ("query", "key", "value")),
    "out": "attention.output.dense",
    "gain1": "layer_scale1.lambda1",
    "gain2": "layer_scale2.lambda1",
}
TRANSFORMERS_5 = {
    **TRANSFORMERS,
    "qkv": tuple(f"attention.{n}_proj" for n in "qkv"),
    "out": "attention.o_proj",
}
IGNORED = [r"(embeddings\.)?mask_token"]


def _pairs(spec: Spec, names: dict) -> Iterator[tuple[str, list[str], tuple[int, ...]]]:
    """(our name, published names that are concatenated, shape of each) of all parameters."""
    c = spec.width

    def both(ours: str, theirs: list[str], o: int, *rest: int) -> Iterator:
        yield f"{ours}.w", [f"{n}.weight" for n in theirs], (o, *rest)
        yield f"{ours}.b", [f"{n}.bias" for n in theirs], (o,)

    yield "cls", [names["cls"]], (1, 1, c)
    yield "position", [names["position"]], (1, 1 + spec.table**2, c)
    yield from both("patch", [names["patch"]], c, 3, spec.patch, spec.patch)
    for i in range(spec.depth):
        at, ours = names["block"].format(i), f"{i}."
        qkv = [at + n for n in names["qkv"]]
        yield from both(f"{ours}norm1", [at + names["norm1"]], c)
        yield from both(f"{ours}qkv", qkv, 3 * c // len(qkv), c)
        yield from both(f"{ours}out", [at + names["out"]], c, c)
        yield f"{ours}gain1", [at + names["gain1"]], (c,)
        yield from both(f"{ours}norm2", [at + names["norm2"]], c)
        yield from both(f"{ours}in", [at + names["in"]], 4 * c, c)
        yield from both(f"{ours}back", [at + names["back"]], c, 4 * c)
        yield f"{ours}gain2", [at + names["gain2"]], (c,)
    yield from both("norm", [names["norm"]], c)


def convert(arrays: Arrays, spec: Spec, what: str = "dinov2") -> dict[str, np.ndarray]:
    """Parameters from the authors' state dict or transformers'. Raises ValueError."""
    arrays = nets.strip(arrays, "model.", "backbone.", "dinov2.")
    if AUTHORS["position"] in arrays:
        names = AUTHORS
    else:
        old = any(".attention.attention." in n for n in arrays)
        names = TRANSFORMERS if old else TRANSFORMERS_5
    pairs = list(_pairs(spec, names))
    expected = {n: shape for _, theirs, shape in pairs for n in theirs}
    found = nets.take(what, arrays, expected, IGNORED)
    params = {ours: np.concatenate([found[n] for n in theirs]) for ours, theirs, _ in pairs}
    params["patch.w"] = nets.hwio(params["patch.w"]).reshape(-1, spec.width)
    for name in params:
        if name.endswith(("qkv.w", "out.w", "in.w", "back.w")):
            params[name] = params[name].T
    params["cls"], params["position"] = params["cls"][0], params["position"][0]
    return nets.float32(params)


def patches(x: jax.Array, size: int) -> jax.Array:
    """Images (n, h, w, c) as rows of patches (n, h/size * w/size, size * size * c).

    Raises:
      ValueError: sides that are not multiples of the patch's.
    """
    n, h, w, c = x.shape
    if h % size or w % size:
        raise ValueError(f"images must be multiples of {size} pixels high and wide, got {(h, w)}")
    x = x.reshape(n, h // size, size, w // size, size, c).transpose(0, 1, 3, 2, 4, 5)
    return x.reshape(n, -1, size * size * c)


def embed(params: Params, x: jax.Array, spec: Spec, offset: float = OFFSET) -> jax.Array:
    """Tokens (n, 1 + patches, width) with their positions; offset 0: as transformers resizes."""
    h, w = (s // spec.patch for s in x.shape[1:3])
    tokens = nets.dot(patches(x, spec.patch), params["patch.w"]) + params["patch.b"]
    cls = jnp.broadcast_to(params["cls"], (len(x), 1, spec.width))
    tokens = jnp.concatenate([cls, tokens], 1)
    table = params["position"][1:].reshape(spec.table, spec.table, -1)
    if (h, w) != (spec.table, spec.table):
        side = lambda n: resize.matrix("torch-bicubic", spec.table, n, spec.table / (n + offset))
        rows, columns = (jnp.asarray(side(n), jnp.float32) for n in (h, w))
        table = jnp.einsum("oh,pw,hwc->opc", rows, columns, table, precision="highest")
    position = jnp.concatenate([params["position"][:1], table.reshape(h * w, -1)])
    return tokens + position


def tokens(params: Params, x: jax.Array, spec: Spec, offset: float = OFFSET) -> jax.Array:
    """All tokens (n, 1 + patches, width), normed, of standardised images (n, h, w, 3)."""
    x = embed(params, x, spec, offset)
    dense = lambda x, name: nets.dot(x, params[f"{name}.w"]) + params[f"{name}.b"]
    norm = lambda x, name: nets.layer_norm(x, params[f"{name}.w"], params[f"{name}.b"], EPS)
    for i in range(spec.depth):
        q, k, v = jnp.split(dense(norm(x, f"{i}.norm1"), f"{i}.qkv"), 3, -1)
        y = dense(nets.attention(q, k, v, spec.heads), f"{i}.out")
        x = x + params[f"{i}.gain1"] * y
        y = jax.nn.gelu(dense(norm(x, f"{i}.norm2"), f"{i}.in"), approximate=False)
        x = x + params[f"{i}.gain2"] * dense(y, f"{i}.back")
    return norm(x, "norm")


def features(params: Params, x: jax.Array, spec: Spec, offset: float = OFFSET) -> jax.Array:
    """The class token (n, width) of standardised images (n, h, w, 3)."""
    return tokens(params, x, spec, offset)[:, 0]


NETS = {
    name: Net(
        name,
        spec.width,
        (224, 224, 3),
        "bicubic-antialias",
        "imagenet mean and std",
        functools.partial(features, spec=spec),
        functools.partial(convert, spec=spec, what=name),
        source=f"the authors publish {name.replace('-', '_')}_pretrain.pth, without registers",
    )
    for name, spec in SPECS.items()
}

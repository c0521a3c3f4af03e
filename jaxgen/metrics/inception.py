"""Inception: the network of 2015-12-05 whose features FID and IS are made of (arXiv:1512.00567).

Inception-v3 as TensorFlow's graph of that day has it: 1008 logits, batch norm with eps 1e-3, no
auxiliary head; average pools do not count their padding, and the pool of the last block is a
maximum. Features are spatial means: 64 after the first maximum pool, 192 after the second, 768
before and 2048 after the last three blocks (Mixed_6e, Mixed_7c). An FID is the Frechet distance of
2048; the others are not comparable with it.
"""

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics import nets
from jaxgen.metrics.nets import Arrays, Net, Params

EPS, CLASSES = 1e-3, 1008
DIMS = (64, 192, 768, 2048)
# Branches of a block: (name, kernel (h, w), channels, stride); a stride of 2 comes without padding.
Layer = tuple[str, tuple[int, int], int, int]
STEM: dict[str, tuple[tuple[int, int], int, int, str]] = {
    "Conv2d_1a_3x3": ((3, 3), 32, 2, "VALID"),
    "Conv2d_2a_3x3": ((3, 3), 32, 1, "VALID"),
    "Conv2d_2b_3x3": ((3, 3), 64, 1, "SAME"),
    "Conv2d_3b_1x1": ((1, 1), 80, 1, "VALID"),
    "Conv2d_4a_3x3": ((3, 3), 192, 1, "VALID"),
}


def _chain(name: str, *sizes: tuple[tuple[int, int], int], stride: int = 1) -> list[Layer]:
    """name_1, name_2, ... one after another; stride: of the last."""
    last = len(sizes)
    return [(f"{name}_{i}", k, c, stride if i == last else 1) for i, (k, c) in enumerate(sizes, 1)]


def _one(name: str, kernel: tuple[int, int], channels: int, stride: int = 1) -> list[Layer]:
    return [(name, kernel, channels, stride)]


P, T, F, ROW, COLUMN = (1, 1), (3, 3), (5, 5), (1, 7), (7, 1)


def _a(pool: int) -> list[list[Layer]]:
    return [
        _one("branch1x1", P, 64),
        _chain("branch5x5", (P, 48), (F, 64)),
        _chain("branch3x3dbl", (P, 64), (T, 96), (T, 96)),
        _one("branch_pool", P, pool),
    ]


def _c(c: int) -> list[list[Layer]]:
    long = [(P, c), (COLUMN, c), (ROW, c), (COLUMN, c), (ROW, 192)]
    return [
        _one("branch1x1", P, 192),
        _chain("branch7x7", (P, c), (ROW, c), (COLUMN, 192)),
        _chain("branch7x7dbl", *long),
        _one("branch_pool", P, 192),
    ]


def _e() -> list[list[Layer]]:
    """The two halves 2a, 2b (and 3a, 3b) read the layer before them and are concatenated."""
    halves = lambda name, i: [(f"{name}_{i}a", (1, 3), 384, 1), (f"{name}_{i}b", (3, 1), 384, 1)]
    return [
        _one("branch1x1", P, 320),
        [*_chain("branch3x3", (P, 384)), *halves("branch3x3", 2)],
        [*_chain("branch3x3dbl", (P, 448), (T, 384)), *halves("branch3x3dbl", 3)],
        _one("branch_pool", P, 192),
    ]


# Block -> its branches and its pool: before the last branch, or (a bare maximum) a branch itself.
BLOCKS: dict[str, tuple[list[list[Layer]], str]] = {
    "Mixed_5b": (_a(32), "mean"),
    "Mixed_5c": (_a(64), "mean"),
    "Mixed_5d": (_a(64), "mean"),
    "Mixed_6a": (
        [
            _one("branch3x3", T, 384, 2),
            _chain("branch3x3dbl", (P, 64), (T, 96), (T, 96), stride=2),
        ],
        "reduce",
    ),
    "Mixed_6b": (_c(128), "mean"),
    "Mixed_6c": (_c(160), "mean"),
    "Mixed_6d": (_c(160), "mean"),
    "Mixed_6e": (_c(192), "mean"),
    "Mixed_7a": (
        [
            _chain("branch3x3", (P, 192), (T, 320), stride=2),
            _chain("branch7x7x3", (P, 192), (ROW, 192), (COLUMN, 192), (T, 192), stride=2),
        ],
        "reduce",
    ),
    "Mixed_7b": (_e(), "mean"),
    "Mixed_7c": (_e(), "max"),
}
LAST = {64: (3, 0), 192: (5, 0), 768: (5, 8), 2048: (5, 11)}  # layers of the stem, blocks


def layers(dim: int = 2048) -> Iterator[tuple[str, str, tuple[int, int, int, int]]]:
    """(name, name in TensorFlow's graph, shape (o, c, h, w)) of the convolutions up to `dim`."""
    stem, blocks = LAST[dim]
    c = 3
    for i, (name, (k, o, _, _)) in enumerate(list(STEM.items())[:stem]):
        yield name, f"conv_{i}" if i else "conv", (o, c, *k)
        c = o
    for i, (block, (branches, pool)) in enumerate(list(BLOCKS.items())[:blocks]):
        total, prefix = 0, f"mixed_{i}" if i else "mixed"
        towers = iter(("tower", "tower_1", "tower_2"))
        for branch in branches:
            before, single = c, len(branch) == 1 and branch[0][0] != "branch_pool"
            tower = prefix if single else f"{prefix}_{next(towers)}"
            for j, (name, k, o, _) in enumerate(branch):
                half = name[-1] in "ab"
                yield f"{block}.{name}", f"{tower}_conv" + f"_{j}" * (j > 0), (o, before, *k)
                before = before if half else o
                total += o if half or j == len(branch) - 1 else 0
        c = total + (c if pool == "reduce" else 0)


def convert(arrays: Arrays, dim: int = 2048) -> dict[str, np.ndarray]:
    """Parameters up to `dim` features, from either published layout.

    PyTorch's state dict (o, c, h, w) with batch norms, whole, as pytorch-fid and torch-fidelity
    publish it; or TensorFlow's names with _ for /, batch norms folded, `conv_w` (h, w, c, o) and
    `conv_b`, of the first 70 convolutions (768 features) at least where 768 or fewer are asked for.
    Raises:
      ValueError: arrays of another net, or too few layers for `dim`.
    """
    what, params = f"inception-{dim}", {}
    if "conv_w" in arrays:
        if dim > 768:
            raise ValueError(
                f"{what} needs the whole network in PyTorch's names; the file has TensorFlow's, "
                "which are read up to 768 features: take inception-768, -192 or -64"
            )
        expected = {}
        for _, tf, (o, c, h, w) in layers(768):
            expected |= {f"{tf}_w": (h, w, c, o), f"{tf}_b": (o,)}
        found = nets.take(what, arrays, expected)
        for name, tf, _ in layers(dim):
            params |= {f"{name}.w": found[f"{tf}_w"], f"{name}.b": found[f"{tf}_b"]}
        return nets.float32(params)
    expected = {"fc.weight": (CLASSES, 2048), "fc.bias": (CLASSES,)}
    for name, _, shape in layers():
        expected |= nets.norm_shapes(f"{name}.conv", f"{name}.bn", shape)
    found = nets.take(what, arrays, expected, [r".*\.num_batches_tracked"])
    for name, _, _ in layers(dim):
        w, b = nets.fold(found, f"{name}.conv", f"{name}.bn", EPS)
        params |= {f"{name}.w": w, f"{name}.b": b}
    if dim == 2048:
        params |= {"fc.w": found["fc.weight"].T, "fc.b": found["fc.bias"]}
    return nets.float32(params)


def _pool_max(x: jax.Array, stride: int, padding: str) -> jax.Array:
    window, strides = (1, 3, 3, 1), (1, stride, stride, 1)
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, window, strides, padding)


def _pool_mean(x: jax.Array) -> jax.Array:
    """3x3 means over the pixels that there are."""
    count = lambda n: np.minimum(np.arange(n) + 1, n - 1) - np.maximum(np.arange(n) - 1, 0) + 1
    h, w = x.shape[1:3]
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    rows = padded[:, :h] + padded[:, 1 : h + 1] + padded[:, 2:]
    total = rows[:, :, :w] + rows[:, :, 1 : w + 1] + rows[:, :, 2:]
    return total / np.float32(count(h)[:, None, None] * count(w)[:, None])


def _layer(params: Params, x: jax.Array, name: str, stride: int, padding: str) -> jax.Array:
    w = params[f"{name}.w"]
    flat = w.shape[:2] == (1, 1) and stride == 1
    y = nets.dot(x, w[0, 0]) if flat else nets.conv(x, w, stride, padding)
    return jax.nn.relu(y + params[f"{name}.b"])


def _branch(params: Params, x: jax.Array, block: str, branch: Sequence[Layer]) -> jax.Array:
    halves = []
    for name, _, _, stride in branch:
        y = _layer(params, x, f"{block}.{name}", stride, "SAME" if stride == 1 else "VALID")
        if name[-1] in "ab":
            halves.append(y)
        else:
            x = y
    return jnp.concatenate(halves, -1) if halves else x


def maps(params: Params, x: jax.Array, dim: int = 2048) -> jax.Array:
    """Activations (n, h', w', dim) of images (n, h, w, 3), scaled; at 299: 73, 35, 17, 8 wide."""
    stem, blocks = LAST[dim]
    for name, (_, _, stride, padding) in list(STEM.items())[:stem]:
        x = _layer(params, x, name, stride, padding)
        if name in ("Conv2d_2b_3x3", "Conv2d_4a_3x3"):
            x = _pool_max(x, 2, "VALID")
    for block, (branches, pool) in list(BLOCKS.items())[:blocks]:
        if pool == "reduce":
            found = [_branch(params, x, block, b) for b in branches] + [_pool_max(x, 2, "VALID")]
        else:
            pooled = _pool_mean(x) if pool == "mean" else _pool_max(x, 1, "SAME")
            inputs = [x] * (len(branches) - 1) + [pooled]
            found = [_branch(params, y, block, b) for y, b in zip(inputs, branches, strict=True)]
        x = jnp.concatenate(found, -1)
    return x


def features(params: Params, x: jax.Array, dim: int = 2048) -> jax.Array:
    """Features (n, dim) of images (n, h, w, 3), scaled."""
    return maps(params, x, dim).mean((1, 2))


def head(params: Params, features: jax.Array, bias: bool = True) -> jax.Array:
    """The 1008 logits from the 2048 features; the Inception Score leaves the bias out."""
    found = nets.dot(features, params["fc.w"])
    return found + params["fc.b"] if bias else found


def _net(dim: int) -> Net:
    return Net(
        "inception",
        dim,
        (299, 299, 3),
        "tf1-bilinear",
        "(x-128)/128",
        functools.partial(features, dim=dim),
        functools.partial(convert, dim=dim),
        head if dim == 2048 else None,
        functools.partial(maps, dim=dim),
        "pytorch-fid publishes pt_inception-2015-12-05-6726825d.pth (1008 classes; torchvision's "
        "ImageNet weights of 1000 classes are another network)",
    )


NETS = {"inception": _net(2048), **{f"inception-{d}": _net(d) for d in DIMS[:3]}}

"""Nets: what feature nets have in common: a description, names of arrays, folding, convolutions."""

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

Arrays = Mapping[str, np.ndarray]
Params = Mapping[str, jax.Array]
HIGH = jax.lax.Precision.HIGHEST  # so that accelerators give the numbers of the CPU

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # mean and standard deviation of x / 255
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
LPIPS = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # shift and scale of x / 127.5 - 1


class Net(NamedTuple):
    """A feature net without its weights.

    family: nets that read the same weights. dim: width of the features, None: it depends on the
    image's size. input_shape: (h, w, c) that it takes, None: any. resizer: a name of
    resize.RESIZERS, "none", or classifier.RESIZER. scaling: of SCALINGS. convert: arrays of a file
    by their published names -> parameters, or ValueError. features: (params, x (n, h, w, c)) ->
    (n, dim). head: (params, features, bias) -> logits. maps: (params, x) -> (n, h', w', dim), whose
    spatial mean the features are. source: where weights come from.
    """

    family: str
    dim: int | None
    input_shape: tuple[int, int, int] | None
    resizer: str
    scaling: str
    features: Callable[[Params, jax.Array], jax.Array]
    convert: Callable[[Arrays], dict[str, np.ndarray]] | None = None
    head: Callable[[Params, jax.Array, bool], jax.Array] | None = None
    maps: Callable[[Params, jax.Array], jax.Array] | None = None
    source: str = ""


def _standardise(mean: tuple, std: tuple) -> Callable[[jax.Array], jax.Array]:
    return lambda x: (x / 255 - np.float32(mean)) / np.float32(std)


# x in 0..255 -> the net's input; names are what a result file records.
SCALINGS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "x/127.5-1": lambda x: x / 127.5 - 1,
    "(x-128)/128": lambda x: (x - 128) / 128,
    "(x-127)/128": lambda x: (x - 127) / 128,
    "imagenet mean and std": _standardise(*IMAGENET),
    "clip mean and std": _standardise(*CLIP),
    "lpips shift and scale": lambda x: (
        (x / 127.5 - 1 - np.float32(LPIPS[0])) / np.float32(LPIPS[1])
    ),
}


def take(
    what: str,
    arrays: Arrays,
    expected: Mapping[str, Sequence[int]],
    ignore: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """The expected arrays in float32, when a file holds them and nothing that is not understood.

    Args:
      what: the net's name, for errors. arrays: name -> numbers. expected: name -> shape. ignore:
      regexes of names that a file may hold besides.
    Raises:
      ValueError: naming what the net expects and what the file holds, with near misses; NaN.
    """
    extra = [n for n in arrays if n not in expected and not any(re.fullmatch(i, n) for i in ignore)]
    lines = []
    if missing := [n for n in expected if n not in arrays]:
        near = difflib.get_close_matches(missing[0], extra, 1)
        near = f" (the nearest there is {near[0]})" if near else ""
        lines.append(f"missing {len(missing)} of {len(expected)}: {_few(missing)}{near}")
    if extra:
        lines.append(f"not of {what}: {_few(extra)}")
    for name, shape in expected.items():
        if name in arrays and np.shape(arrays[name]) != tuple(shape):
            lines.append(f"{name}: expected {tuple(shape)}, got {np.shape(arrays[name])}")
    if lines:
        lines = [*lines[:6], *[f"and {len(lines) - 6} more"] * (len(lines) > 6)]
        raise ValueError(
            f"these are no weights of {what}: it has {len(expected)} arrays ({_few(expected)}), "
            f"the file has {len(arrays)} ({_few(arrays)})\n  " + "\n  ".join(lines)
        )
    found = {n: np.asarray(arrays[n], np.float32) for n in expected}
    if bad := [n for n, x in found.items() if not np.isfinite(x).all()]:
        raise ValueError(f"NaN or infinity in {_few(bad)}: the weights of {what} are damaged")
    return found


def _few(names: Sequence[str] | Mapping) -> str:
    names = list(names)
    return ", ".join(names[:3]) + (f", ... {names[-1]}" if len(names) > 3 else "")


def strip(arrays: Arrays, *prefixes: str) -> Arrays:
    """The arrays below the first prefix that any name has, without it; else all of them."""
    for p in prefixes:
        if found := {n.removeprefix(p): a for n, a in arrays.items() if n.startswith(p)}:
            return found
    return arrays


def fold(arrays: Arrays, conv: str, norm: str, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (h, w, c, o) and bias (o,) of a convolution without bias and the batch norm after it.

    The arrays are PyTorch's: <conv>.weight (o, c, h, w), <norm>.weight, bias, running_mean, _var.
    """
    names = [f"{norm}.{n}" for n in ("weight", "bias", "running_mean", "running_var")]
    gain, bias, mean, var = (np.asarray(arrays[n], np.float64) for n in names)
    gain = gain / np.sqrt(var + eps)
    return hwio(arrays[f"{conv}.weight"]) * gain, bias - mean * gain


def norm_shapes(conv: str, norm: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays that `fold` reads; shape: of the kernel (o, c, h, w)."""
    vectors = {f"{norm}.{n}": shape[:1] for n in ("weight", "bias", "running_mean", "running_var")}
    return {f"{conv}.weight": shape, **vectors}


def hwio(w: np.ndarray) -> np.ndarray:
    """A kernel (o, c, h, w) as (h, w, c, o)."""
    return w.transpose(2, 3, 1, 0)


def from_chw(w: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """A matrix (o, c * h * w) that reads images (c, h, w) as one that reads them (h, w, c)."""
    return w.reshape(-1, *shape).transpose(0, 2, 3, 1).reshape(len(w), -1)


def float32(params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same arrays in float32, in C order."""
    return {n: np.ascontiguousarray(x, np.float32) for n, x in params.items()}


def conv(x: jax.Array, w: jax.Array, stride: int = 1, padding: str = "SAME") -> jax.Array:
    """Convolution of x (n, h, w, c) by w (kh, kw, c, o)."""
    return jax.lax.conv_general_dilated(
        x,
        w,
        (stride, stride),
        padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=HIGH,
    )


def dot(x: jax.Array, w: jax.Array) -> jax.Array:
    """x (..., c) times w (c, o)."""
    return jnp.dot(x, w, precision=HIGH)


def layer_norm(x: jax.Array, gain: jax.Array, bias: jax.Array, eps: float) -> jax.Array:
    """(x - mean) / sqrt(var + eps) over the last axis, times gain, plus bias."""
    x = x - x.mean(-1, keepdims=True)
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True) + eps) * gain + bias


def attention(q: jax.Array, k: jax.Array, v: jax.Array, heads: int) -> jax.Array:
    """Softmax attention among tokens; q, k, v (n, t, c) -> (n, t, c)."""
    split = lambda x: x.reshape(*x.shape[:2], heads, -1)
    q, k, v = split(q), split(k), split(v)
    scores = jnp.einsum("nqhd,nkhd->nhqk", q / q.shape[-1] ** 0.5, k, precision=HIGH)
    out = jnp.einsum("nhqk,nkhd->nqhd", jax.nn.softmax(scores), v, precision=HIGH)
    return out.reshape(*out.shape[:2], -1)

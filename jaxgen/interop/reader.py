"""Files of published weights: .npz, .safetensors, and the authors' .pkl, none of them trusted.

weights = read("edm2-img64-s-1073741-0.075.pkl")
D = edm2.load(weights.arrays, **weights.init)
"""

import dataclasses
import io
import json
import math
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxgen.common import npz
from jaxgen.interop import unpickle
from jaxgen.interop.symbols import NumpyArray, Object, Tensor, widen

FORMATS = (".npz", ".safetensors", ".pkl", ".pt", ".pth")
POSITIONAL = ("img_resolution", "img_channels", "label_dim")  # first arguments of the constructors
GAN = ("G", "D", "G_ema")  # generator, discriminator, average of the generator
LIMIT = 20_000  # arrays or modules; EDM's largest network has about 700 arrays
SAFETENSORS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I32": "<i4",
    "I16": "<i2", "I8": "|i1", "U8": "|u1", "BOOL": "|b1",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Weights:
    """What a file holds.

    arrays: official name -> numbers, as stored (bfloat16 as float32). init: the constructor's
    keywords, {} where the file has none. class_name: of the network's class, such as EDMPrecond, or
    None. facts: file, format, bytes.
    """

    arrays: dict[str, np.ndarray]
    init: dict[str, Any]
    class_name: str | None
    facts: dict[str, Any]


def read(path: str | Path) -> Weights:
    """The weights of one network in a file; see `read_networks`.

    Raises:
      ValueError: as `read_networks`, and for a file of a GAN, which holds three.
    """
    found = read_networks(path)
    if "ema" not in found:
        raise ValueError(f"{path}: holds the networks {', '.join(found)} of a GAN, and not one")
    return found["ema"]


def read_networks(path: str | Path) -> dict[str, Weights]:
    """The weights in a file; nothing in it is run, and memory stays within a few times its size.

    Args:
      path: .npz (a text entry `init` or `__metadata__` may hold the keywords as JSON), .safetensors
      (`init` in its metadata), or .pkl: the authors' pickle of a dict with the network under "ema",
      or with those of a GAN under "G", "D" and "G_ema"; .pt and .pth are PyTorch's files of the
      same, or of a state dict.
    Returns:
      {"ema": weights}, or those of "G", "D" and "G_ema".
    Raises:
      ValueError: no such file, another format, damage, or anything that no weights need.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file {path}")
    if path.suffix not in FORMATS:
        raise ValueError(f"{path}: expected one of {', '.join(FORMATS)}, got {path.suffix!r}")
    data = path.read_bytes()
    single = {".npz": _npz, ".safetensors": _safetensors}.get(path.suffix)
    try:
        networks = {"ema": single(data)} if single else _pickle(data)
        if empty := [n for n, (arrays, _, _) in networks.items() if not arrays]:
            raise ValueError(
                f"no arrays in {', '.join(empty)}" if len(networks) > 1 else "no arrays in it"
            )
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    except RecursionError as e:
        raise ValueError(f"{path}: refused: nested too deeply") from e
    facts = {"file": path.name, "format": path.suffix[1:], "bytes": len(data)}
    return {n: Weights(*one, facts) for n, one in networks.items()}


Read = tuple[dict[str, np.ndarray], dict[str, Any], str | None]


def _metadata(text: str) -> tuple[dict[str, Any], str | None]:
    """Keywords and class from JSON: {"init": {...}, "class_name": ...} or the keywords alone."""
    found = parse_json(text, "init")
    inner = found.get("init", found)
    inner = parse_json(inner, "init") if isinstance(inner, str) else inner
    name = found.get("class_name") if "init" in found else None
    if not isinstance(inner, dict) or not isinstance(name, str | None):
        raise ValueError('the metadata must be JSON like {"init": {...}, "class_name": "Precond"}')
    return inner, name


def parse_json(text: str | bytes, what: str) -> dict[str, Any]:
    """A JSON object without repeated keys. Raises ValueError."""

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError(f"{what}: a key is there twice")
        return found

    try:
        found = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as e:
        raise ValueError(f"{what} is not JSON: {e}") from e
    if not isinstance(found, dict):
        raise ValueError(f"{what} must be a JSON object, got a {type(found).__name__}")
    return found


def _npz(data: bytes) -> Read:
    arrays: dict[str, np.ndarray] = {}
    init, class_name = {}, None
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for name, m in npz.members(archive, len(data), npz.RATIO * len(data) + 2**20).items():
                name = name.removesuffix(".npy")
                with archive.open(m) as f:
                    x = npz.array(f, name, m.file_size)
                if name in ("init", "__metadata__") and x.dtype.kind == "U" and not x.ndim:
                    init, class_name = _metadata(str(x))
                elif x.dtype.kind == "U":
                    raise ValueError(f"{name} holds text, and only init and __metadata__ may")
                else:
                    arrays[name] = x
    except npz.DAMAGED as e:
        raise ValueError(f"damaged, or not a .npz file: {e}") from e
    return arrays, init, class_name


def _safetensors(data: bytes) -> Read:
    n = int.from_bytes(data[:8], "little")
    if len(data) < 8 or n > len(data) - 8:
        raise ValueError("damaged: the header is longer than the file")
    header, body = parse_json(data[8 : 8 + n], "header"), memoryview(data)[8 + n :]
    init, class_name = {}, None
    metadata = header.pop("__metadata__", None)
    if isinstance(metadata, dict) and "init" in metadata:
        init, class_name = _metadata(json.dumps(metadata))
    arrays, spans = {}, []
    for name, entry in header.items():
        try:
            kind, shape, (start, end) = (entry[k] for k in ("dtype", "shape", "data_offsets"))
            dtype = np.dtype(SAFETENSORS[kind])
        except (KeyError, TypeError, ValueError) as e:
            raise ValueError(f"refused: {name[:80]} has an entry that is not understood") from e
        numbers = [*shape, start, end] if isinstance(shape, list) else [None]
        if any(type(v) is not int or not 0 <= v < 2**62 for v in numbers) or len(shape) > 8:
            raise ValueError(f"refused: {name[:80]} has an impossible shape or place")
        if end > len(body) or end - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"damaged: {name[:80]} does not fit its place in the file")
        x = np.frombuffer(body[start:end], dtype).reshape(shape)
        arrays[name] = widen(x) if kind == "BF16" else x
        spans.append((start, end))
    at = 0
    for start, end in sorted(spans):
        if start != at:
            raise ValueError("damaged: arrays overlap, or leave a hole")
        at = end
    if at != len(body):
        raise ValueError("damaged: the file is longer than its arrays")
    return arrays, init, class_name


def _pickle(data: bytes) -> dict[str, Read]:
    root = unpickle.load(data)
    if not isinstance(root, dict):
        raise ValueError(f"expected a dict with a network under 'ema', got a {_kind(root)}")
    if "ema" not in root and any(isinstance(root.get(n), Object) for n in GAN):
        if absent := [n for n in GAN if not isinstance(root.get(n), Object)]:
            raise ValueError(
                f"expected the networks {', '.join(GAN)} of a GAN; without {', '.join(absent)} it "
                "is no state of a training"
            )
        return {n: _network(root[n], len(data)) for n in GAN}
    network = root.get("ema")
    if isinstance(network, Object):
        return {"ema": _network(network, len(data))}
    tensors = network if isinstance(network, dict) else root
    wrong = [f"{str(k)[:40]} is a {_kind(v)}" for k, v in tensors.items() if not _is_array(v)]
    if wrong:
        raise ValueError(
            "expected a dict with a network under 'ema', or a dict of tensors; got a dict in which "
            + ", ".join(wrong[:4])
        )
    named = ((str(k), v) for k, v in tensors.items())
    return {"ema": (dict(_limited(named, len(data))), {}, None)}


def _network(network: Object, size: int) -> Read:
    return dict(_limited(_state_dict(network), size)), _init(network), network.name


def _limited(named: Iterator[tuple[str, Any]], size: int) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays, as long as they stay within four times the file."""
    left = 4 * size
    for name, value in named:
        x = value.array() if isinstance(value, Tensor) else value.value
        if x is None:
            raise ValueError(f"damaged: {name[:80]} has no numbers")
        left -= x.nbytes
        if left < 0:
            raise ValueError("refused: arrays that share their numbers many times over")
        yield name, x


def _state_dict(network: Object) -> Iterator[tuple[str, Any]]:
    """(dotted name, tensor) of all parameters and buffers, as PyTorch names them."""
    todo, seen = [("", network, 0)], 0
    while todo:
        prefix, module, depth = todo.pop()
        seen += 1
        if not isinstance(module, Object) or depth > 32 or seen > LIMIT:
            raise ValueError(f"refused: {prefix[:80] or 'the network'} is not a module of a few")
        for kind in ("_parameters", "_buffers"):
            for name, value in _group(module, kind).items():
                if value is None:
                    continue
                if not _is_array(value):
                    raise ValueError(f"refused: {prefix}{name[:80]} is a {_kind(value)}")
                seen += 1
                yield prefix + name, value
        children = _group(module, "_modules").items()
        todo += [(f"{prefix}{n}.", m, depth + 1) for n, m in children if m is not None][::-1]


def _group(module: Object, kind: str) -> Mapping[str, Any]:
    found = (module.state or {}).get(kind)
    if not isinstance(found, dict):
        raise ValueError(f"refused: a {module.name} without {kind}")
    if not all(isinstance(k, str) and len(k) <= 100 for k in found):
        raise ValueError(f"refused: a {module.name} with unusual names in {kind}")
    return found


def _init(network: Object) -> dict[str, Any]:
    """The keywords that the network was made with."""
    state = network.state or {}
    args, kwargs = state.get("_init_args", ()), state.get("_init_kwargs", {})
    if not isinstance(args, tuple) or len(args) > len(POSITIONAL) or not isinstance(kwargs, dict):
        raise ValueError(f"refused: a {network.name} made with other arguments than keywords")
    return _plain({**dict(zip(POSITIONAL, args)), **kwargs}, [1000])


def _plain(value: Any, left: list[int], depth: int = 0) -> Any:
    """The value, when it is made of a few numbers, texts, lists and dicts."""
    left[0] -= 1
    if left[0] < 0 or depth > 8:
        raise ValueError("refused: more keywords than a network has")
    if isinstance(value, dict):
        return {str(k)[:80]: _plain(v, left, depth + 1) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v, left, depth + 1) for v in value]
    if value is None or isinstance(value, bool | int | float) or type(value) is str:
        return value
    raise ValueError(f"refused: a {_kind(value)} among the network's keywords")


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | NumpyArray)


def _kind(value: Any) -> str:
    return value.name if isinstance(value, Object) else type(value).__name__

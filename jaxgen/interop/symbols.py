"""The closed table of what a pickle may name: pure constructors of tensors and containers.

A global of a pickle is a `Symbol`, which is only a name. Those that may be called stand for the
functions of CALLS (and, for classes, NEW), which look at their arguments' exact types and call
nothing else. Instances of classes become an `Object`: a name and a state.
"""

import dataclasses
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

BFLOAT16 = "bfloat16"
_TYPES = {  # PyTorch's names
    "Float": ("float32", "<f4"),
    "Double": ("float64", "<f8"),
    "Half": ("float16", "<f2"),
    "BFloat16": (BFLOAT16, "<u2"),
    "Long": ("int64", "<i8"),
    "Int": ("int32", "<i4"),
    "Short": ("int16", "<i2"),
    "Char": ("int8", "<i1"),
    "Byte": ("uint8", "<u1"),
    "Bool": ("bool", "|b1"),
}
DTYPES = dict(_TYPES.values())
STORAGES = {f"torch.{k}Storage": dtype for k, (dtype, _) in _TYPES.items()}
STORAGES["torch.storage.UntypedStorage"] = STORAGES["torch.UntypedStorage"] = "uint8"


class Refused(ValueError):
    """Something that no file of weights needs, or a damaged file."""


@dataclasses.dataclass(frozen=True, eq=False)
class Symbol:
    """A global's name, and nothing else."""

    name: str


@dataclasses.dataclass(eq=False)
class Object:
    """An instance of a class of that name, and its state."""

    name: str
    state: dict | None = None

    def build(self, state: Any) -> None:
        """Takes the state, once."""
        if self.state is not None or not isinstance(state, dict):
            raise Refused(f"refused: an unusual state for a {self.name[:80]}")
        hidden = [k for k in state if not isinstance(k, str) or k.startswith("__")]
        if hidden:
            raise Refused(f"refused: a {self.name[:80]} whose state sets {str(hidden[0])[:80]}")
        self.state = state


@dataclasses.dataclass(eq=False)
class Storage:
    """Numbers in a row: `data` is a view of the file's bytes, None until it is found there."""

    dtype: str
    numel: int
    data: Any = None

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self.numel * np.dtype(DTYPES[self.dtype]).itemsize


@dataclasses.dataclass(frozen=True, eq=False)
class Tensor:
    """A strided view of a storage, whose every element lies inside of it."""

    storage: Storage
    dtype: str
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]

    def array(self) -> np.ndarray:
        """The numbers: a read-only view of the file, or float32 made from bfloat16."""
        data = self.storage.data
        if data is None or len(data) != self.storage.nbytes:  # as_strided trusts its caller
            raise Refused("damaged: a tensor whose storage is not in the file")
        dtype = np.dtype(DTYPES[self.dtype])
        flat = np.frombuffer(data, dtype)[self.offset :]
        strides = tuple(s * dtype.itemsize for s in self.stride)
        x = np.lib.stride_tricks.as_strided(flat, self.size, strides, writeable=False)
        return widen(x) if self.dtype == BFLOAT16 else x


def widen(x: np.ndarray) -> np.ndarray:
    """bfloat16 as its uint16 bits to float32, exactly."""
    return (x.astype(np.uint32) << 16).view(np.float32)


class _DType:
    """A numpy dtype under construction."""

    def __init__(self, name: Any, *_: Any):
        kind = expect(name, str).lstrip("<|=>")
        if kind not in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"):
            raise Refused(f"refused: a numpy array of type {kind[:8]!r}")
        self.kind, self.order = kind, "<"

    def build(self, state: Any) -> None:
        """(version, byte order, ...)."""
        self.order = ">" if state[1] == ">" else "<"

    def array(self, data: Any, shape: Any, fortran: bool) -> np.ndarray:
        """The array of these bytes."""
        if not isinstance(data, (bytes, bytearray)):
            raise Refused("refused: a numpy array that is not made of bytes")
        flat = np.frombuffer(data, np.dtype(self.order + self.kind))
        return flat.reshape(_ints(shape), order="F" if fortran else "C")


class NumpyArray:
    """A numpy array; `value` comes with its state."""

    value: np.ndarray | None = None

    def build(self, state: Any) -> None:
        """(version, shape, dtype, is_fortran, bytes)."""
        _, shape, dtype, fortran, data = state
        self.value = expect(dtype, _DType).array(data, shape, fortran)


def expect(value: Any, kind: type) -> Any:
    """The value, when it is exactly of this type. Raises ValueError."""
    if type(value) is not kind:
        raise Refused(f"refused: a {type(value).__name__} where a {kind.__name__} belongs")
    return value


def _ints(values: Any) -> tuple[int, ...]:
    if type(values) not in (tuple, list) or len(values) > 8:
        raise Refused("refused: a tensor with impossible sizes or strides")
    if any(not 0 <= expect(v, int) < 2**62 for v in values):
        raise Refused("refused: a tensor with impossible sizes or strides")
    return tuple(values)


def key_of(value: Any) -> Any:
    """The value, when it may be a key. Raises ValueError.

    Keys are texts and small numbers: their hashes run no code and rarely collide.
    """
    if type(value) is str or (type(value) is int and abs(value) < 2**31):
        return value
    raise Refused(f"refused: a {type(value).__name__} as a key")


def _dict(pairs: Sequence[Any] = ()) -> dict:
    return {key_of(k): v for k, v in pairs}


def _tensor(
    storage: Any, offset: Any, size: Any, stride: Any, *_: Any, dtype: str | None = None
) -> Tensor:
    dtype = expect(storage, Storage).dtype if dtype is None else dtype
    unit = np.dtype(DTYPES[dtype]).itemsize
    (offset,), size, stride = _ints((offset,)), _ints(size), _ints(stride)
    numel = expect(storage, Storage).nbytes // unit
    count, last = 1, offset
    for n, step in zip(size, stride, strict=True):
        count, last = count * n, last + (n - 1) * step
    if count > numel or (count and last >= numel):
        raise Refused(f"refused: a tensor of size {size} in a storage of {numel} numbers")
    return Tensor(storage, dtype, offset, size, stride)


def _tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> Tensor:
    name = expect(dtype, Symbol).name.removeprefix("torch.")
    return _tensor(storage, offset, size, stride, dtype=name)


def _parameter(data: Any, *_: Any) -> Tensor:
    return expect(data, Tensor)


def _persistent(meta: Any) -> Object:
    """The authors' classes, which carry their own source code: it is not looked at."""
    if expect(meta, dict).get("type") != "class":
        raise Refused("refused: a persistent object that is not of a class")
    found = Object(expect(meta.get("class_name"), str)[:80])
    found.build(meta.get("state"))
    return found


def _encoded(text: str, encoding: str) -> bytes:
    """How old protocols write bytes."""
    if encoding not in ("latin1", "latin-1"):
        raise Refused("refused: text in another encoding than latin1")
    return expect(text, str).encode("latin1")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> NumpyArray:
    found = NumpyArray()
    found.value = expect(dtype, _DType).array(data, shape, order == "F")
    return found


def _scalar(dtype: Any, data: Any) -> Any:
    return expect(dtype, _DType).array(data, (), False).item()


def _device(kind: Any, index: Any = 0) -> str:
    return f"{expect(kind, str)[:80]}:{expect(index, int)}"


def _empty(name: str) -> Callable[[], Object]:
    return lambda: Object(name)


Buildable = (Object, _DType, NumpyArray)  # what may be given a state
_NN = "torch.nn.modules.container."
NEW: dict[str, Callable[..., Any]] = {  # classes of which instances may be made
    "collections.OrderedDict": _dict,
    "dnnlib.util.EasyDict": _dict,
    **{_NN + n: _empty(n) for n in ("ModuleDict", "ModuleList", "Sequential")},
}
CALLS: dict[str, Callable[..., Any]] = {  # functions that may be called
    **NEW,
    "torch_utils.persistence._reconstruct_persistent_obj": _persistent,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_v3,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Size": lambda v=(): _ints(v),
    "torch.device": _device,
    "numpy.dtype": _DType,
    "_codecs.encode": _encoded,
    "builtins.set": lambda v=(): {key_of(k) for k in v},
    "__builtin__.set": lambda v=(): {key_of(k) for k in v},
}
for _core in ("numpy.core.", "numpy._core."):
    CALLS[_core + "multiarray._reconstruct"] = lambda *_: NumpyArray()
    CALLS[_core + "multiarray.scalar"] = _scalar
    CALLS[_core + "numeric._frombuffer"] = _frombuffer
# Modules that are pickled by their class's name. None is imported: an instance is a record.
RECORD = re.compile(r"(torch\.nn\.modules\.[a-z]\w*|R3GAN\.\w+)\.[A-Z]\w*", re.ASCII)
LOAD = "torch.storage._load_from_bytes"
NAMES = {*CALLS, *STORAGES, *(f"torch.{d}" for d in DTYPES), LOAD, "numpy.ndarray"}


def symbol(module: Any, attribute: Any) -> Symbol:
    """A global, when its name is in the table. Raises ValueError."""
    name = f"{expect(module, str)}.{expect(attribute, str)}"
    if name not in NAMES and not RECORD.fullmatch(name):
        raise Refused(
            f"refused: the file asks for {name[:80]!r}, which is none of the tensors, containers "
            "and records that are read; nothing was run"
        )
    return Symbol(name)


def instance(name: str, args: tuple) -> Any:
    """What the instruction NEWOBJ makes of a class of that name. Raises ValueError."""
    if name in NEW:
        return NEW[name](*args)
    if not RECORD.fullmatch(name) or args:
        raise Refused(f"refused: a call of {name[:80]}; nothing was run")
    return Object(name.rpartition(".")[2])


def storage(pid: Any) -> tuple[str, Storage]:
    """Key and storage, still without data, of ('storage', type, key, device, numel[, None]).

    Raises:
      ValueError: any other persistent id.
    """
    if len(expect(pid, tuple)) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
        raise Refused("refused: a persistent id that is not a plain storage's")
    _, dtype, key, _, numel, *_ = pid
    name = expect(dtype, Symbol).name
    if name not in STORAGES:
        raise Refused(f"refused: a storage of type {name}")
    return expect(key, str), Storage(STORAGES[name], _ints((numel,))[0])


def collect(name: str, items: list) -> Any:
    """The container that the instruction of this name makes of the items since the mark."""
    if name == "DICT":
        return _dict(zip(items[::2], items[1::2], strict=True))
    if name == "FROZENSET":
        return frozenset(map(key_of, items))
    return tuple(items) if name == "TUPLE" else items

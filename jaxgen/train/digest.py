"""What a plan's step is made of, as a digest: equal digests trace to equal programs.

A function is what its code, its defaults and its closure are; an object what its class and its
attributes are; arrays are their bytes. What a function reads from its module stands in files, and
`code` covers those; only a module's variable that is set anew while the program runs is not seen.
Anything that cannot be looked into is an error, never left out.
"""

import dataclasses
import enum
import functools
import hashlib
import os
import sys
import sysconfig
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

PACKAGE = Path(__file__).resolve().parents[1]
PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), np.dtype, np.generic)


class OpaqueError(TypeError):
    """Something that cannot be looked into, so that no digest tells it from others."""


def digest(value: Any) -> str:
    """The sha256 of a value's structure; the same in every process.

    Args:
      value: scalars, arrays, containers, functions, dataclasses, modules and objects of these.
    Raises:
      OpaqueError: naming what cannot be looked into.
    """
    walk = _Walk()
    walk(value, "")
    return walk.hash.hexdigest()


class _Walk:
    """Feeds a value to the hash, depth first; what was seen before is a number."""

    def __init__(self):
        self.hash = hashlib.sha256()
        self.seen: dict[int, int] = {}
        self.held: list[Any] = []  # so that no id is given to another object meanwhile

    def put(self, *words: Any) -> None:
        self.hash.update(repr(words).encode())

    def __call__(self, x: Any, where: str) -> None:
        if isinstance(x, PLAIN):
            return self.put(type(x).__name__, x)
        if id(x) in self.seen:
            return self.put("again", self.seen[id(x)])
        self.seen[id(x)] = len(self.seen)
        self.held.append(x)
        kind = type(x)
        self.put(kind.__module__, kind.__qualname__)
        if isinstance(x, jax.Array | np.ndarray):
            self.array(x, where)
        elif isinstance(x, type):
            self.put(x.__module__, x.__qualname__)
            if "<locals>" in x.__qualname__:
                raise OpaqueError(f"{where}: {x.__qualname__}, a class made in a function")
        elif isinstance(x, types.ModuleType):
            self.put(x.__name__)
        elif isinstance(x, enum.Enum):
            self.put(x.name)
        elif isinstance(x, types.CodeType):
            self.put(x.co_code, x.co_names, x.co_varnames, x.co_freevars, x.co_argcount)
            self.each(x.co_consts, where)
        elif isinstance(x, types.FunctionType):
            self.put(x.__module__, x.__qualname__)
            where = f"{where}/{x.__qualname__}"
            if not hasattr(sys.modules.get(x.__module__), "__file__"):
                raise OpaqueError(f"{where}, a function whose module {x.__module__} is not a file")
            self.each((x.__code__, x.__defaults__, x.__kwdefaults__), where)
            self.each(x.__closure__ or (), where)
        elif isinstance(x, types.CellType):
            try:
                held = (x.cell_contents,)
            except ValueError:  # a variable that has no value
                held = ()
            self.each(held, where)
        elif isinstance(x, types.MethodType):
            self.each((x.__func__, x.__self__), where)
        elif isinstance(x, functools.partial):
            self.each((x.func, x.args, x.keywords), where)
        elif isinstance(x, Mapping):
            self.put(len(x))
            for key, value in x.items():
                self(key, where)
                self(value, f"{where}/{key}")
        elif isinstance(x, list | tuple):
            self.put(len(x))
            self.each(x, where)
        elif isinstance(x, set | frozenset):
            self.put(sorted(digest(y) for y in x))
        elif isinstance(x, types.BuiltinFunctionType):
            self.put(x.__qualname__)
            self(x.__self__, where)
        elif isinstance(x, np.ufunc):
            self.put(x.__name__)
        elif dataclasses.is_dataclass(x):
            for field in dataclasses.fields(x):
                self.put(field.name)
                self(getattr(x, field.name, None), f"{where}/{field.name}")
        elif isinstance(x, jax.stages.Wrapped) or kind is type(functools.lru_cache(repr)):
            self(x.__wrapped__, where)
        elif kind.__module__.startswith(("jaxlib", "builtins")) or not hasattr(x, "__dict__"):
            raise OpaqueError(f"{where or 'it'}: {kind.__module__}.{kind.__qualname__}")
        else:
            copied = getattr(getattr(x, "__wrapped__", None), "__dict__", {})  # functools.wraps
            own = {n: v for n, v in vars(x).items() if copied.get(n, self) is not v}
            self(dict(sorted(own.items())), where)

    def each(self, xs: Any, where: str) -> None:
        for x in xs:
            self(x, where)

    def array(self, x: Any, where: str) -> None:
        if isinstance(x, jax.Array) and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            self.put(str(x.dtype))
            x = jax.random.key_data(x)
        if not isinstance(x, np.ndarray) and not x.is_fully_addressable:
            raise OpaqueError(f"{where}: an array of several processes")
        x = np.asarray(x)
        if x.dtype.hasobject:
            raise OpaqueError(f"{where}: an array of objects")
        self.put(x.dtype.str, x.shape)
        self.hash.update(np.ascontiguousarray(x).data)


def code() -> str:
    """The sha256 of the code that may be traced: jaxgen, other loaded files, packages' versions.

    Of loaded files outside of Python's library and site-packages, and of all of jaxgen (it imports
    some only while it traces), the bytes count; of installed packages the names and versions.

    Raises:
      OpaqueError: a module that was loaded from something else than a file.
    """
    found = hashlib.sha256(sys.version.encode())
    library = tuple(sysconfig.get_path(p) + os.sep for p in ("stdlib", "purelib", "platlib"))
    files = {str(p) for p in PACKAGE.rglob("*.py")}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if path and not path.startswith(library):
            files.add(os.path.abspath(path))
    for path in sorted(files):
        if not os.path.isfile(path):
            raise OpaqueError(f"a module of {path}, which is not a file")
        found.update(hashlib.sha256(Path(path).read_bytes()).digest())
    for folder in filter(os.path.isdir, sys.path):
        names = sorted(n for n in os.listdir(folder) if n.endswith((".dist-info", ".egg-info")))
        found.update(repr(names).encode())
    return found.hexdigest()

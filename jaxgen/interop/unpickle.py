"""Pickles read without running them: tensors, containers and records, from a closed table.

A pickle is a program for a stack machine whose instructions can call any importable function. Here
the machine is our own: it imports nothing, a global is only a name, and the few names that may be
called are those of interop/symbols.py. Storages of PyTorch's two file formats are pieces of the
file, so nothing larger than the file is allocated.
"""

import io
import pickletools
import zipfile
from collections.abc import Callable, Iterable
from typing import Any, BinaryIO

from jaxgen.common import npz
from jaxgen.interop.symbols import (
    CALLS,
    LOAD,
    Buildable,
    Refused,
    Storage,
    Symbol,
    collect,
    expect,
    instance,
    key_of,
    storage,
    symbol,
)

OPS = 1_000_000  # instructions of one file; published networks of EDM2 have about 40 thousand
DEPTH = 3  # storages are files within files
MAGIC, PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # of PyTorch's older format
PUSHED = {  # instructions that push their argument
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
    "BYTEARRAY8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
SIZED = (str, bytes, bytearray, list, tuple, set, dict)
CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
}


class Machine:
    """The stack machine; one for a file and all files within it, so that limits are shared."""

    def __init__(self, size: int):
        self.ops = OPS
        self.work = 4 * size + 2**16  # bytes and items that calls may be given, all together
        self.depth = 0

    def run(self, f: BinaryIO, persistent: Callable[[Any], Any] | None = None) -> Any:
        """The value of the pickle at f's position. persistent: the storage of an id."""
        stack: list[Any] = []
        marks: list[list] = []
        memo: dict[int, Any] = {}

        def unmark() -> list:
            nonlocal stack
            items, stack = stack, marks.pop()
            return items

        for op, arg, _ in pickletools.genops(f):
            name = op.name
            self.ops -= 1
            if self.ops < 0:
                raise Refused(f"refused: more than {OPS} instructions")
            if name in PUSHED:
                stack.append(arg)
            elif name in CONSTANTS:
                stack.append(CONSTANTS[name]())
            elif name in ("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"):
                memo[len(memo) if name == "MEMOIZE" else arg] = stack[-1]
            elif name in ("GET", "BINGET", "LONG_BINGET"):
                stack.append(memo[arg])
            elif name == "MARK":
                marks.append(stack)
                stack = []
            elif name in ("TUPLE", "LIST", "DICT", "FROZENSET"):
                items = unmark()
                stack.append(collect(name, items))
            elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
                stack.append(tuple([stack.pop() for _ in range(int(name[-1]))][::-1]))
            elif name == "APPEND":
                item = stack.pop()
                expect(stack[-1], list).append(item)
            elif name == "APPENDS":
                items = unmark()
                expect(stack[-1], list).extend(items)
            elif name == "SETITEM":
                value, key = stack.pop(), stack.pop()
                expect(stack[-1], dict)[key_of(key)] = value
            elif name == "SETITEMS":
                items = unmark()
                expect(stack[-1], dict).update(collect("DICT", items))
            elif name == "ADDITEMS":
                items = unmark()
                expect(stack[-1], set).update(map(key_of, items))
            elif name == "POP":
                stack.pop() if stack else unmark()
            elif name == "POP_MARK":
                unmark()
            elif name == "DUP":
                stack.append(stack[-1])
            elif name == "GLOBAL":
                stack.append(symbol(*arg.split(" ", 1)))
            elif name == "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(symbol(module, attribute))
            elif name in ("REDUCE", "NEWOBJ"):
                args, callee = stack.pop(), stack.pop()
                stack.append(self._call(callee, args, name == "NEWOBJ"))
            elif name == "BUILD":
                state = stack.pop()
                self._spend((state,))
                _build(stack[-1], state)
            elif name == "BINPERSID" and persistent is not None:
                stack.append(persistent(stack.pop()))
            elif name == "STOP":
                return stack.pop()
            elif name not in ("PROTO", "FRAME"):
                raise Refused(f"refused: the instruction {name}; nothing was run")
        raise Refused("damaged: a pickle without an end")

    def _spend(self, values: Iterable[Any]) -> None:
        """Counts what a call is given: with the memo, a small file can give a lot many times."""
        for v in values:
            if isinstance(v, SIZED):
                self.work -= len(v)
            if isinstance(v, dict):
                self.work -= sum(len(x) for x in v.values() if isinstance(x, SIZED))
        if self.work < 0:
            raise Refused("refused: calls that are given more than the file holds")

    def _call(self, f: Any, args: Any, new: bool) -> Any:
        name, args = expect(f, Symbol).name, expect(args, tuple)
        self._spend(args)
        if new:
            return instance(name, args)
        if name == LOAD:
            return self._nested(*args)
        if name not in CALLS:
            raise Refused(f"refused: a call of {name}; nothing was run")
        return CALLS[name](*args)

    def _nested(self, data: Any) -> Storage:
        """A storage, which is a file of its own within the file."""
        if not isinstance(data, (bytes, bytearray)):
            raise Refused("refused: a storage that is not made of bytes")
        self.depth += 1
        if self.depth > DEPTH:
            raise Refused(f"refused: files within files, {self.depth} deep")
        found = self.read(io.BytesIO(data), memoryview(data))
        self.depth -= 1
        return expect(found, Storage)

    def read(self, f: BinaryIO, view: memoryview) -> Any:
        """The value of a pickle or of either of PyTorch's formats; f reads what view holds."""
        if bytes(view[:4]) == b"PK\x03\x04":
            return self._zip(f, len(view))
        value = self.run(f)
        return self._legacy(f, view) if type(value) is int and value == MAGIC else value

    def _legacy(self, f: BinaryIO, view: memoryview) -> Any:
        """PyTorch's older format: four pickles, then every storage as its length and bytes."""
        version, system = self.run(f), self.run(f)
        little = isinstance(system, dict) and system.get("little_endian") is True
        if version != PROTOCOL or not little:
            raise Refused("refused: a PyTorch file of an unknown protocol or byte order")
        storages: dict[str, Storage] = {}

        def persistent(pid: Any) -> Storage:
            key, found = storage(pid)
            if found.nbytes > len(view):
                raise Refused(f"refused: a storage of {found.nbytes} bytes in a smaller file")
            return storages.setdefault(key, found)

        value = self.run(f, persistent)
        for key in expect(self.run(f), list):
            start, found = f.tell() + 8, storages[key_of(key)]
            length = int.from_bytes(view[start - 8 : start], "little")
            if length != found.numel or start + found.nbytes > len(view):
                raise Refused(f"damaged: a storage of {found.nbytes} bytes is not in the file")
            found.data = view[start : start + found.nbytes]
            f.seek(start + found.nbytes)
        return value

    def _zip(self, f: BinaryIO, size: int) -> Any:
        """PyTorch's newer format: an archive of data.pkl and one member a storage."""
        with zipfile.ZipFile(f) as archive:
            try:
                members = npz.members(archive, size, size, stored=True)
            except ValueError as e:
                raise Refused(str(e)) from e
            roots = [n for n in members if n.rpartition("/")[2] == "data.pkl"]
            if len(roots) != 1:
                raise Refused(f"not a PyTorch file: {len(roots)} members are named data.pkl")
            root = roots[0].removesuffix("data.pkl")
            order = root + "byteorder"
            if order in members and archive.read(order) != b"little":
                raise Refused("refused: a PyTorch file of another byte order")
            storages: dict[str, Storage] = {}

            def persistent(pid: Any) -> Storage:
                key, found = storage(pid)
                if key not in storages:
                    name = f"{root}data/{key}"
                    if name not in members or members[name].file_size != found.nbytes:
                        raise Refused(f"damaged: no storage {key[:80]!r} of {found.nbytes} bytes")
                    found.data = archive.read(name)
                    storages[key] = found
                return storages[key]

            return self.run(io.BytesIO(archive.read(roots[0])), persistent)


def _build(target: Any, state: Any) -> None:
    if isinstance(target, Buildable):
        target.build(state)
    elif not (isinstance(target, dict) and isinstance(state, dict)):  # attributes of a dict: unused
        raise Refused(f"refused: a state for a {type(target).__name__}")


def load(data: bytes) -> Any:
    """The value of a pickle, or of either of PyTorch's file formats.

    Returns:
      Numbers, texts, containers, and symbols.Object, Tensor, NumpyArray.

    Raises:
      ValueError: anything that is not a tensor, a container or a record; anything damaged.
    """
    try:
        return Machine(len(data)).read(io.BytesIO(data), memoryview(data))
    except Refused:
        raise
    except (ValueError, *npz.DAMAGED) as e:
        raise Refused(f"damaged, or not a pickle of tensors: {type(e).__name__}: {e}") from e

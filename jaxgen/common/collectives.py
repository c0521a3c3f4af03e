"""What devices send each other in a compiled program: read from its HLO text by kind and bytes.

A loop's body is counted once, however often it runs. A reduce-scatter has three faces: the
instruction; on TPUs an all-reduce fused with the slice that a device keeps; on CPUs, whose compiler
lacks that pass, an all-reduce that is read by slices only (`sliced`).
"""

import dataclasses
import math
import re
from collections.abc import Iterable

KINDS = (
    "all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all",
    "collective-permute", "collective-broadcast", "send",
)  # fmt: skip
BITS = {"pred": 8, "s4": 4, "u4": 4, "token": 0}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.-]+) \(.*\) -> .* \{$")
_LINE = re.compile(r"^\s+(?:ROOT )?%?([\w.-]+) = (.*)$")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")
_PASSED_ON = ("bitcast", "copy", "transpose", "reshape", "convert")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One array that is sent: an instruction may send several.

    kind: one of KINDS. bytes: of the whole array on one device, before a reduce-scatter or after an
    all-gather. group: devices that take part together. name: of the instruction. sliced: an
    all-reduce of which each device keeps its part only. op: what it was made for (jax's op_name).
    """

    kind: str
    bytes: int
    group: int
    name: str
    sliced: bool = False
    op: str = ""


@dataclasses.dataclass(frozen=True)
class _Instruction:
    name: str
    type: str
    opcode: str
    operands: tuple[str, ...]
    rest: str
    computation: str

    @property
    def called(self) -> str | None:
        found = re.search(r"\bcalls=%?([\w.-]+)", self.rest)
        return found.group(1) if found else None


def _balanced(text: str, start: int) -> int:
    """The end of the bracket that opens at `start`."""
    depth = 0
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if not depth:
            return i + 1
    raise ValueError(f"a bracket is not closed in the HLO line {text[:120]!r}")


def _parse(text: str) -> dict[str, list[_Instruction]]:
    """The instructions of each computation."""
    found: dict[str, list[_Instruction]] = {}
    name = ""
    for line in text.splitlines():
        head = _HEAD.match(line)
        if head:
            name = head.group(2)
            found[name] = []
            continue
        match = _LINE.match(line)
        if not match or not name:
            continue
        body = match.group(2)
        end = _balanced(body, 0) if body.startswith("(") else body.find(" ")
        call = re.match(r"\s*([\w-]+)\(", body[end:])
        if not call:
            continue
        start = end + call.end() - 1
        stop = _balanced(body, start)
        operands = tuple(re.findall(r"%([\w.-]+)", body[start:stop]))
        if not operands:  # the form without percent signs
            operands = tuple(
                o.strip().split(" ")[-1] for o in body[start + 1 : stop - 1].split(",")
            )
        found[name].append(
            _Instruction(match.group(1), body[:end], call.group(1), operands, body[stop:], name)
        )
    return found


def _sizes(type_text: str) -> list[int]:
    """Bytes of every array of a type, of tuples too."""
    sizes = []
    for dtype, dims in _ARRAY.findall(type_text):
        digits = re.search(r"\d+", dtype)
        bits = BITS.get(dtype) if dtype in BITS else int(digits.group()) if digits else None
        if bits is not None:
            sizes.append(math.prod(int(d) for d in dims.split(",") if d) * bits // 8)
    return sizes


def _group(rest: str) -> int:
    """Devices in a replica group, in each of the forms that XLA prints."""
    listed = re.search(r"replica_groups=\{\{([\d,]+)\}", rest)
    if listed:
        return len(listed.group(1).split(","))
    iota = re.search(r"replica_groups=\[(\d+),(\d+)\]<=", rest)
    if iota:
        return int(iota.group(2))
    mesh = re.search(r"replica_groups=@?mesh\[([^\]]*)\][^{]*\{([^}]*)\}", rest)
    if mesh:
        sizes = dict(re.findall(r"'?([\w.]+)'?=(\d+)", mesh.group(1)))
        axes = re.findall(r"'?([\w.]+)'?(?::\((\d+)\)(\d+))?", mesh.group(2))
        return math.prod(int(part or sizes[axis]) for axis, _, part in axes if axis in sizes)
    return 0


def _sliced(
    value: _Instruction, computations: dict[str, list[_Instruction]], index: int | None
) -> bool:
    """Whether all that reads the value (its element `index`, if not None) is a dynamic slice."""
    readers = [i for i in computations[value.computation] if value.name in i.operands]
    if not readers:
        return False
    for reader in readers:
        if reader.opcode == "get-tuple-element" and index is not None:
            if int(re.search(r"index=(\d+)", reader.rest).group(1)) != index:
                continue
            fine = _sliced(reader, computations, None)
        elif reader.opcode == "dynamic-slice":
            fine = reader.operands[0] == value.name
        elif reader.opcode in _PASSED_ON:
            fine = _sliced(reader, computations, None)
        elif reader.opcode == "fusion" and reader.called in computations:
            inner = [i for i in computations[reader.called] if i.opcode == "parameter"]
            places = [k for k, o in enumerate(reader.operands) if o == value.name]
            inner = [i for i in inner if i.operands and int(i.operands[0]) in places]
            fine = bool(inner) and all(_sliced(i, computations, None) for i in inner)
        else:
            fine = False
        if not fine:
            return False
    return True


def collectives(text: str) -> list[Collective]:
    """All of `compiled.as_text()`, one entry an array, in the order of the text."""
    computations = _parse(text)
    found: list[Collective] = []
    seen = set()
    for instructions in computations.values():
        for i in instructions:
            kind = i.opcode.removesuffix("-start")
            if kind not in KINDS:
                continue
            channel = re.search(r"channel_id=(\d+)", i.rest)
            # The parts of a collective that TPUs run beside other work share its channel.
            key = channel.group(1) if channel else i.name
            if key in seen:
                continue
            seen.add(key)
            sizes, group = _sizes(i.type), _group(i.rest)
            if kind == "send" or (i.opcode != kind and kind != "all-reduce"):
                # A start also returns what it was given, and some contexts.
                sizes = sizes[:1] if kind == "send" else _results(i.type, kind)
            op = re.search(r'op_name="([^"]*)"', i.rest)
            fused = kind == "all-reduce" and i.computation.startswith("all-reduce-scatter")
            for k, size in enumerate(sizes):
                whole = size * group if kind == "reduce-scatter" else size
                cut = False
                if kind == "all-reduce" and not fused:
                    cut = _sliced(i, computations, k if i.type.startswith("(") else None)
                kept = "reduce-scatter" if fused else kind
                name = op.group(1) if op else ""
                found.append(Collective(kept, whole, group, i.name, cut, name))
    return found


def _results(type_text: str, kind: str) -> list[int]:
    """The results among (operands, results, contexts...) of a start."""
    sizes = _sizes(type_text)
    if kind == "collective-permute":
        return sizes[1:2]
    nested = re.match(r"\(\((.*?)\), (.*)\)$", type_text)
    if nested:
        return sizes[len(_sizes(nested.group(1))) : 2 * len(_sizes(nested.group(1)))]
    return sizes[1:2]


def totals(found: Iterable[Collective]) -> dict[str, tuple[int, int]]:
    """kind -> (arrays, bytes); an all-reduce that is only sliced counts as a reduce-scatter."""
    sums: dict[str, tuple[int, int]] = {}
    for c in found:
        kind = "reduce-scatter" if c.sliced else c.kind
        n, size = sums.get(kind, (0, 0))
        sums[kind] = (n + 1, size + c.bytes)
    return sums

"""A compiled program read from its text: collectives, products and cycles, loops counted.

Text of XLA's optimised modules as CPU, GPU and TPU write it. What a loop does counts as often as
the loop runs, every branch of a conditional once.
"""

import dataclasses
import math
import re
from collections.abc import Iterator, Mapping

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute", "send")
BITS = {"pred": 8, "token": 0, "bf16": 16, "s4": 4, "u4": 4, "c64": 64, "c128": 128}
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\{$")
_LINE = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = (.*)$")
_PLAIN = re.compile(r"\{[\d,]*(?::[^{}]*)?\}|/\*.*?\*/")  # layouts and comments
_OP = re.compile(r"\s([a-z][a-z0-9\-]*)\(([^)]*)\)")
_ARRAY = re.compile(r"\b([a-z][a-z0-9]*)\[([\d,]*)\]")
_CALLS = re.compile(
    r"\b(calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)"
)
_LISTS = re.compile(r"\b(?:branch_computations|called_computations)=\{([^}]*)\}")


@dataclasses.dataclass(frozen=True)
class Op:
    """One instruction. shapes: (dtype, dimensions) of its results. text: the line as written."""

    name: str
    kind: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    operands: tuple[str, ...]
    root: bool
    text: str

    @property
    def arrays(self) -> list[int]:
        """Bytes of each result."""
        return [_nbytes(d, s) for d, s in self.shapes]


@dataclasses.dataclass(frozen=True)
class Collective:
    """One array that devices send each other; an instruction may send several.

    kind: of KINDS. runs: times in a run of the program. bytes: of the larger of what goes in and
    what comes out: the gathered array, the one before it is scattered. group: devices that take
    part together, 0 if the text does not say. sliced: an all-reduce of which each device keeps its
    part only, as XLA's CPU compiler, which lacks the pass, leaves a reduce-scatter. (That of TPUs
    writes one as a fusion of both; it counts as a reduce-scatter.) op: jax's name for it.
    """

    kind: str
    runs: int
    bytes: int
    group: int
    sliced: bool
    op: str


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    bits = BITS.get(dtype) or int(re.sub(r"^\D+(\d+).*", r"\1", dtype) if dtype[-1:] != "n" else 0)
    return math.prod(shape) * bits // 8


def _op(line: str) -> Op | None:
    found = _LINE.match(line)
    if not found:
        return None
    root, name, rest = found.groups()
    plain = _PLAIN.sub("", rest.partition(", metadata=")[0])
    op = _OP.search(plain)
    if not op:
        return None
    shapes = tuple(
        (d, tuple(map(int, filter(None, s.split(",")))))
        for d, s in _ARRAY.findall(plain[: op.start()])
    )
    operands = tuple(w.split()[-1].lstrip("%") for w in op[2].split(",") if w.split())
    return Op(name, op[1], shapes, operands, bool(root), rest)


class Module:
    """A program's computations, and how often each runs in one run of the program.

    computations: name -> instructions. times: name -> runs, 0 for what is not reached. unknown:
    loops whose length is not to be seen; they count once.
    """

    def __init__(self, text: str):
        self.computations: dict[str, list[Op]] = {}
        self.entry, self.unknown = "", []
        current: list[Op] = []
        for line in text.splitlines():
            head = _HEAD.match(line)
            if head:
                current = self.computations.setdefault(head[2], [])
                self.entry = head[2] if head[1] else self.entry
            elif op := _op(line):
                current.append(op)
        if not self.entry:
            raise ValueError("this is not the text of a compiled program: it has no ENTRY")
        self.times = dict.fromkeys(self.computations, 0)
        self.control = {self.entry}  # computations that are no bodies of fusions
        self._run(self.entry, 1, True)

    def _run(self, name: str, times: int, control: bool) -> None:
        self.times[name] = self.times.get(name, 0) + times
        if control:
            self.control.add(name)
        for op in self.computations.get(name, ()):
            if op.kind in ("async-update", "async-done"):
                continue  # the start has run it
            for how, callee in self._callees(op):
                if how == "to_apply" and op.kind != "call":
                    continue  # the sum of a reduction, say
                n = self._length(op) if how == "body" else 1
                self._run(callee, times * n, control and op.kind != "fusion")

    @staticmethod
    def _callees(op: Op) -> Iterator[tuple[str, str]]:
        yield from _CALLS.findall(op.text)
        for names in _LISTS.findall(op.text):
            yield from (("branch", n.strip().lstrip("%")) for n in names.split(","))

    def _length(self, loop: Op) -> int:
        """Rounds of a while: XLA's note, or the one bound that its condition compares with."""
        noted = re.search(r'known_trip_count"?[:=]\{"?n"?:"?(\d+)', loop.text)
        if noted:
            return int(noted[1])
        condition = dict(self._callees(loop)).get("condition", "")
        ops = self.computations.get(condition, ())
        bounds = {m[1] for op in ops if (m := re.search(r" constant\((\d+)\)", op.text))}
        if len(bounds) != 1:
            self.unknown.append(loop.name)
            return 1
        return int(bounds.pop())

    def _ops(self) -> Iterator[tuple[str, int, Op]]:
        for name, ops in self.computations.items():
            if self.times[name]:
                yield from ((name, self.times[name], op) for op in ops)

    def each(self) -> list[Collective]:
        """Every array that is sent.

        Parts of one collective that a compiler spreads over several instructions share a channel
        and count once.
        """
        seen: dict[tuple, Collective] = {}
        for name, times, op in self._ops():
            kind = op.kind.removesuffix("-start")
            if kind not in KINDS:
                continue
            known = {o.name: o for o in self.computations[name]}
            given = [n for o in op.operands if o in known for n in known[o].arrays]
            made = op.arrays
            if op.kind != kind and kind not in ("all-reduce", "send"):
                made = made[len(given) : 2 * len(given)]  # a start returns its operands, too
            made_for = re.search(r'op_name="([^"]*)"', op.text)
            channel = re.search(r"channel_id=(\d+)", op.text)
            for k, sizes in enumerate(zip(given, made)):
                cut = kind == "all-reduce" and self._sliced(name, op, k if made[1:] else None)
                fused = cut and name not in self.control
                one = Collective(
                    "reduce-scatter" if fused else kind,
                    times,
                    max(sizes),
                    _group(op.text),
                    cut and not fused,
                    made_for[1] if made_for else "",
                )
                key = (kind, channel[1] if channel else f"{name}/{op.name}", k)
                if key not in seen or seen[key].runs * seen[key].bytes < times * one.bytes:
                    seen[key] = one
        return list(seen.values())

    def collectives(self) -> dict[str, tuple[int, int]]:
        """kind -> (arrays, bytes) that each device takes part in, loops counted; see `each`."""
        total: dict[str, tuple[int, int]] = {}
        for c in self.each():
            old = total.get(c.kind, (0, 0))
            total[c.kind] = (old[0] + c.runs, old[1] + c.runs * c.bytes)
        return {k: total[k] for k in KINDS if k in total}

    def _sliced(self, name: str, op: Op, index: int | None = None) -> bool:
        """Whether all that reads `op`, or its element `index`, takes a dynamic slice of it."""
        readers = [o for o in self.computations[name] if op.name in o.operands]
        if index is not None:
            elements = [o for o in readers if f"index={index}" in re.split(r"[ ,]+", o.text)]
            return len(elements) == 1 and self._sliced(name, elements[0])
        return bool(readers) and all(self._slices(name, op, o) for o in readers)

    def _slices(self, name: str, op: Op, reader: Op) -> bool:
        if reader.kind == "dynamic-slice":
            return reader.operands[0] == op.name
        if reader.kind == "fusion":
            callee = dict(self._callees(reader))["calls"]
            places = {str(i) for i, o in enumerate(reader.operands) if o == op.name}
            inside = self.computations[callee]
            taken = [o for o in inside if o.kind == "parameter" and o.operands[0] in places]
            return all(self._sliced(callee, o) for o in taken)
        same = ("bitcast", "copy", "transpose", "reshape", "convert")
        return reader.kind in same and self._sliced(name, reader)

    def looped_flops(self) -> float:
        """FLOPs of products and convolutions in the rounds of loops after each first one.

        XLA's own count takes a loop's body once; this is what it leaves out.
        """
        total = 0.0
        for name, times, op in self._ops():
            if times > 1 and op.kind in ("convolution", "dot"):
                shapes = {o.name: o.shapes[0][1] for o in self.computations[name] if o.shapes}
                total += (times - 1) * _flops(op, shapes)
        return total

    def cycles(self) -> int:
        """The compiler's estimate of the cycles of all instructions (TPU), collectives apart."""
        total = 0
        for name, times, op in self._ops():
            if name in self.control and (m := re.search(r'"estimated_cycles":"(\d+)"', op.text)):
                total += times * int(m[1])
        return total


def _group(text: str) -> int:
    """Devices in a replica group, in each of the forms that XLA writes."""
    if m := re.search(r"replica_groups=\{\{([\d,]+)\}", text):
        return len(m[1].split(","))
    if m := re.search(r"replica_groups=\[\d+,(\d+)\]<=", text):
        return int(m[1])
    if m := re.search(r"replica_groups=@?mesh\[([^\]]*)\][^{]*\{([^}]*)\}", text):
        sizes = dict(re.findall(r"([\w.]+)'?=(\d+)", m[1]))
        parts = re.findall(r"'([\w.]+)'(?::\(\d+\)(\d+))?", m[2])
        return math.prod(int(part or sizes[axis]) for axis, part in parts)
    return 0


def _flops(op: Op, shapes: Mapping[str, tuple[int, ...]]) -> float:
    """2 x multiplications; of a convolution every tap, without zeros from dilating its input."""
    out = math.prod(op.shapes[0][1])
    left, right = (shapes.get(o, ()) for o in op.operands[:2])
    if op.kind == "dot":
        dims = re.search(r"lhs_contracting_dims=\{([\d,]*)\}", op.text)
        return 2.0 * out * math.prod(left[int(d)] for d in dims[1].split(",") if d)
    labels = re.search(r"dim_labels=\w+_(\w+)->\w+", op.text)[1]
    if len(labels) != len(right):
        return 0.0
    depth = math.prod(n for n, label in zip(right, labels) if label != "o")
    dilation = re.search(r"lhs_dilate=([\dx]+)", op.text)
    spread = math.prod(map(int, dilation[1].split("x"))) if dilation else 1
    return 2.0 * out * depth / spread

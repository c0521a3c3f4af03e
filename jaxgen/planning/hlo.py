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
_LAYOUT = re.compile(r"\{[\d,]*(?::[^{}]*)?\}")
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
    def nbytes(self) -> int:
        """Of all results, but for scalars, which asynchronous operations keep for themselves."""
        return sum(_nbytes(d, s) for d, s in self.shapes if s)


def _nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    bits = BITS.get(dtype) or int(re.sub(r"^\D+(\d+).*", r"\1", dtype) if dtype[-1:] != "n" else 0)
    return math.prod(shape) * bits // 8


def _op(line: str) -> Op | None:
    found = _LINE.match(line)
    if not found:
        return None
    root, name, rest = found.groups()
    plain = _LAYOUT.sub("", rest.partition(", metadata=")[0])
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

    def collectives(self) -> dict[str, tuple[int, int]]:
        """kind -> (runs, bytes) on each device.

        bytes: of the larger of what goes in and what comes out: the gathered array, the one before
        it is scattered. Parts of one collective that a compiler spreads over several instructions
        share a channel and count once. A reduce-scatter written as an all-reduce and a slice of it
        counts as what it is.
        """
        seen: dict[tuple[str, str], tuple[int, int]] = {}
        for name, times, op in self._ops():
            kind = op.kind.removesuffix("-start")
            if kind not in KINDS:
                continue
            known = {o.name: o for o in self.computations[name]}
            given = sum(known[o].nbytes for o in op.operands if o in known)
            made = op.nbytes
            if op.kind != kind and kind != "all-reduce":
                made -= given  # an asynchronous start returns its operands, too
            if kind == "all-reduce" and self._scattered(name, op):
                kind = "reduce-scatter"
            channel = re.search(r"channel_id=(\d+)", op.text)
            key = (kind, channel[1] if channel else f"{name}/{op.name}")
            old = seen.get(key, (0, 0))
            seen[key] = max(old, (times, times * max(given, made)))
        total: dict[str, tuple[int, int]] = {}
        for (kind, _), (runs, nbytes) in seen.items():
            old = total.get(kind, (0, 0))
            total[kind] = (old[0] + runs, old[1] + nbytes)
        return {k: total[k] for k in KINDS if k in total}

    def _scattered(self, name: str, op: Op) -> bool:
        """Whether a fused computation only takes this device's part of an all-reduce."""
        roots = [o for o in self.computations[name] if o.root]
        return any(o.kind == "dynamic-slice" and o.operands[:1] == (op.name,) for o in roots)

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

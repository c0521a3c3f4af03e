"""Memory of a program on one chip: which results are stored, when, and the most at a time.

The model of the compiler, in the order of the trace (docs/planning.md: how near it comes):

- Elementwise operations are computed inside of the kernels that read them, again in each, unless
  that reads more bytes than the result has and is done twice or after the next product.
- Products, reductions and loops store their results, concatenations their operands.
- Parameters that lie in parts (fsdp) are gathered for each product that reads them, the next
  product's at the same time, and dropped after it. Products then read operands that are stored.
- Gradients of such parameters are kept in parts.
- A value is held from its operation to the last kernel that reads it.
- Convolutions on a TPU have channels or images in a tile's lanes, and fill them up.
- Fewer images than PIECES leave its tiles empty. XLA then cuts every row of pixels into PIECES for
  a convolution and folds them into the batch: what it reads and writes is held in both forms.
- New parameters, optimizer and averages take the place of the old ones, as what a loop carries.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxgen.planning.program import PRODUCTS, Op, Program, Value

LANES = 128
SMALLEST = 512  # bytes of an array on a TPU
SMALL = 4096  # bytes that any kernel may read beside
PIECES = 8  # of a row of pixels
AHEAD = 2  # gathered parameters at a time: those in use and the next
KINDS = ("activations", "weights", "gradients")
REDUCTIONS = ("reduce_sum", "reduce_max", "reduce_min", "reduce_prod", "reduce_and", "reduce_or")
STORED = (
    "argmax", "argmin", "sort", "cumsum", "cumprod", "cumlogsumexp", "cummax", "gather", "scatter",
    "scatter-add", "scatter_add", "dynamic_update_slice", "reduce_window_sum", "reduce_window_max",
    "select_and_scatter_add", "fft", "cholesky", "eigh", "qr", "svd", "triangular_solve",
    "custom_call", "pure_callback", "top_k", "rng_bit_generator",
)  # fmt: skip


def padded(value: Value) -> int:
    """Bytes on a TPU: the best two dimensions fill tiles of 8 x 128 (bytes: 32 x 128)."""
    shape = [n for n in value.shape if n != 1]
    size = _item(value)
    if len(shape) < 2 or not value.nbytes:
        return max(SMALLEST, -(-math.prod(value.shape) // LANES) * LANES * size)
    rows = 32 if size == 1 else 8
    grow = lambda n, to: -(-n // to) * to / n
    best = min(
        grow(a, LANES) * grow(b, rows)
        for i, a in enumerate(shape)
        for j, b in enumerate(shape)
        if i != j
    )
    return round(math.prod(shape) * size * best)


def fills_tiles(shape: Sequence[int], spec: Sequence[Any]) -> bool:
    """Whether the parts of a leaf fill a TPU's tiles of 8 rows and 128 lanes.

    If so, a reduce-scatter leaves the parts of a gradient; else XLA sums it whole (all-reduce) and
    each chip takes its part.

    Args:
      shape: of a part. spec: axes of each dimension of the leaf, short ones as in a PartitionSpec.
    """
    tiles = {len(shape) - 1: LANES, len(shape) - 2: 8}
    return all(shape[d] % tiles.get(d, 1) == 0 for d, axis in enumerate(spec) if axis)


def plain(value: Value) -> int:
    """Bytes without padding: CPU and GPU."""
    return value.nbytes


def _item(value: Value) -> int:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return 8
    return np.dtype(value.dtype).itemsize


@dataclasses.dataclass
class Peak:
    """The most bytes that a program holds beside its arguments, by kind.

    activations: scale with the batch. weights: parameters in the form that products read.
    gradients: what products leave of them, and updates. traffic: bytes that all kernels read and
    write; seconds: that they take.
    """

    activations: int = 0
    weights: int = 0
    gradients: int = 0
    traffic: int = 0
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """All kinds."""
        return self.activations + self.weights + self.gradients


@dataclasses.dataclass
class Rules:
    """How arrays lie on a chip.

    size: bytes of a value. split: the part of a value without the batch that one chip keeps, as a
    share of 1 (fsdp). seconds: of a kernel, from its operation, dtype and bytes. gathered: whether
    products read parameters that are gathered for them. into_products: whether products compute
    elementwise operands themselves. pieces: that a TPU's convolutions fold rows of pixels into, 1
    if they do not, 0 for other chips.
    """

    size: Callable[[Value], int]
    split: Callable[[Value], float]
    seconds: Callable[[Op, str, float], float]
    gathered: bool = False
    into_products: bool = True
    pieces: int = 0


def _elementwise(op: Op) -> bool:
    return not (op.inner or op.name in PRODUCTS or op.name in REDUCTIONS or op.name in STORED)


class _Stored:
    """Which values are stored, what each kernel reads, and until when a value is needed."""

    def __init__(self, program: Program, rules: Rules):
        n = len(program.values)
        self.program, self.rules = program, rules
        self.readers: list[list[int]] = [[] for _ in range(n)]
        for i, op in enumerate(program.ops):
            for v in set(op.ins):
                self.readers[v].append(i)
        self.kept = [True] * n  # stored, not computed in its readers
        self.reads: list[frozenset[int]] = [frozenset()] * n  # of what is not stored
        outputs = set(program.outputs)
        products = list(
            itertools.accumulate((op.name in PRODUCTS for op in program.ops), initial=0)
        )
        for i, op in enumerate(program.ops):
            if not _elementwise(op):
                continue
            sources = self.sources(op)
            read = sum(program.values[u].nbytes for u in sources)
            for v in op.outs:
                little = read <= 1.1 * program.values[v].nbytes + SMALL
                r = self.readers[v]
                soon = len(r) == 0 or (len(r) == 1 and products[r[0]] == products[i])
                if v not in outputs and self._inline(v) and (little or soon):
                    self.kept[v], self.reads[v] = False, sources
        self.last, self.weight = self._needs()
        self.images = self._images() if rules.pieces else set()

    def sources(self, op: Op) -> frozenset[int]:
        """The stored values that an operation reads, through what is not stored."""
        found: set[int] = set()
        for v in op.ins:
            found |= {v} if self.kept[v] else self.reads[v]
        return frozenset(found)

    def kernel(self, op: Op) -> bool:
        """Whether an operation is more than a part of its readers."""
        return not _elementwise(op) or any(self.kept[v] for v in op.outs)

    def _inline(self, v: int) -> bool:
        """Whether all readers of a value can compute it themselves."""
        for r in self.readers[v]:
            op = self.program.ops[r]
            if op.inner or op.name in STORED or op.name == "concatenate":
                return False
            if op.name in PRODUCTS and (self.rules.gathered or not self.rules.into_products):
                return False
        return True

    def _needs(self) -> tuple[list[int], list[bool]]:
        """The last operation that reads each value, and whether a product or a loop does."""
        program = self.program
        last, weight = [-1] * len(program.values), [False] * len(program.values)
        for v in program.outputs:
            last[v] = len(program.ops)
        for i in range(len(program.ops) - 1, -1, -1):
            op = program.ops[i]
            through = not self.kernel(op)
            until = max(last[v] for v in op.outs) if through else i
            mixed = op.name in PRODUCTS and any(program.values[v].batch for v in op.ins)
            product = mixed or bool(op.inner) or (through and any(weight[v] for v in op.outs))
            for v in op.ins:
                last[v] = max(last[v], until)
                weight[v] |= product
        return last, weight

    def _images(self) -> set[int]:
        """What convolutions of more than one pixel read and write, in rows longer than pieces."""
        values, found = self.program.values, set()
        for op in self.program.ops:
            if op.name != "conv_general_dilated":
                continue
            kernels = [values[v] for v in (*op.ins, *op.outs) if not values[v].batch]
            if any(math.prod(k.shape[:-2]) > 1 for k in kernels):
                found |= {v for v in (*op.ins, *op.outs) if values[v].batch}
        return {v for v in found if values[v].shape[-2] > self.rules.pieces}


def convolved(value: Value, pieces: int) -> int:
    """Bytes of images (b, ..., w, c) as a TPU's convolutions have them.

    Lanes hold the channels, or the images with channels in the rows, whichever wastes less. Rows of
    pixels are cut into pieces that count as images, each with a pixel of the next.
    """
    b, *_, w, c = value.shape
    grow = lambda n, to: -(-n // to) * to / n
    rows = min(8, 1 << (c - 1).bit_length())
    lanes = min(grow(c, LANES), grow(b * pieces, LANES) * grow(c, rows))
    width = w if pieces == 1 else (-(-w // pieces) + 1) * pieces
    return round(math.prod(value.shape) * _item(value) * lanes * width / w)


def peak(program: Program, rules: Rules, free: Sequence[int] = ()) -> Peak:
    """The most that a program holds at a time beside its inputs.

    Args:
      program: in a chip's shapes. rules: of the chip. free: outputs that take the place of inputs.
    """
    stored, values = _Stored(program, rules), program.values
    outside = {*program.inputs, *free}
    ends: list[list[int]] = [[] for _ in range(len(program.ops) + 1)]
    now, best, traffic, seconds = Peak(), Peak(), 0, 0.0

    def size_of(v: int) -> tuple[str, int]:
        size = rules.size(values[v])
        if values[v].batch:
            if v in stored.images:
                plain = size if rules.pieces > 1 else 0
                size = plain + convolved(values[v], rules.pieces)
            return "activations", size
        part = round(size * rules.split(values[v]))
        if stored.weight[v]:
            return "weights", part if rules.gathered else size
        return "gradients", part

    for i, op in enumerate(program.ops):
        if not stored.kernel(op):
            continue
        made = [v for v in op.outs if stored.kept[v] and stored.last[v] >= 0]
        for v in made:
            if v not in outside:
                kind, size = size_of(v)
                setattr(now, kind, getattr(now, kind) + size)
                ends[stored.last[v]].append(v)
        inner = [peak(body, rules, body.outputs) for body in op.inner]
        extra = max(inner, key=lambda p: p.total, default=Peak())
        whole = 0
        if rules.gathered and op.name in PRODUCTS:
            whole = sum(rules.size(values[v]) for v in set(op.ins) if not values[v].batch)
            extra = Peak(weights=AHEAD * whole)
        if now.total + extra.total > best.total:
            best = Peak(*(getattr(now, k) + getattr(extra, k) for k in KINDS))
        for v in ends[i]:
            kind, size = size_of(v)
            setattr(now, kind, getattr(now, kind) - size)
        if inner:
            dearest = max(inner, key=lambda p: p.seconds)
            traffic += op.times * dearest.traffic
            seconds += op.times * dearest.seconds
            continue
        moved = whole + sum(size_of(v)[1] for v in {*stored.sources(op), *made})
        dtype = np.dtype(values[op.ins[0]].dtype).name if op.flops else ""
        traffic += moved
        seconds += rules.seconds(op, dtype, moved)
    best.traffic, best.seconds = traffic, seconds
    return best

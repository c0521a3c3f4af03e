"""What chips send each other in a step, by kind, from where the parameters lie.

Of a leaf of n bytes that is split over fsdp, every product that reads it gathers it (all-gather, in
the forward and in the backward pass), and every program that trains it leaves a sum over the
devices of which each keeps its part (reduce-scatter over fsdp, all-reduce of the part over data). A
whole leaf's gradient is summed over both (all-reduce), and on a TPU that of one whose parts do not
fill tiles. With microbatches, each of them does so. A
leaf that is split over tensor leaves partial sums of activations (all-reduce over tensor).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxgen.planning.chips import Topology
from jaxgen.planning.memory import fills_tiles
from jaxgen.planning.program import PRODUCTS, Part, Program

KINDS = ("all-gather", "reduce-scatter", "all-reduce")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """Of one kind over one group of axes, in an average step.

    bytes: of the whole arrays. near, outside: what one chip sends over links, and to other slices
    or nodes.
    """

    kind: str
    axes: tuple[str, ...]
    bytes: float
    near: float
    outside: float


def domains(axes: Sequence[str], sizes: Mapping[str, int], near: int) -> tuple[int, int]:
    """(members of a group that links join, such parts of a group) for a group over `axes`.

    Devices are laid out with the last axis innermost, as common/mesh.py does.

    Args:
      axes: of the group, neighbours in `sizes`. sizes: of the mesh, outermost first. near: chips
        that links join.
    """
    names = list(sizes)
    inner = math.prod(sizes[a] for a in names[names.index(axes[-1]) + 1 :]) if axes else 1
    group = math.prod(sizes[a] for a in axes)
    members = max(1, min(group, near // inner))
    while group % members:
        members -= 1
    return members, group // members


def sent(
    kind: str, size: float, axes: Sequence[str], sizes: Mapping[str, int], topology: Topology
) -> Traffic:
    """What one chip sends for an array of `size` bytes: rings inside and between domains."""
    members, parts = domains(axes, sizes, topology.near)
    times = 2.0 if kind == "all-reduce" else 1.0
    return Traffic(
        kind,
        tuple(axes),
        size,
        times * size * (members - 1) / members,
        times * size * (parts - 1) / parts / members,
    )


def total(found: Sequence[Traffic]) -> list[Traffic]:
    """Added up by kind and axes, those of one device left out."""
    sums: dict[tuple[str, tuple[str, ...]], list[float]] = {}
    for t in found:
        if t.near or t.outside:
            row = sums.setdefault((t.kind, t.axes), [0.0, 0.0, 0.0])
            for i, n in enumerate((t.bytes, t.near, t.outside)):
                row[i] += n
    order = lambda key: (KINDS.index(key[0]), key[1])
    return [Traffic(*key, *sums[key]) for key in sorted(sums, key=order)]


@dataclasses.dataclass
class Use:
    """How a program uses a leaf: itemsize of what products read, how many do, their results."""

    itemsize: int = 0
    reads: int = 0
    outputs: list[int] = dataclasses.field(default_factory=list)


def uses(program: Program, leaves: Mapping[int, str]) -> dict[str, Use]:
    """How products of a program (loops' bodies, too) read its inputs `leaves` (value -> name)."""
    found = {name: Use() for name in leaves.values()}
    owner = dict(leaves)
    for op in program.ops:
        own = [v for v in op.ins if v in owner]
        if op.inner:
            for body in op.inner:
                given = list(op.ins)[len(op.ins) - len(body.inputs) :]
                inside = {b: owner[v] for b, v in zip(body.inputs, given) if v in owner}
                for name, use in uses(body, inside).items():
                    found[name].itemsize = max(found[name].itemsize, use.itemsize)
                    found[name].reads += use.reads
                    found[name].outputs += use.outputs
            continue
        if op.name in PRODUCTS:
            for v in own:
                use, out = found[owner[v]], program.values[op.outs[0]]
                use.itemsize = max(use.itemsize, np.dtype(program.values[v].dtype).itemsize)
                use.reads += 1
                if out.batch:
                    use.outputs.append(out.nbytes)
            continue
        for v in own:  # casts, normalisations, transposes of it are still the leaf
            for o in op.outs:
                same = math.prod(program.values[o].shape) == math.prod(program.values[v].shape)
                if same and not program.values[o].batch:
                    owner[o] = owner[v]
    return found


def of_part(
    part: Part,
    params: Mapping[str, Any],
    trained: Sequence[str],
    microbatches: int,
    topology: Topology,
) -> list[Traffic]:
    """The traffic of one run of a program.

    Args:
      part: the program. params: name -> struct with its sharding on the mesh, as in `part.names`.
      trained: players that get gradients. microbatches: gathers and sums happen in each.
    """  # fmt: skip
    inputs = {v: n for v, n in zip(part.program.inputs, part.names) if n in params}
    found = []
    for name, use in uses(part.program, inputs).items():
        leaf = params[name]
        sizes, spec = leaf.sharding.mesh.shape, leaf.sharding.spec
        over = {a for entry in spec for a in (entry if isinstance(entry, tuple) else (entry,)) if a}
        add = lambda kind, size, axes, sizes=sizes: found.append(
            sent(kind, float(size) * microbatches, axes, sizes, topology)
        )
        elements = leaf.size / (sizes["tensor"] if "tensor" in over else 1)
        itemsize = use.itemsize or leaf.dtype.itemsize
        if "fsdp" in over and use.itemsize:
            add("all-gather", elements * itemsize * use.reads, ("fsdp",))
        if name.split("/")[1] in trained:
            shape = leaf.sharding.shard_shape(leaf.shape)
            tiled = topology.chip.kind != "tpu" or fills_tiles(shape, spec)
            if "fsdp" in over and tiled:
                add("reduce-scatter", elements * itemsize, ("fsdp",))
                add("all-reduce", elements * itemsize / sizes["fsdp"], ("data",))
            else:
                add("all-reduce", elements * itemsize, ("data", "fsdp"))
        if "tensor" in over and use.outputs:
            # A split of the input channels leaves sums in the forward pass, of the output channels
            # in the backward pass, whose product is the last that reads the leaf.
            first = len(spec) < len(leaf.shape) or spec[-1] is None or "tensor" not in str(spec[-1])
            for size in use.outputs[:-1] or use.outputs if first else use.outputs[-1:]:
                found.append(sent("all-reduce", size * microbatches, ("tensor",), sizes, topology))
    return found

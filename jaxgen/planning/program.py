"""A traced step as a flat list of operations, in the shapes that one chip has.

The step is traced on one device with a batch of MARK times what a chip gets, MARK a prime that no
other size has as a factor: what scales with the batch (images, features) can then be told from
what does not (parameters, gradients), and both sizes are known, from one trace and without arrays.
Where networks compare images in groups that several chips share, the batch is `repeats` times more.
Called functions and what remat computes again are written out; loops and branches stay operations
that hold programs of their own.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.planning import flops
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.plan import Plan

MARK = 1009
GROUPS = 96  # images that networks compare (minibatch standard deviation): a divisor of this
LOOPS = ("scan", "while", "cond")
PRODUCTS = ("dot_general", "conv_general_dilated")
ALIASES = {"sharding_constraint", "optimization_barrier", "copy", "copy_p"}  # no work


@dataclasses.dataclass(slots=True)
class Value:
    """An array of the program. batch: whether its size scales with the batch."""

    shape: tuple[int, ...]
    dtype: Any
    batch: bool

    @property
    def nbytes(self) -> int:
        """Without padding; a key counts as its two words."""
        key = jax.dtypes.issubdtype(self.dtype, jax.dtypes.prng_key)
        return math.prod(self.shape) * (8 if key else np.dtype(self.dtype).itemsize)


@dataclasses.dataclass(slots=True)
class Op:
    """One operation on values, by number.

    flops, sides: of a product (see flops.sides). inner: programs of a loop's bodies, done `times`.
    """

    name: str
    ins: tuple[int, ...]
    outs: tuple[int, ...]
    flops: float = 0.0
    inner: tuple["Program", ...] = ()
    times: int = 1
    sides: tuple[int, int, int] = (0, 0, 0)


@dataclasses.dataclass
class Program:
    """Operations in order; inputs and outputs are numbers of values."""

    values: list[Value]
    ops: list[Op]
    inputs: list[int]
    outputs: list[int]

    def products(self) -> dict[str, float]:
        """FLOPs of matrix products by dtype, loops and dearest branches included."""
        total: dict[str, float] = {}
        for op in self.ops:
            if op.flops:
                dtype = np.dtype(self.values[op.ins[0]].dtype).name
                total[dtype] = total.get(dtype, 0.0) + op.flops
            found = [body.products() for body in op.inner]
            if op.name == "cond" and found:
                found = [max(found, key=lambda c: sum(c.values()))]
            for name, n in (item for c in found for item in c.items()):
                total[name] = total.get(name, 0.0) + op.times * n
        return total


def repeats(batch: int, own: int) -> int:
    """How often `own` images make a whole number of groups, if `batch` images do."""
    groups = math.gcd(batch, GROUPS)
    return groups // math.gcd(groups, own)


def local(shape: Sequence[int], times: int = 1) -> tuple[tuple[int, ...], bool]:
    """A traced shape without MARK and the batch's repeats, and whether MARK was in it."""
    if not any(n and n % MARK == 0 for n in shape):
        return tuple(shape), False
    sizes = []
    for n in shape:
        if n and n % MARK == 0:
            n //= math.gcd(n, times)
        while n and n % MARK == 0:
            n //= MARK
        sizes.append(n)
    return tuple(sizes), True


class _Flattener:
    """Writes jaxprs out into one list of operations."""

    def __init__(self, times: int) -> None:
        self.times = times
        self.values: list[Value] = []
        self.ops: list[Op] = []

    def value(self, aval: Any) -> int:
        shape, batch = local(getattr(aval, "shape", ()), self.times)
        self.values.append(Value(shape, getattr(aval, "dtype", np.dtype("float32")), batch))
        return len(self.values) - 1

    def run(self, jaxpr: Any, inputs: Sequence[int]) -> list[int]:
        """Appends the equations of `jaxpr` and returns its outputs."""
        env: dict[Any, int] = dict(zip(jaxpr.invars, inputs))
        for v in jaxpr.constvars:
            env[v] = self.value(v.aval)

        def read(v: Any) -> int:
            return self.value(v.aval) if hasattr(v, "val") else env[v]

        for eqn in jaxpr.eqns:
            ins = [read(v) for v in eqn.invars]
            for v, number in zip(eqn.outvars, self.equation(eqn, ins)):
                env[v] = number
        return [read(v) for v in jaxpr.outvars]

    def equation(self, eqn: Any, ins: list[int]) -> list[int]:
        name, inner = eqn.primitive.name, flops.bodies(eqn)
        if name in ALIASES:
            return ins
        if name in LOOPS:
            outs = [self.value(v.aval) for v in eqn.outvars]
            times = eqn.params["length"] if name == "scan" else 1
            if name == "while":
                inner = [b for b in inner if len(b.outvars) == len(eqn.outvars)]
            inner = tuple(flatten(b, self.times) for b in inner)
            self.ops.append(Op(name, tuple(ins), tuple(outs), 0, inner, times))
            return outs
        body = flops.expanded(eqn) or (inner[0] if inner else None)
        if body is not None and len(body.invars) == len(ins):
            return self.run(body, ins)
        outs = [self.value(v.aval) for v in eqn.outvars]
        op = Op(name, tuple(ins), tuple(outs))
        if name in PRODUCTS:
            shape = lambda v: local(v.aval.shape, self.times)[0]
            op.flops, op.sides = flops.of_product(eqn, shape), flops.sides(eqn, shape)
        self.ops.append(op)
        return outs


def flatten(jaxpr: Any, times: int = 1) -> Program:
    """The program of a jaxpr, without operations whose results nobody reads.

    Args:
      jaxpr: traced with MARK times `times` a chip's images. times: see `repeats`.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    f = _Flattener(times)
    inputs = [f.value(v.aval) for v in jaxpr.invars]
    outputs = f.run(jaxpr, inputs)
    needed, kept = set(outputs), []
    for op in reversed(f.ops):
        if needed.intersection(op.outs):
            needed.update(op.ins)
            kept.append(op)
    return Program(f.values, kept[::-1], inputs, outputs)


@dataclasses.dataclass
class Part:
    """One program of the step: its phases, due every `every` steps.

    names: of the inputs: "params/network/...", "batch/image" and so on. unbounded: loops whose
    length the trace does not tell.
    """

    phases: tuple[str, ...]
    every: int
    program: Program
    names: list[str]
    unbounded: list[str]


def parts(plan: Plan, data: Mapping[str, Any], *, share: int, microbatches: int = 1) -> list[Part]:
    """The programs of a plan's step in the shapes of one chip.

    Args:
      plan: what to train. data: structs of the global batch, by name. share: the chips that the
        batch is divided over. microbatches: parts that a chip's share is processed in.
    """
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    whole = next(iter(data.values())).shape[0]
    times = repeats(whole // microbatches, whole // share // microbatches)
    batch = whole // share * times * MARK
    data = {n: jax.ShapeDtypeStruct((batch, *x.shape[1:]), x.dtype) for n, x in data.items()}
    state = states.abstract(plan, mesh)
    step = steps.jit_step(plan, state, batch=batch, mesh=mesh, microbatches=microbatches)
    frozen = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, dict(plan.frozen)))
    key = jax.eval_shape(lambda: jax.random.key(0))
    words = {"0": "", "1": "batch/", "2": "frozen/"}
    names = [words[n[0]] + n[2:] for n in trees.leaves([state, data, frozen])]
    found: list[Part] = []
    for phases, every, traced in zip(step.phases, step.every, step.trace(state, data, frozen, key)):
        jaxpr = traced.jaxpr.jaxpr
        before = ["metrics"] * (len(jaxpr.invars) - len(names) - 1)
        program = flatten(jaxpr, times)
        found.append(Part(phases, every, program, [*before, *names, "key"], flops.unbounded(jaxpr)))
    return found

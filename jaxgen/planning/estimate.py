"""What a plan needs on a topology: memory a chip, operations, collectives, time. Nothing runs."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import NamedSharding

from jaxgen.common import mesh as meshes
from jaxgen.common import sharding, trees
from jaxgen.planning import collectives, memory, program, roofline
from jaxgen.planning.chips import GIB, Topology
from jaxgen.train import state as states
from jaxgen.train.plan import Plan

STATE = ("parameters", "optimizer", "averages", "frozen", "batch", "other")
WORK = ("activations", "weights", "gradients")


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Bytes and FLOPs are those of one chip, and of an average step where phases are lazy.

    memory: kind -> bytes at the fullest moment: STATE is what the step is given, WORK what it makes
    (activations kept for the backward pass, gathered or cast weights, gradients), "padding" what
    tiles add to STATE. need: their sum. traffic: bytes between HBM and the chip. seconds: of a
    step, "compute" and "collectives" apart. programs: the same by program. mfu: products, with what
    remat repeats, as a share of the peak.
    """

    topology: str
    mesh: dict[str, int]
    batch: int
    microbatches: int
    images: int
    memory: dict[str, int]
    need: int
    hbm: int
    flops: dict[str, float]
    traffic: float
    collectives: list[dict[str, Any]]
    seconds: dict[str, float]
    mfu: float
    images_per_second: float
    days: float
    chip_hours: float
    programs: list[dict[str, Any]]
    notes: list[str]

    @property
    def fits(self) -> bool:
        """Whether the need is within the chip's memory."""
        return self.need <= self.hbm

    @property
    def chips(self) -> int:
        """All of them."""
        return math.prod(self.mesh.values())

    def json(self) -> dict[str, Any]:
        """As plain values, with `fits`."""
        return dataclasses.asdict(self) | {"fits": self.fits}


def structs(shape: tuple[int, ...], dtype: Any, labels: str, label_dim: int, batch: int) -> dict:
    """A global batch as the pipeline yields it, without arrays.

    Args:
      shape, dtype: of an image. labels: "none", "class" or "vector". label_dim: of vectors.
    """
    struct = jax.ShapeDtypeStruct
    found = {"image": struct((batch, *shape), dtype), "index": struct((batch,), "int32")}
    if labels == "class":
        found["label"] = struct((batch,), "int32")
    elif labels == "vector":
        found["label"] = struct((batch, label_dim), "float32")
    return found


def arguments(plan: Plan, mesh: meshes.AnyMesh, data: Mapping[str, Any]) -> tuple[Any, ...]:
    """(state, data, frozen, key) of the step as structs with shardings on the mesh.

    Raises:
      ValueError: naming a leaf that no sharding rule matches or that its rule cannot split.
    """
    put = lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s)
    lies = meshes.batch_sharding(mesh)
    frozen = jax.eval_shape(lambda: jax.tree.map(jax.numpy.asarray, dict(plan.frozen)))
    frozen = jax.tree.map(put, frozen, states.frozen_shardings(plan, mesh))
    key = put(jax.eval_shape(lambda: jax.random.key(0)), meshes.replicated(mesh))
    data = {n: put(x, lies) for n, x in data.items()}
    return states.abstract(plan, mesh), data, frozen, key


def estimate(
    plan: Plan,
    topology: Topology,
    mesh: meshes.AnyMesh,
    data: Mapping[str, Any],
    *,
    microbatches: int = 1,
    images: int = 0,
) -> Estimate:
    """Estimates the plan's step.

    Args:
      plan: what to train. topology: chips and how they are joined. mesh: abstract or of devices.
      data: structs of the global batch, see `structs`. microbatches: of the step. images: length
        of training, for days and chip-hours.
    Raises:
      ValueError: a batch that does not divide, a leaf that cannot be split.
    """
    batch = next(iter(data.values())).shape[0]
    meshes.check_batch(batch, mesh, microbatches)
    state, data, frozen, _ = arguments(plan, mesh, data)
    tpu, rates = topology.chip.kind == "tpu", roofline.rates(topology)
    size = memory.padded if tpu else memory.plain
    held = {"parameters": state.params, "optimizer": state.opt, "averages": state.averages,
            "frozen": frozen, "batch": data, "other": (state.stats, state.guard)}  # fmt: skip
    parts = {kind: [_part(x) for x in jax.tree.leaves(tree)] for kind, tree in held.items()}
    given = {kind: sum(v.nbytes for v in values) for kind, values in parts.items()}
    full = sum(size(v) for values in parts.values() for v in values)
    fsdp, tensor = mesh.shape["fsdp"], mesh.shape["tensor"]
    share = meshes.batch_parts(mesh)
    few = batch // share // microbatches < memory.PIECES
    rules = memory.Rules(
        size,
        _Split(mesh),
        rates.seconds,
        gathered=fsdp > 1,
        into_products=tpu and not few,  # what is folded is stored
        pieces=(memory.PIECES if few else 1) if tpu else 0,
    )
    params = {f"params/{n}": x for n, x in trees.leaves(state.params).items()}
    programs, sent, notes = [], [], []
    for part in program.parts(plan, data, share=share, microbatches=microbatches):
        peak = memory.peak(part.program, rules, part.program.outputs)
        trained = {p for phase in plan.phases if phase.name in part.phases for p in phase.trains}
        traffic = collectives.of_part(part, params, sorted(trained), microbatches, topology)
        flops = {n: x / tensor for n, x in part.program.products().items()}
        found = {
            "phases": list(part.phases),
            "every": part.every,
            "memory": {kind: getattr(peak, kind) for kind in WORK},
            "flops": flops,
            "traffic": peak.traffic,
            "compute": peak.seconds / tensor,
            "collectives": roofline.links(traffic, mesh.shape, topology),
        }
        found["seconds"] = roofline.step(found["compute"], found["collectives"])
        programs.append(found)
        sent += [dataclasses.replace(t, bytes=t.bytes / part.every, near=t.near / part.every,
                                     outside=t.outside / part.every) for t in traffic]  # fmt: skip
        notes += [f"the loop {n!r} is counted for one turn: its length is not known" for n in
                  part.unbounded]  # fmt: skip
    fullest = max(programs, key=lambda p: sum(p["memory"].values()))["memory"]
    used = {**given, "padding": full - sum(given.values()), **fullest}
    mean = lambda key: sum(p[key] / p["every"] for p in programs)
    flops = {}
    for p in programs:
        for name, n in p["flops"].items():
            flops[name] = flops.get(name, 0.0) + n / p["every"]
    seconds = {key: mean(key) for key in ("compute", "collectives", "seconds")}
    step = seconds["step"] = seconds.pop("seconds")
    peaks = {"bfloat16": topology.chip.bf16, "float16": topology.chip.bf16}
    busy = sum(n / (peaks.get(d, topology.chip.f32) * 1e12) for d, n in flops.items())
    if tpu and few:
        notes.append(
            f"with fewer than {memory.PIECES} images at a time on a TPU, XLA folds rows of pixels "
            "into the batch: what convolutions read and write is held in both forms"
        )
    if tensor > 1:
        notes.append("tensor is taken to divide all products; activations count whole")
    return Estimate(
        topology=str(topology),
        mesh={a: int(n) for a, n in mesh.shape.items()},
        batch=batch,
        microbatches=microbatches,
        images=images,
        memory=used,
        need=sum(used.values()),
        hbm=round(topology.chip.hbm * GIB),
        flops=flops,
        traffic=mean("traffic"),
        collectives=[dataclasses.asdict(t) for t in collectives.total(sent)],
        seconds=seconds,
        mfu=busy / step if step else 0.0,
        images_per_second=batch / step if step else 0.0,
        days=images / batch * step / 86400,
        chip_hours=images / batch * step / 3600 * topology.chips,
        programs=programs,
        notes=[*roofline.ASSUMPTIONS, *notes],
    )


def _part(x: Any) -> program.Value:
    """What one chip holds of a struct."""
    return program.Value(tuple(x.sharding.shard_shape(x.shape)), x.dtype, False)


class _Split:
    """The share of a gradient or update that a chip keeps, by the rule on shapes."""

    def __init__(self, mesh: meshes.AnyMesh):
        self.mesh, self.known = mesh, {}

    def __call__(self, value: program.Value) -> float:
        key = value.shape, value.dtype
        if key not in self.known:
            if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
                return 1.0
            struct = jax.ShapeDtypeStruct(value.shape, value.dtype)
            spec = sharding.shape_spec(struct, self.mesh)
            part = NamedSharding(self.mesh, spec).shard_shape(value.shape)
            self.known[key] = math.prod(part) / max(math.prod(value.shape), 1)
        return self.known[key]

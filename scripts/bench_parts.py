"""What a training step on a mesh is made of, measured in one process of a case of bench_scaling.py.

Five things, each by its own clock: the step as `jaxgen train` runs it, fed by the pipeline;
computing alone, one program that runs on every device the step of one device on this device's
share of the batch, without any collective; the collectives alone, one program of those that stand
in the compiled step, of the same kinds, sizes and groups; waiting for input; what a save holds up.
A profile could not tell them apart on virtual devices: there a collective's time is mostly waiting
for devices whose turn on the cores has not come.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen import recipes
from jaxgen.cli import common
from jaxgen.common import mesh as meshes
from jaxgen.common import processes
from jaxgen.data import pipeline
from jaxgen.planning import hlo
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.plan import Plan
from jaxgen.train.store import Store, write_json

Call = Callable[[], Any]


def rounds(call: Call, calls: int, repeats: int) -> dict[str, float]:
    """Seconds of a call: the spread over rounds of `calls` calls, after one that is not counted.

    The number of calls is fixed, so that all processes make the same.
    """
    found = []
    for _ in range(repeats + 1):
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("round")
        start = time.perf_counter()
        for _ in range(calls):
            out = call()
        jax.block_until_ready(out)
        found.append((time.perf_counter() - start) / calls)
    return measure.spread(found[1:])


def shares(plan: Plan, batch: int, mesh: Any) -> Callable[..., Any]:
    """The step of one device on its share of the batch, on every device at once, each by itself.

    Takes a state whose leaves have a leading axis of devices. Raises RuntimeError if the compiled
    program should hold a collective.
    """
    local = steps.make_step(plan, batch=batch // mesh.size)
    every = P(meshes.AXES)

    def alone(state: Any, data: Any, frozen: Any, key: jax.Array) -> Any:
        new, metrics = local(jax.tree.map(lambda x: x[0], state), data, frozen, key)
        return jax.tree.map(lambda x: x[None], (new, metrics))

    mapped = jax.shard_map(
        alone, mesh=mesh, in_specs=(every, every, P(), P()), out_specs=every, check_vma=False
    )
    jitted = jax.jit(mapped, donate_argnums=0)

    def compiled(*args: Any) -> Any:
        program = jitted.lower(*args).compile()
        sent = hlo.Module(program.as_text()).each()
        if sent:
            raise RuntimeError(f"the program of one device holds collectives: {sent[:3]}")
        return program

    return compiled


def axes_of(mesh: Any, group: int) -> tuple[str, ...]:
    """The mesh axes over which a collective of `group` devices runs.

    Raises:
      RuntimeError: no axes have that product.
    """
    names = [n for n in meshes.AXES if mesh.shape[n] > 1]
    for k in range(1, len(names) + 1):
        for some in itertools.combinations(names, k):
            if math.prod(mesh.shape[n] for n in some) == group:
                return some
    raise RuntimeError(f"no axes of {dict(mesh.shape)} have {group} devices in a group")


def collectives_of(program: Any) -> list[hlo.Collective]:
    """Those of a program by shard_map, which gives all of them one channel: each counts here."""
    return hlo.Module(re.sub(r"channel_id=\d+", "", program.as_text())).each()


def only_collectives(mesh: Any, sent: Sequence[hlo.Collective]) -> tuple[Call, Any] | None:
    """Nothing but these collectives, on float32: a call, its program; None when there are none.

    Raises:
      RuntimeError: the compiler made another number of them of it.
    """
    kinds, sizes = [], []
    for c in itertools.chain.from_iterable([c] * c.runs for c in sent):
        axes = axes_of(mesh, c.group) if c.group else tuple(mesh.axis_names)
        n = math.prod(mesh.shape[a] for a in axes)
        kinds.append((c.kind, axes, n))
        whole = math.ceil(c.bytes / 4 / n) * n  # of the larger side
        sizes.append(whole // n if c.kind == "all-gather" else whole)
    if not kinds:
        return None

    def one(kind: str, axes: tuple[str, ...], n: int, x: jax.Array) -> jax.Array:
        if kind == "all-reduce":
            return jax.lax.psum(x, axes)
        if kind == "all-gather":
            return jax.lax.all_gather(x, axes, tiled=True)
        if kind == "reduce-scatter":
            return jax.lax.psum_scatter(x, axes, tiled=True)
        if kind == "all-to-all":
            return jax.lax.all_to_all(x, axes, 0, 0, tiled=True)
        return jax.lax.ppermute(x, axes, [(i, (i + 1) % n) for i in range(n)])

    every = P(meshes.AXES)
    program = jax.jit(
        jax.shard_map(
            lambda xs: [one(*k, x) for k, x in zip(kinds, xs)],
            mesh=mesh, in_specs=(every,), out_specs=every, check_vma=False,
        )
    )  # fmt: skip
    fill = lambda: [jnp.ones((size * mesh.size,)) for size in sizes]
    xs = jax.jit(fill, out_shardings=NamedSharding(mesh, every))()
    compiled = program.lower(xs).compile()
    found = len(collectives_of(compiled))
    if found != len(kinds):
        raise RuntimeError(f"asked for {len(kinds)} collectives alone, the compiler made {found}")
    return lambda: compiled(xs), compiled


def by_kind(sent: Sequence[hlo.Collective]) -> dict[str, dict[str, int]]:
    """kind -> number and bytes of a step."""
    found: dict[str, dict[str, int]] = {}
    for c in sent:
        at = found.setdefault(c.kind, {"number": 0, "bytes": 0})
        at["number"] += c.runs
        at["bytes"] += c.runs * c.bytes
    return found


class Feed:
    """Steps as the loop makes them: the next batch, the step, at most two queued."""

    def __init__(self, step: steps.Step, state: Any, batches: Any, frozen: Any, key: jax.Array):
        self.step, self.state, self.batches, self.rest = step, state, batches, (frozen, key)
        self.done, self.queue = 0, []

    def __call__(self) -> Any:
        """One step; returns its metrics."""
        self.state, metrics = self.step(self.state, next(self.batches), *self.rest, self.done)
        self.done += 1
        self.queue = [*self.queue[-2:], metrics]
        if len(self.queue) > 2:
            jax.block_until_ready(self.queue[0])
        return metrics


def case(config: Any, calls: int, repeats: int) -> dict[str, Any]:
    """All that is measured of one mesh. Seconds are of a step; see the module's text."""
    mesh, batch = common.make_mesh(config), config.batch
    if mesh.shape["tensor"] > 1:
        raise ValueError("mesh.tensor must be 1: a layer that is split has no share to run alone")
    meshes.check_batch(batch, mesh)
    source = common.load_source(config.data.source, "train")
    plan = common.last_stage(recipes.build(config, common.source_facts(source, config)))
    plan = dataclasses.replace(plan, phases=[p for p in plan.phases if p.every == 1])
    state = states.create(plan, config.seed, mesh)
    nbytes = sum(x.nbytes for x in jax.tree.leaves(state))
    frozen = steps.put_frozen(plan, mesh)
    key = meshes.place(jax.random.key(config.seed), meshes.replicated(mesh))
    rows = meshes.local_rows(mesh, batch)
    host = pipeline.batches(source, batch, config.seed, rows=rows)
    with pipeline.to_device(host, lambda b: meshes.put_batch(b, mesh)) as batches:
        data = next(batches)
        step = steps.jit_step(plan, state, batch=batch, mesh=mesh)
        step.compile(state, data, frozen, key)
        sent = [c for p in step.programs for c in hlo.Module(p.as_text()).each()]
        stack = jax.jit(
            lambda s: jax.tree.map(lambda x: jnp.broadcast_to(x, (mesh.size, *x.shape)), s),
            out_shardings=NamedSharding(mesh, P(meshes.AXES)),
        )
        held = [stack(state)]
        alone = shares(plan, batch, mesh)(held[0], data, frozen, key)
        processes.meet()  # they compile for longer than gloo waits

        def compute() -> Any:
            held[0], metrics = alone(held[0], data, frozen, key)
            return metrics

        feed = Feed(step, state, batches, frozen, key)
        for _ in range(3):
            jax.block_until_ready(feed())
        waited = batches.wait_seconds
        first = feed.done
        found: dict[str, Any] = {"step": rounds(feed, calls, repeats)}
        found["input"] = (batches.wait_seconds - waited) / (feed.done - first)
        found["compute"] = rounds(compute, calls, repeats)
        del held[:]
        send = only_collectives(mesh, sent)
        found["collectives"] = rounds(send[0], calls, repeats) if send else measure.spread([0.0])
        found["save"] = saves(feed, repeats)
    kept = {"batch": batch, "mesh": dict(mesh.shape), "state_bytes": nbytes}
    return {**found, **kept, "sent": by_kind(sent), "processes": jax.process_count()}


def saves(feed: Feed, repeats: int) -> dict[str, float]:
    """What a save of the state holds the caller up, the spread over `repeats` after the first."""
    with contextlib.ExitStack() as stack:
        folder = ""
        if jax.process_index() == 0:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
        if jax.process_count() > 1:  # of one machine: the first process's folder, for all
            text = jnp.array([*folder.encode().ljust(256)], jnp.uint8)
            folder = bytes(multihost_utils.broadcast_one_to_all(text)).decode().strip()
        stalls = []
        with Store(folder, keep=1) as store:
            for i in range(repeats + 1):
                jax.block_until_ready((feed(), feed.state))
                stalls.append(store.save(i + 1, {"state": feed.state}, {}))
                jax.block_until_ready(feed())
                store.wait()
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices("saved")
    return measure.spread(stalls[1:])


def main(argv: list[str]) -> int:
    """One process of a case: the path of its JSON description, this process's number."""
    spec = json.loads(Path(argv[0]).read_text())
    common.setup_jax()
    place = None
    if spec["processes"] > 1:
        place = processes.Place(spec["coordinator"], spec["processes"], int(argv[1]))
    with processes.joined(place):
        config = common.load_config(spec["config"], spec["overrides"])
        found = case(config, spec["steps"], spec["repeats"])
        if jax.process_index() == 0:
            write_json(Path(spec["out"]), {**found, "machine": measure.machine()})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

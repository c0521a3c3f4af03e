"""The machine that this runs on: its chips, and the real step compiled and timed on it."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.common import mesh as meshes
from jaxgen.planning.chips import CHIPS, GIB, Chip, Topology, match
from jaxgen.planning.estimate import arguments
from jaxgen.train import step as steps
from jaxgen.train.plan import Plan

SIDE = 1024  # of the square products that a CPU is timed with


@dataclasses.dataclass(frozen=True)
class Measured:
    """Of the compiled step. need, arguments: bytes a device of the fullest program, None where the
    compiler does not say. seconds: of a step, median. compile_seconds: of all programs.
    """

    need: int | None
    arguments: int | None
    seconds: float
    compile_seconds: float


def topology() -> Topology:
    """This machine's devices.

    Raises:
      ValueError: for an accelerator that is not in the table of chips.
    """
    devices = jax.devices()
    kind, n = devices[0].device_kind, len(devices)
    if devices[0].platform == "cpu":
        return Topology("cpu", (n,), row=cpu(n))
    name = match(kind)
    if name is None:
        raise ValueError(
            f"--topology here: there is no row for {kind!r} in jaxgen/planning/chips.py; name a "
            f"topology of {list(CHIPS)}"
        )
    return Topology(name, (n,), row=CHIPS[name]._replace(dims=0, slice=0))


def cpu(devices: int) -> Chip:
    """What one of this many CPU devices has of the machine: memory, and rates timed just now."""
    import os

    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    a = jnp.ones((SIDE, SIDE), jnp.float32)
    product = rate(jax.jit(lambda a: a @ a), a, 2.0 * SIDE**3) / 1e12
    big = jnp.ones((16 * SIDE, SIDE), jnp.float32)
    copied = rate(jax.jit(lambda a: a + 1), big, 2.0 * big.nbytes) / 1e9
    share = lambda x: x / devices
    return Chip(
        hbm=share(pages / GIB),
        bf16=share(product),
        f32=share(product),
        bandwidth=share(copied),
        link=share(copied),
        outside=share(copied),
        host=devices,
        dims=0,
        slice=0,
        kind="cpu",
    )


def rate(fn: Callable[[jax.Array], jax.Array], x: jax.Array, work: float, runs: int = 5) -> float:
    """The best of `work` a second in a few runs of fn(x)."""
    jax.block_until_ready(fn(x))
    best = float("inf")
    for _ in range(runs):
        start = time.perf_counter()
        jax.block_until_ready(fn(x))
        best = min(best, time.perf_counter() - start)
    return work / best


def measure(
    plan: Plan, mesh: Any, data: Mapping[str, Any], *, microbatches: int = 1, runs: int = 3
) -> Measured:
    """Compiles the plan's step for this machine and times it on zeros; lazy phases by their share.

    Args:
      plan: what to train. mesh: of this machine's devices. data: structs of the global batch.
      runs: of each program, after one that is not timed.
    """
    args = arguments(plan, mesh, data)
    batch = next(iter(data.values())).shape[0]
    step = steps.jit_step(plan, args[0], batch=batch, mesh=mesh, microbatches=microbatches)
    step.compile(*args)
    need = held = None
    for program in step.programs:
        m = program.memory_analysis()
        if m is not None:
            given = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
            if given + m.temp_size_in_bytes > (need or 0):
                need, held = given + m.temp_size_in_bytes, m.argument_size_in_bytes
    fill = jax.jit(lambda: jax.tree.map(zeros, args[:3]), out_shardings=jax.tree.map(lie, args[:3]))
    state, batch_of_zeros, frozen = fill()
    key = jax.device_put(jax.random.key(0), meshes.replicated(mesh))
    seconds = 0.0
    before: dict[str, Any] = {}
    for program, every in zip(step.programs, step.every):
        times = []
        for _ in range(runs + 1):
            start = time.perf_counter()
            state, metrics = program(before, state, batch_of_zeros, frozen, key)
            jax.block_until_ready((state, metrics))
            times.append(time.perf_counter() - start)
        before = metrics
        seconds += statistics.median(times[1:]) / every
    return Measured(need, held, seconds, step.trace_seconds + step.compile_seconds)


def zeros(x: Any) -> jax.Array:
    """Of a struct."""
    return jnp.zeros(x.shape, x.dtype)


def lie(x: Any) -> Any:
    """A struct's sharding."""
    return x.sharding

"""Measuring for benchmarks: spreads, a machine's ceiling, memory (FLOPs: planning/flops.py)."""

import math
import os
import resource
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxgen.common import mesh as meshes
from jaxgen.common import provenance

LEAST_SECONDS = 0.3  # of one repeat: short things are repeated within it


def forget_cache() -> None:
    """From here on everything is compiled, nothing taken from the compilation cache on disk."""
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()


def clock(fn: Callable[[], Any]) -> float:
    """Seconds of one call, its arrays waited for."""
    start = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - start


def spread(seconds: list[float]) -> dict[str, float]:
    """median, min, max and quartiles."""
    q1, q3 = (float(q) for q in np.quantile(seconds, (0.25, 0.75)))
    of = {"median": statistics.median(seconds), "min": min(seconds), "max": max(seconds)}
    return {**of, "q1": q1, "q3": q3}


def repeat(
    *fns: Callable[[], Any], repeats: int, warmup: int, multiple: int = 1, most: int = 1000
) -> list[dict[str, float]]:
    """Seconds of a call of each function, done in rounds that last LEAST_SECONDS or more.

    Functions take turns, so that they meet the same load of the machine. A round has a multiple of
    `multiple` calls, so that it holds every lazy phase equally often.
    """

    def calls_of(fn: Callable[[], Any]) -> int:
        first = min(clock(fn) for _ in range(max(warmup, 1)))
        return math.ceil(min(max(LEAST_SECONDS / max(first, 1e-9), 1), most) / multiple) * multiple

    def several(fn: Callable[[], Any], calls: int) -> float:
        def run() -> Any:
            for _ in range(calls):
                out = fn()
            return out

        return clock(run) / calls

    calls = [calls_of(fn) for fn in fns]
    rounds = [[several(fn, n) for fn, n in zip(fns, calls)] for _ in range(repeats)]
    return [spread(list(seconds)) for seconds in zip(*rounds)]


def ceiling(mesh: Any, dtype: Any) -> dict[str, Any]:
    """The best rate of square matrix products of `dtype`, one on each device at a time."""
    sizes = (768, 1536) if jax.default_backend() == "cpu" else (4096, 8192, 16384)
    best: dict[str, Any] = {"flops_per_second": 0.0}
    for n in sizes:
        fill = jax.jit(
            lambda k, n=n: jax.random.normal(k, (mesh.size, n, n), dtype) / n**0.5,
            out_shardings=meshes.batch_sharding(mesh),
        )
        w, held = fill(jax.random.key(0)), [fill(jax.random.key(1))]
        product = jax.jit(lambda a, b: (a @ b).astype(dtype))

        def chain(product: Any = product, held: list = held, w: Any = w) -> Any:
            held[0] = product(held[0], w)
            return held[0]

        (seconds,) = repeat(chain, repeats=5, warmup=2, most=200)
        rate = 2.0 * mesh.size * n**3 / seconds["min"]
        if rate > best["flops_per_second"]:
            best = {"flops_per_second": rate, "size": n, "dtype": jnp.dtype(dtype).name}
    return best


def memory(*compiled: Any) -> dict[str, int]:
    """Peaks in bytes: of the largest compiled program a device, of the device, of the process."""
    found = {"process_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    with_stats = jax.devices()[0].memory_stats()
    if with_stats and "peak_bytes_in_use" in with_stats:
        found["device_peak"] = with_stats["peak_bytes_in_use"]
    held = lambda m: m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
    sizes = [m for m in (c.memory_analysis() for c in compiled) if m is not None]
    if sizes:
        m = max(sizes, key=lambda m: held(m) + m.temp_size_in_bytes)
        found["program"] = held(m) + m.temp_size_in_bytes
        found["program_temporaries"] = m.temp_size_in_bytes
        found["program_donated"] = m.alias_size_in_bytes
    return found


def process_peak(fn: Callable[[], Any]) -> tuple[Any, int | None]:
    """(fn(), bytes by which the process grew at most during it; None where Linux cannot tell)."""

    def status(name: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(x.split()[1]) * 1024 for x in lines if x.startswith(f"{name}:"))

    try:
        Path("/proc/self/clear_refs").write_text("5")  # the peak is forgotten
        before = status("VmRSS")
    except (OSError, StopIteration):
        return fn(), None
    return fn(), max(status("VmHWM") - before, 0)


def xla_flops(compiled: Any) -> float | None:
    """XLA's count a device; a loop body once."""
    cost = compiled.cost_analysis()
    cost = cost[0] if isinstance(cost, (list, tuple)) and cost else cost
    return float(cost["flops"]) if cost and cost.get("flops", 0) > 0 else None


def machine() -> dict[str, Any]:
    """Versions, devices, host and its load."""
    return {**provenance.facts(), "load": os.getloadavg()[0]}

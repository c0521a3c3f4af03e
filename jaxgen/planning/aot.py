"""The real step, compiled ahead of time for TPUs that are not here: what the compiler says of it.

Needs libtpu (pip install "jaxgen[tpu]"), not a TPU. Convolutions compile slowly, about ten seconds
of one core for each with its gradients, so what was found is kept as JSON: one file a program in
`$XDG_CACHE_HOME/jaxgen/aot` (by default ~/.cache), named by a hash of the program's text, the
topology and the compiler's version. Anything that changes the program changes its name.
"""

import dataclasses
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache
from jax.sharding import Mesh

from jaxgen.planning import hlo
from jaxgen.planning.estimate import arguments
from jaxgen.train import step as steps
from jaxgen.train.plan import Plan
from jaxgen.train.store import write_json

READ = 1  # of what is read from a program's text; a higher number makes old files count no more


@dataclasses.dataclass(frozen=True)
class Program:
    """What the compiler says of one program of the step; bytes and FLOPs of one device.

    phases: what it runs, every `every` steps. arguments, outputs: the state, the batch and what is
    frozen; aliased: outputs that lie where the arguments lay (donated). temporary: all else in HBM,
    as XLA says it, with the holes between arrays counted twice. need: these together. code: the
    program itself. flops: XLA's, with every round of loops. collectives: kind -> (runs, bytes), see
    `hlo.Module`. cycles: the compiler's estimate of all but collectives, 0 where it makes none.
    seconds: compiling took, of the clock.
    """

    phases: tuple[str, ...]
    every: int
    arguments: int
    outputs: int
    aliased: int
    temporary: int
    need: int
    code: int
    flops: float
    collectives: Mapping[str, tuple[int, int]]
    cycles: int
    seconds: float


class DoesNotFit(ValueError):
    """A program that needs more memory than a device has."""


def devices(topology: str, slices: int = 1) -> list[Any]:
    """The devices of "v5p:8x8x8", of several slices; nothing can run on them.

    Raises:
      ValueError: libtpu is not installed, or does not know the topology.
    """
    if not importlib.util.find_spec("libtpu"):
        raise ValueError(
            "compiling for TPUs needs libtpu, which is not installed here; "
            'pip install "jaxgen[tpu]" (no TPU is needed), or leave --compile out for an estimate'
        )
    # Without these libtpu asks a metadata server for a TPU, and refuses a second process.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    from jax.experimental import topologies

    try:
        found = topologies.get_topology_desc(topology, "tpu", num_slices=slices)
    except (jax.errors.JaxRuntimeError, ValueError, RuntimeError) as e:
        raise ValueError(
            f"libtpu cannot describe {topology!r} x {slices} slices: {str(e).splitlines()[0]}"
        ) from e
    return list(found.devices)


def compile_step(
    plan: Plan,
    data: Mapping[str, Any],
    mesh: Mesh,
    *,
    microbatches: int = 1,
    cache: bool = True,
    log: Callable[[str], None] = lambda text: None,
) -> list[Program]:
    """Compiles all programs of the step, or reads what is known of them.

    Args:
      plan: what to train. data: structs of the global batch, by name. mesh: of the devices of a
        topology. microbatches: parts that a batch is processed in. cache: read and write files.
      log: is told what goes on, every half minute.
    Raises:
      DoesNotFit: the compiler runs out of the device's memory.
    """
    log("tracing the step")
    args = arguments(plan, mesh, data)
    batch = next(iter(data.values())).shape[0]
    step = steps.jit_step(plan, args[0], batch=batch, mesh=mesh, microbatches=microbatches)
    traced = step.trace(*args)
    found = []
    for number, (phases, every, program) in enumerate(zip(step.phases, step.every, traced)):
        lowered = program.lower()
        name = f"program {number + 1} of {len(traced)} ({', '.join(phases) or 'end of the step'})"
        path = cache_folder() / f"{_key(lowered, mesh)}.json"
        if cache and path.is_file():
            known = json.loads(path.read_text())
            log(f"{name}: known, compiled in {known['seconds']:.0f} s before")
        else:
            known = _compile(lowered, name, log)
            if cache:
                write_json(path, known)
        known["collectives"] = {k: tuple(v) for k, v in known["collectives"].items()}
        found.append(Program(phases, every, **known))
    return found


def cache_folder() -> Path:
    """Where what was found is kept."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "jaxgen" / "aot"


def _key(lowered: Any, mesh: Mesh) -> str:
    """A name for a program: its text, the devices by their places, versions."""
    places = [(d.device_kind, getattr(d, "slice_index", 0), *d.coords) for d in mesh.devices.flat]
    versions = [importlib.metadata.version(n) for n in ("jaxlib", "libtpu")]
    parts = (READ, lowered.as_text(), mesh.devices.shape, places, versions)
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:32]


def _compile(lowered: Any, name: str, log: Callable[[str], None]) -> dict[str, Any]:
    """What Program holds beside phases and every."""
    log(f"{name}: compiling, a network of convolutions takes minutes")
    start, done = time.perf_counter(), threading.Event()

    def tell() -> None:
        while not done.wait(30):
            log(f"{name}: {time.perf_counter() - start:.0f} s")

    threading.Thread(target=tell, daemon=True).start()
    # JAX's own cache can write such a program and not read it again.
    kept = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as e:
        raise _explained(e, name) from e
    finally:
        done.set()
        jax.config.update("jax_enable_compilation_cache", kept)
        compilation_cache.reset_cache()
    seconds = time.perf_counter() - start
    log(f"{name}: compiled in {seconds:.0f} s")
    return describe(compiled) | {"seconds": round(seconds, 1)}


def describe(compiled: Any) -> dict[str, Any]:
    """Memory, FLOPs, collectives and cycles of a jax.stages.Compiled, as Program names them."""
    memory, module = compiled.memory_analysis(), hlo.Module(compiled.as_text())
    arguments, outputs = memory.argument_size_in_bytes, memory.output_size_in_bytes
    aliased, code = memory.alias_size_in_bytes, memory.generated_code_size_in_bytes
    held = arguments + outputs - aliased
    temporary = memory.temp_size_in_bytes
    return {
        "arguments": arguments,
        "outputs": outputs,
        "aliased": aliased,
        "temporary": temporary,
        "code": code,
        "need": held + temporary,
        "flops": compiled.cost_analysis().get("flops", 0.0) + module.looped_flops(),
        "collectives": module.collectives(),
        "cycles": module.cycles(),
    }


def _explained(error: Exception, name: str) -> Exception:
    """An error of the compiler in words, if it is about memory; else as it is."""
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        return error
    sizes = _used_of(text)
    says = f"it needs {sizes[0]:.2f} of {sizes[1]:.2f} GiB" if sizes else text.splitlines()[0]
    return DoesNotFit(
        f"{name} does not fit the memory of a chip: {says}. More chips on --config.mesh.fsdp, "
        "--config.microbatches or --config.model.remat=true need less; --search tries them"
    )


def _used_of(text: str) -> tuple[float, float] | None:
    """(needed, there) in GiB from what XLA says when memory runs out."""
    unit = {"K": 2**-20, "M": 2**-10, "G": 1.0, "T": 2.0**10}
    for form in (
        r"Used ([\d.]+)([KMGT]) of ([\d.]+)([KMGT]) hbm",
        r"\(([\d.]+)([KMGT])\) exceeds available HBM \(([\d.]+)([KMGT])\)",
    ):
        if m := re.search(form, text):
            return float(m[1]) * unit[m[2]], float(m[3]) * unit[m[4]]
    return None


def combined(programs: Sequence[Program]) -> dict[str, Any]:
    """The step as a whole: the fullest memory, and work of an average step (lazy phases divided).

    Keys: need, temporary, arguments, code, flops, cycles, collectives (kind -> bytes), seconds.
    """
    mean = lambda field: sum(getattr(p, field) / p.every for p in programs)
    kinds = {k for p in programs for k in p.collectives}
    fullest = max(programs, key=lambda p: p.need)
    return {
        **{n: getattr(fullest, n) for n in ("need", "temporary", "arguments", "code")},
        "flops": mean("flops"),
        "cycles": mean("cycles"),
        "collectives": {
            k: sum(p.collectives.get(k, (0, 0))[1] / p.every for p in programs)
            for k in hlo.KINDS
            if k in kinds
        },
        "seconds": sum(p.seconds for p in programs),
    }

"""Traced steps, kept for the next process: a second start neither traces nor lowers the step.

A step is kept as StableHLO (`jax.export`), which holds no code of Python, in a file named by a
digest of all that it was traced from: the plan, the code, versions, settings of JAX, the mesh. What
is loaded is also compared with the arguments that it is to be called with. The first process
compiles what it wrote, so that all of them run the same program.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
from jax import export
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen.train import digest
from jaxgen.train.plan import Plan

MAGIC = b"jaxgen step 1\n"


def folder() -> Path | None:
    """`steps` in the folder of JAX's compilation cache; None where that is off, or is a URL."""
    where = jax.config.jax_compilation_cache_dir
    if not where or "://" in where or not jax.config.jax_enable_compilation_cache:
        return None
    return Path(where) / "steps"


def key(plan: Plan, mesh: Mesh, batch: int, microbatches: int) -> str:
    """The digest of all that a step is traced from but for its arguments.

    Raises:
      digest.OpaqueError: naming what cannot be looked into.
    """
    players = {n: (p.optimizer, p.project, p.fixed, p.sharding) for n, p in plan.players.items()}
    parts = players, list(plan.phases), plan.stats, plan.controllers, plan.averages, plan.sharding
    names = (n for n in sorted(jax.config.values) if "cache" not in n)
    settings = {n: repr(getattr(jax.config, n, None)) for n in names}
    device = mesh.devices.flat[0]
    where = dict(mesh.shape), device.platform, device.device_kind, jax.process_count()
    return digest.digest((parts, where, batch, microbatches, settings, digest.code()))


class Program:
    """A compiled program, called as `(metrics before, state, data, frozen, key)`.

    It was exported with flat arguments and results, since trees are a matter of Python.
    """

    def __init__(self, compiled: Any, metrics: Sequence[str]):
        self.compiled, self.metrics = compiled, tuple(metrics)

    def __call__(self, before: Any, state: Any, *rest: Any) -> tuple[Any, dict[str, jax.Array]]:
        """(state, metrics); the arrays of `state` are given away."""
        leaves, tree = jax.tree.flatten(state)
        out = self.compiled(*jax.tree.leaves(before), *leaves, *jax.tree.leaves(rest))
        n = len(leaves)
        return jax.tree.unflatten(tree, out[:n]), dict(zip(self.metrics, out[n:]))


def _describe(args: Any) -> str:
    """Names, shapes, dtypes and places of arguments, arrays or structs."""
    leaves, tree = jax.tree.flatten(args)
    words = [f"{x.dtype} {x.shape} {x.sharding.spec}" for x in leaves]
    return hashlib.sha256(repr((str(tree), words)).encode()).hexdigest()


class Kept:
    """The programs of one step, from a file or into it.

    Args:
      where: the folder. plan, mesh, batch, microbatches: as for `jit_step`. log: messages.
    """

    def __init__(
        self,
        where: Path,
        plan: Plan,
        mesh: Mesh,
        batch: int,
        microbatches: int,
        log: Callable[[str], None],
    ):
        self.mesh, self.log = mesh, log
        self.path: Path | None = None
        self._loading: Future | None = None
        try:
            self.path = where / key(plan, mesh, batch, microbatches)
        except digest.OpaqueError as e:
            log(f"the traced step is not kept for the next start: its plan holds {e}")
        if self.path and self.path.is_file():  # loaded while the state is made
            pool = ThreadPoolExecutor(1, "loads the step")
            self._loading = pool.submit(self._load)
            pool.shutdown(wait=False)

    def programs(self, args: Sequence[Any]) -> list[Program] | None:
        """What was kept, for these arguments of the step; None when there is nothing for them."""
        if self._loading is None:
            return None
        try:
            described, programs = self._loading.result()
        except (OSError, ValueError) as e:
            self.log(f"{self.path} cannot be used and is written anew: {e}")
            return None
        if described != _describe(args):
            return None
        self.log("the step was traced by an earlier start")
        return programs

    def make(self, jitted: Sequence[Any], traced: Sequence[Any], args: Any) -> list[Program] | None:
        """Exports, writes and compiles the programs; None when JAX cannot export them.

        Args:
          jitted: the functions of the step's programs. traced: as `Step.trace` gives them.
          args: of the step, arrays or structs with shardings.
        """
        if self.path is None:
            return None
        made, before = [], {}
        try:
            for program, found in zip(jitted, traced):
                made.append(self._export(program, found, (before, *args)))
                before = found.out_info[1]
        except (ValueError, NotImplementedError) as e:
            self.log(f"the traced step is not kept for the next start: {str(e).splitlines()[0]}")
            return None
        self._write(_describe(args), made)
        return self._compile(made)

    def _export(self, program: Any, traced: Any, args: Any) -> tuple[dict, bytes]:
        leaves, tree = jax.tree.flatten(args)
        before = len(jax.tree.leaves(args[0]))
        about = {
            "metrics": sorted(traced.out_info[1]),
            "state": [before, before + len(jax.tree.leaves(args[1]))],
            "specs": [[]] * before + [list(x.sharding.spec) for x in leaves[before:]],
        }

        def flat(*xs: jax.Array) -> list[jax.Array]:
            return jax.tree.leaves(program(*jax.tree.unflatten(tree, xs)))

        structs = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in leaves]
        made = export.export(jax.jit(flat, **self._places(about)))(*structs)
        return about, made.serialize()

    def _places(self, about: Mapping[str, Any]) -> dict[str, list[NamedSharding]]:
        """The shardings of a program's arguments and results."""
        entry = lambda x: tuple(x) if isinstance(x, list) else x
        put = lambda spec: NamedSharding(self.mesh, P(*map(entry, spec)))
        places = [put(spec) for spec in about["specs"]]
        out = places[slice(*about["state"])] + [put([])] * len(about["metrics"])
        return {"in_shardings": tuple(places), "out_shardings": out}

    def _compile(self, made: Sequence[tuple[Mapping[str, Any], bytes]]) -> list[Program]:
        def one(item: tuple[Mapping[str, Any], bytes]) -> Program:
            about, data = item
            exported = export.deserialize(bytearray(data))
            donated = tuple(range(*about["state"]))
            jitted = jax.jit(exported.call, donate_argnums=donated, **self._places(about))
            structs = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in exported.in_avals]
            return Program(jitted.lower(*structs).compile(), about["metrics"])

        with ThreadPoolExecutor(len(made)) as pool:
            return list(pool.map(one, made))

    def _write(self, described: str, made: Sequence[tuple[Mapping[str, Any], bytes]]) -> None:
        """The file: whole or not at all; a folder that cannot be written is no error."""
        about = [{**a, "bytes": len(data)} for a, data in made]
        header = json.dumps({"arguments": described, "programs": about}).encode() + b"\n"
        body = header + b"".join(data for _, data in made)
        whole = MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.path.parent, delete=False) as file:
                file.write(whole)
            os.replace(file.name, self.path)
        except OSError as e:
            self.log(f"the traced step is not kept for the next start: {e}")

    def _load(self) -> tuple[str, list[Program]]:
        """(description of the arguments, programs).

        Raises:
          ValueError: the file is damaged.
        """
        data = self.path.read_bytes()
        start = len(MAGIC) + 65
        if data[:start] != MAGIC + hashlib.sha256(data[start:]).hexdigest().encode() + b"\n":
            raise ValueError("its checksum does not fit")
        end = data.index(b"\n", start) + 1
        header = json.loads(data[start:end])
        made = []
        for about in header["programs"]:
            made.append((about, data[end : end + about["bytes"]]))
            end += about["bytes"]
        return header["arguments"], self._compile(made)

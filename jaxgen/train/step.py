"""The one training step: any plan, any number of players.

For each phase in order: per-example losses on the batch (in `microbatches` parts), their mean's
gradient for the players that the phase trains, the optax update, the projection, new values of
tracked leaves. A phase with `every > 1` is a program of its own. A gradient or loss that is not
finite leaves params, optimizer and stats as they were and is counted in the state's `guard`.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxgen import averaging
from jaxgen.common import mesh as meshes
from jaxgen.common import rng, trees
from jaxgen.train import state as states
from jaxgen.train.kept import Kept
from jaxgen.train.plan import Context, Phase, Plan
from jaxgen.train.state import TrainState

Metrics = dict[str, jax.Array]


def phase_key(key: jax.Array, step: jax.Array, phase: str) -> jax.Array:
    """The key of one phase of one step."""
    return rng.fold(key, step, phase)


def _split(tree: Any, parts: int) -> Any:
    """(b, ...) to (parts, b / parts, ...), each part taking every parts-th row.

    Strided, so that a part has rows on every device and nothing moves between devices.
    """
    return jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(x.shape[0] // parts, parts, *x.shape[1:]), 1, 0), tree
    )


def _check_fixed(plan: Plan, phase: Phase, params: Any, fixed: Mapping[str, Any]) -> None:
    """Raises ValueError, naming leaf and player, unless the phase may set the leaves of `fixed`."""
    for player, tree in fixed.items():
        leaves = trees.leaves(tree)
        if player not in phase.trains:
            raise ValueError(
                f"phase {phase.name!r} sets {sorted(leaves)} of {player!r}, but trains "
                f"{list(phase.trains)}; let a phase that trains {player!r} report them"
            )
        known = trees.leaves(params[player])
        held = trees.leaves(plan.fixed_mask(player, params[player]))
        for name, value in leaves.items():
            if not held.get(name):
                raise ValueError(
                    f"phase {phase.name!r} sets the leaf {name!r} of {player!r}, which is not one "
                    f"of its fixed leaves {sorted(n for n in held if held[n])}; name it in "
                    "Player(fixed=...)"
                )
            if jnp.shape(value) != known[name].shape:
                raise ValueError(
                    f"phase {phase.name!r} sets the leaf {name!r} of {player!r} to shape "
                    f"{jnp.shape(value)}, expected {known[name].shape}"
                )


def _put(tree: Any, new: Any) -> Any:
    """`tree` with the leaves of `new`, a part of it, in their places."""
    found = trees.leaves(new)
    return trees.map_named(
        lambda name, x: found[name].astype(x.dtype) if name in found else x, tree
    )


def run_phase(
    plan: Plan,
    phase: Phase,
    state: TrainState,
    data: Mapping[str, jax.Array],
    frozen: Mapping[str, Any],
    key: jax.Array,
    *,
    batch: int,
    microbatches: int = 1,
    mesh: Mesh | None = None,
) -> tuple[tuple, Metrics]:
    """One gradient update of `phase`: ((params, opt of the trained, stats, guard), metrics)."""
    keys = meshes.constrain_batch(rng.image_keys(key, batch), mesh)
    nimg = state.step.astype(jnp.float32) * batch
    trained = {n: state.params[n] for n in phase.trains}

    def mean_loss(trained: Any, part: Any, keys: jax.Array, stats: Any, i: jax.Array):
        context = Context(
            state.step, nimg, jax.random.fold_in(key, i), stats, frozen, state.averages
        )
        per_example, aux = phase.loss({**state.params, **trained}, part, keys, context)
        if per_example.shape != (batch // microbatches,):
            raise ValueError(
                f"the loss of phase {phase.name!r} must return one value an example, shape "
                f"({batch // microbatches},), got {per_example.shape}; reduce over pixels only"
            )
        unknown = sorted(set(aux.stats) - set(stats))
        if unknown:
            raise ValueError(
                f"phase {phase.name!r} reports stats {unknown} that the plan does not hold; give "
                "them an initial value in Plan(stats=...)"
            )
        _check_fixed(plan, phase, trained, aux.fixed)
        loss = per_example.astype(jnp.float32).mean()
        metrics = {n: jnp.mean(m.astype(jnp.float32)) for n, m in aux.metrics.items()}
        return loss, ({"loss": loss, **metrics}, {**stats, **aux.stats}, dict(aux.fixed))

    lies = None if mesh is None else states.param_shardings(plan, mesh, trained)

    def grad(*args: Any) -> Any:
        # Like the params, so that each device sums its part only (a reduce-scatter).
        grads, reported = jax.grad(mean_loss, has_aux=True)(*args)
        return (grads if lies is None else jax.lax.with_sharding_constraint(grads, lies)), reported

    if microbatches == 1:
        grads, (metrics, stats, fixed) = grad(trained, data, keys, dict(state.stats), jnp.int32(0))
    else:
        parts = _split((dict(data), keys), microbatches)

        def accumulate(carry: Any, part: Any):
            total, stats = carry
            (part, keys), i = part
            part, keys = meshes.constrain_batch((part, keys), mesh)
            g, (metrics, stats, fixed) = grad(trained, part, keys, stats, i)
            return (jax.tree.map(jnp.add, total, g), stats), (metrics, fixed)

        zeros = jax.tree.map(jnp.zeros_like, trained)
        zeros = zeros if lies is None else jax.lax.with_sharding_constraint(zeros, lies)
        (grads, stats), (metrics, fixed) = jax.lax.scan(
            accumulate, (zeros, dict(state.stats)), (parts, jnp.arange(microbatches))
        )
        grads = jax.tree.map(lambda g: g / microbatches, grads)
        metrics = jax.tree.map(jnp.mean, metrics)
        fixed = jax.tree.map(lambda x: x.mean(0), fixed)

    norm = optax.global_norm(grads)
    finite = jnp.isfinite(norm) & jnp.isfinite(metrics["loss"])
    params, opt = {}, {}
    for name in phase.trains:
        player = plan.players[name]
        updates, opt[name] = states.optimizer(player).update(
            grads[name], state.opt[name], trained[name], nimg=nimg
        )
        if player.fixed:
            held = trees.mask(player.fixed, updates)
            updates = jax.tree.map(lambda u, f: jnp.zeros_like(u) if f else u, updates, held)
        params[name] = optax.apply_updates(trained[name], updates)
        if player.project:
            params[name] = player.project(params[name])
        if name in fixed:
            params[name] = _put(params[name], fixed[name])
    old = (trained, {n: state.opt[n] for n in phase.trains}, dict(state.stats))
    new = jax.tree.map(lambda a, b: jnp.where(finite, a, b), (params, opt, stats), old)
    guard = state.guard[phase.name]
    in_a_row = jnp.where(finite, 0, guard["in_a_row"] + 1)
    guard = {
        "total": guard["total"] + jnp.where(finite, 0, 1),
        "in_a_row": in_a_row,
        "longest": jnp.maximum(guard["longest"], in_a_row),
    }
    return (*new, guard), {**metrics, "grad_norm": norm}


def _segments(plan: Plan) -> list[tuple[int, list[Phase]]]:
    """Neighbouring phases that are due together, as (every, phases); the last is always due."""
    found: list[tuple[int, list[Phase]]] = []
    for phase in plan.phases:
        if found and found[-1][0] == phase.every:
            found[-1][1].append(phase)
        else:
            found.append((phase.every, [phase]))
    return found if found and found[-1][0] == 1 else [*found, (1, [])]


def _run(
    plan: Plan, phases: Sequence[Phase], state: TrainState, data: Any, frozen: Any, key: jax.Array,
    **how: Any,
) -> tuple[TrainState, Metrics]:  # fmt: skip
    """All of `phases`, one after the other; `how` is as in `run_phase`."""
    metrics: Metrics = {}
    data = meshes.constrain_batch(data, how["mesh"])
    for phase in phases:
        own = phase_key(key, state.step, phase.name)
        with meshes.traced_for(how["mesh"]):
            new, reported = run_phase(plan, phase, state, data, frozen, own, **how)
        params, opt, stats, guard = new
        state = dataclasses.replace(
            state,
            params={**state.params, **params},
            opt={**state.opt, **opt},
            stats=stats,
            guard={**state.guard, phase.name: guard},
        )
        metrics |= {f"{phase.name}/{n}": v for n, v in reported.items()}
    return state, metrics


def _finish(
    plan: Plan, state: TrainState, metrics: Metrics, batch: int
) -> tuple[TrainState, Metrics]:
    """What ends a step: controllers, averages, the count."""
    stats = dict(state.stats)
    for controller in plan.controllers:
        stats = dict(controller(stats, metrics))
    metrics = dict(metrics)
    for name in plan.players:
        rates = {n: x for n, x in trees.leaves(state.opt[name]).items() if "learning_rate" in n}
        metrics |= {f"learning_rate/{name}": x for x in rates.values()}
    metrics |= {f"{p}/skipped": g["total"] * 1.0 for p, g in state.guard.items()}
    nimg = (state.step + 1).astype(jnp.float32) * batch
    averages = {
        a: {
            n: averaging.update(
                state.averages[a][n],
                state.params[n],
                tracker.weight(nimg, batch),
                plan.fixed_mask(n, state.params[n]),
            )
            for n in plan.players
        }
        for a, tracker in plan.averages.items()
    }
    return dataclasses.replace(state, step=state.step + 1, stats=stats, averages=averages), metrics


def _absent(metrics: Iterable[str]) -> Metrics:
    """What phases report when they are not due."""
    return {n: jnp.full((), jnp.nan, jnp.float32) for n in metrics}


def make_step(
    plan: Plan, *, batch: int, microbatches: int = 1, mesh: Mesh | None = None
) -> Callable[..., tuple[TrainState, Metrics]]:
    """The step as one pure function `(state, data, frozen, key) -> (state, metrics)`.

    For programs of your own, a scan over steps, say. A phase with `every > 1` sits in a `lax.cond`,
    where XLA's CPU backend takes many times longer for gradients of convolutions; see `jit_step`.

    Args:
      plan: what to train.
      batch: the global batch, in images. microbatches: parts that it is processed in.
      mesh: pins intermediate batches; None leaves placement to jax.
    Returns:
      A pure function. Metrics are () float32 by `<phase>/<name>`, NaN for a phase not due.
    """
    how = {"batch": batch, "microbatches": microbatches, "mesh": mesh}

    def step(state: TrainState, data: Any, frozen: Any, key: jax.Array):
        metrics: Metrics = {}
        for every, phases in _segments(plan):

            def due(state: TrainState, phases: Sequence[Phase] = phases):
                return _run(plan, phases, state, data, frozen, key, **how)

            def skip(state: TrainState, due: Callable = due):
                return state, _absent(jax.eval_shape(due, state)[1])

            if every == 1:
                state, reported = due(state)
            else:
                state, reported = jax.lax.cond(state.step % every == 0, due, skip, state)
            metrics |= reported
        return _finish(plan, state, metrics, batch)

    return step


class Step:
    """The compiled step `(state, data, frozen, key) -> (state, metrics)`; made by `jit_step`.

    programs: a compiled program for each run of phases that are due together, in their order; the
    last also ends the step. every: the steps from one run of each to the next. phases: their names,
    by program. trace_seconds, compile_seconds: what making them took.
    """

    def __init__(
        self, segments: Sequence[tuple[int, Sequence[Phase]]], jitted: Sequence[Any], whole: Any
    ):
        self.every = [every for every, _ in segments]
        self.phases = [tuple(p.name for p in phases) for _, phases in segments]
        self._jitted, self._whole = list(jitted), whole
        self.programs: list[Any] = []
        self.trace_seconds = self.compile_seconds = 0.0

    def trace(self, *args: Any) -> list[Any]:
        """The programs as `jax.stages.Traced`, for arguments like these: arrays or structs."""
        traced: list[Any] = []
        before: Metrics = {}
        for program in self._jitted:
            traced.append(program.trace(before, *args))
            before = traced[-1].out_info[1]
        return traced

    def compile(
        self, *args: Any, options: Mapping[str, Any] | None = None, kept: Kept | None = None
    ) -> "Step":
        """Compiles for arguments like these.

        options: of XLA's compiler. kept: where traced programs are taken from and given to.
        """
        start = time.perf_counter()
        found = kept.programs(args) if kept else None
        traced = [] if found else self.trace(*args)
        made = time.perf_counter()
        if kept and not found:
            found = kept.make(self._jitted, traced, args)
        if found:
            self.programs, names = found, [x.metrics for x in found]
        else:
            lowered = [x.lower() for x in traced]
            with ThreadPoolExecutor(len(lowered)) as pool:
                self.programs = list(pool.map(lambda x: x.compile(options), lowered))
            names = [x.out_info[1] for x in traced]
        self.trace_seconds = made - start
        self.compile_seconds = time.perf_counter() - made
        self._absent = [
            meshes.place(_absent(n), self._whole) if every > 1 else {}
            for n, every in zip(names, self.every)
        ]
        return self

    def __call__(
        self, state: TrainState, data: Any, frozen: Any, key: jax.Array, number: int | None = None
    ) -> tuple[TrainState, Metrics]:
        """One step; the arrays of `state` are given away.

        number: steps done, on the host; None reads it from the state, which waits for it.
        """
        if not self.programs:
            self.compile(state, data, frozen, key)
        number = int(state.step) if number is None else number
        metrics: Metrics = {}
        for every, program, absent in zip(self.every, self.programs, self._absent):
            if number % every:
                metrics = {**absent, **metrics}
            else:
                state, metrics = program(metrics, state, data, frozen, key)
        return state, metrics


def jit_step(
    plan: Plan, state: TrainState, *, batch: int, mesh: Mesh, microbatches: int = 1
) -> Step:
    """The step as programs chosen on the host: donated state, pinned shardings.

    A lazy phase is a program of its own, run when it is due, so that the others do not hold it and
    XLA optimises it like them.

    Args:
      plan: what to train. state: arrays or structs with the shardings to pin.
      batch: the global batch, in images. mesh: of devices. microbatches: see `make_step`.
    """
    meshes.check_batch(batch, mesh, microbatches)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    whole = meshes.replicated(mesh)
    frozen = states.frozen_shardings(plan, mesh)
    how = {"batch": batch, "microbatches": microbatches, "mesh": mesh}
    segments = _segments(plan)
    last = segments[-1][1]

    def jitted(phases: Sequence[Phase]) -> Any:
        def part(before: Metrics, state: TrainState, data: Any, frozen: Any, key: jax.Array):
            state, metrics = _run(plan, phases, state, data, frozen, key, **how)
            metrics = {**before, **metrics}
            if phases is last:
                return _finish(plan, state, metrics, batch)
            return state, metrics

        return jax.jit(
            part,
            in_shardings=(whole, shardings, meshes.batch_sharding(mesh), frozen, whole),
            out_shardings=(shardings, whole),
            donate_argnums=1,
        )

    return Step(segments, [jitted(phases) for _, phases in segments], whole)


def put_frozen(plan: Plan, mesh: Mesh) -> Any:
    """The plan's frozen trees on the mesh, sharded like parameters."""
    frozen = {n: jax.tree.map(jnp.asarray, t) for n, t in plan.frozen.items()}
    return meshes.place(frozen, states.frozen_shardings(plan, mesh))

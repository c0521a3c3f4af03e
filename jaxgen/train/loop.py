"""The loop: stages of plans from the newest checkpoint to the last image, safely.

What it promises: the same call in the same folder resumes, bit for bit on the same mesh; kill -9
loses at most the work since the last checkpoint; SIGTERM and Ctrl-C save and stop; a run of
non-finite gradients stops it with the last good checkpoint kept. docs/robustness.md has the list.
"""

import dataclasses
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from tqdm import tqdm

from jaxgen.common import mesh as meshes
from jaxgen.common import processes, rng, trees
from jaxgen.train import snapshot, store, writer
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.kept import Kept
from jaxgen.train.plan import Plan, Stage
from jaxgen.train.signals import caught
from jaxgen.train.state import TrainState
from jaxgen.train.store import Store
from jaxgen.train.watchdog import Limits, Watchdog

Log = Callable[[str], None]


class Stopped(Exception):
    """The run was asked to stop by a signal; its state is saved."""

    def __init__(self, signum: int, text: str):
        super().__init__(text)
        self.signum = signum


class NonFinite(RuntimeError):
    """Too many updates in a row had a gradient that was not finite."""


@dataclasses.dataclass(frozen=True)
class Every:
    """How often things happen, in images; 0 is never.

    log: metrics. checkpoint: the whole state, to resume. snapshot: averaged weights, kept for good.
    """

    log: int = 10_000
    checkpoint: int = 100_000
    snapshot: int = 50_000


@dataclasses.dataclass(frozen=True)
class Hook:
    """`fn(plan, state, nimg) -> scalars to log or None`, every `every` images and at the end.

    A run that is resumed at a point at which a hook was due and had not finished calls it again.
    """

    name: str
    every: int
    fn: Callable[[Plan, TrainState, int], Mapping[str, float] | None]

    @property
    def mark(self) -> str:
        """The metric that says that it was done, and in how many seconds."""
        return f"time/{self.name}"


def due(every: int, before: int, after: int) -> bool:
    """Whether a multiple of `every` images lies in (before, after]."""
    return every > 0 and after // every > before // every


def train(
    stages: Sequence[Stage],
    data: Callable[[int], Iterator[Mapping[str, jax.Array]]],
    *,
    workdir: str | Path,
    mesh: Mesh,
    batch: int,
    seed: int = 0,
    microbatches: int = 1,
    every: Every = Every(),
    keep: int = 2,
    snapshot_dtype: str = "float32",
    max_skips: int = 20,
    hooks: Sequence[Hook] = (),
    meta: Mapping[str, Any] | None = None,
    each: Callable[[int, Mapping[str, jax.Array]], None] | None = None,
    fresh_snapshots: bool = False,
    verify: bool = True,
    watch: Limits | None = None,
    traces: Path | None = None,
    progress: bool = True,
    log: Log = print,
) -> tuple[TrainState, int]:
    """Trains all stages and returns (state, images seen).

    Args:
      stages: in order of `until`. data: step -> iterator of global device batches from that step
        on; it may have `wait_seconds` and `close()`.
      workdir: gets checkpoints/, snapshots/, metrics.jsonl, tensorboard/.
      batch: global batch in images; a resumed run may change it when the images seen are a
        multiple.
      keep: checkpoints kept. snapshot_dtype: float32 or float16. max_skips: non-finite
        updates in a row that are tolerated.
      meta: JSON saved with every checkpoint and snapshot.
      each: called with (step, its metrics on the devices) after every step.
      fresh_snapshots: set aside snapshots that lie after the point of resuming (the configuration
        has changed, so they belong to another run).
      watch: when a step counts as hung (train/watchdog.py); None: never.
      traces: a folder where traced steps are kept for the next start (train/kept.py).
    Raises:
      Stopped, NonFinite, store.SaveError, ValueError.
    """
    workdir = Path(workdir)
    workdir.mkdir(parents=True, exist_ok=True)
    meta = dict(meta or {})
    with (
        store.alone(workdir, log),
        Store(workdir / "checkpoints", keep=keep, verify=verify, log=log) as checkpoints,
        Store(workdir / "snapshots", verify=verify, log=log) as snapshots,
        Watchdog(workdir, watch, jax.process_index(), log) as dog,
        caught() as signals,
    ):
        number = checkpoints.newest()
        index = 0 if number is None else checkpoints.meta(number)["stage"]

        def keep(i: int) -> Kept | None:
            how = stages[i].plan, mesh, batch, microbatches
            return None if traces is None else Kept(traces, *how, log)

        kept = keep(index)  # loads a traced step while the state is made
        state, nimg = _state(checkpoints, number, stages[index].plan, seed, batch, mesh, log)
        players = ", ".join(f"{n} {trees.count(t):,}" for n, t in state.params.items())
        log(f"parameters: {players}")
        late = [n for n in snapshots.numbers() if n > nimg]
        if fresh_snapshots and late:
            snapshots.set_aside(late, "abandoned")
        try:
            logs = writer.Writer(workdir, nimg) if jax.process_index() == 0 else None
        except OSError as e:
            raise checkpoints.failure(f"the logs in {workdir}", e) from e
        try:
            for i in range(index, len(stages)):
                stage = stages[i]
                if i > index and stage.carry is not None:
                    state = stage.carry(state, rng.fold(jax.random.key(seed), "carry", i))
                run = _Run(
                    stage.plan, stage.until, mesh, batch, microbatches, seed, every, max_skips,
                    tuple(hooks), each, {**meta, "stage": i, "batch": batch, "seed": seed},
                    snapshot_dtype, checkpoints, snapshots, logs, signals, dog,
                    kept if i == index else keep(i), progress, log,
                )  # fmt: skip
                if i == index and nimg:
                    run.catch_up(state, nimg)
                state, nimg = run(state, nimg, data)
        except Stopped:
            raise
        except BaseException as e:
            processes.abandon(e)  # the stores' ends would wait for processes that wait for this one
            raise
        finally:
            if logs:
                logs.close()
    return state, nimg


def _state(
    checkpoints: Store, number: int | None, plan: Plan, seed: int, batch: int, mesh: Mesh, log: Log
) -> tuple[TrainState, int]:
    """(state, images seen) of a checkpoint, or of a fresh start."""
    if number is None:
        return states.create(plan, seed, mesh), 0
    meta = checkpoints.meta(number)
    nimg = meta["nimg"]
    if nimg % batch:
        raise ValueError(
            f"the checkpoint has seen {nimg} images, which is not a multiple of the new batch "
            f"{batch}; the old batch was {meta['batch']}. Choose a batch that divides {nimg}"
        )
    state = checkpoints.restore(number, "state", states.abstract(plan, mesh))
    if meta["batch"] != batch:  # data, keys and schedules follow the images, hence the step
        step = meshes.place(jax.numpy.int32(nimg // batch), meshes.replicated(mesh))
        state = dataclasses.replace(state, step=step)
    log(f"resuming at {nimg} images from {checkpoints.folder / str(number)}")
    return state, nimg


@dataclasses.dataclass
class _Run:
    """One stage of a run."""

    plan: Plan
    until: int
    mesh: Mesh
    batch: int
    microbatches: int
    seed: int
    every: Every
    max_skips: int
    hooks: tuple[Hook, ...]
    each: Callable[[int, Mapping[str, jax.Array]], None] | None
    meta: dict[str, Any]
    snapshot_dtype: str
    checkpoints: Store
    snapshots: Store
    logs: writer.Writer | None
    signals: dict[str, int]
    dog: Watchdog
    kept: Kept | None
    progress: bool
    log: Log

    def __call__(self, state: TrainState, nimg: int, data: Callable) -> tuple[TrainState, int]:
        """Steps until `until` images have been seen."""
        if nimg >= self.until:
            return state, nimg
        batches = data(nimg // self.batch)
        bar = tqdm(
            total=self.until,
            initial=nimg,
            unit="img",
            unit_scale=True,
            dynamic_ncols=True,
            mininterval=0.5,
            disable=None if self.progress and jax.process_index() == 0 else True,
        )
        try:
            return self._steps(state, nimg, batches, bar)
        finally:
            bar.close()
            if hasattr(batches, "close"):
                batches.close()

    def catch_up(self, state: TrainState, nimg: int) -> None:
        """Does what was due at the point of resuming and was cut off: the snapshot, the hooks."""
        before, last = nimg - self.batch, nimg >= self.until
        if self._wants_snapshot(before, nimg) and not self.snapshots.sound(nimg):
            self.log(f"the snapshot at {nimg} images was cut off: taking it now")
            self._snapshot(state, nimg)
        for hook in self.hooks:
            wanted = due(hook.every, before, nimg) or (last and hook.every)
            if wanted and not store.agree(bool(self.logs and self.logs.has(nimg, hook.mark))):
                self._hook(hook, state, nimg)

    def _wants_snapshot(self, before: int, nimg: int) -> bool:
        last = nimg >= self.until and self.every.snapshot > 0
        return bool(self.plan.averages) and (due(self.every.snapshot, before, nimg) or last)

    def _snapshot(self, state: TrainState, nimg: int) -> None:
        with self.dog.slow("a snapshot"):
            args = self.snapshots, self.plan, state, nimg, self.snapshot_dtype, self.meta
            self._report(nimg, {"time/snapshot_stall": snapshot.save(*args)})

    def _checkpoint(self, state: TrainState, nimg: int) -> None:
        with self.dog.slow("a checkpoint"):
            start = time.perf_counter()
            # Once a checkpoint is there, snapshots before it are never taken again.
            self.snapshots.wait(but=nimg)
            self.checkpoints.save(nimg, {"state": state}, {**self.meta, "nimg": nimg})
            self._report(nimg, {"time/checkpoint_stall": time.perf_counter() - start})

    def _hook(self, hook: Hook, state: TrainState, nimg: int, bar: tqdm | None = None) -> None:
        with self.dog.slow(f"the hook {hook.name}"):
            start = time.perf_counter()
            scalars = hook.fn(self.plan, state, nimg) or {}
            self._report(nimg, {**scalars, hook.mark: time.perf_counter() - start}, bar)

    def _steps(self, state: TrainState, nimg: int, batches: Any, bar: tqdm):
        frozen = steps.put_frozen(self.plan, self.mesh)
        key = meshes.place(jax.random.key(self.seed), meshes.replicated(self.mesh))
        first = next(batches)
        step = self._compile(state, first, frozen, key)
        pending: list[dict[str, jax.Array]] = []
        mark = writer.Mark.now(nimg, batches, self.batch)
        saved, started = nimg, False
        while nimg < self.until:
            batch, first = first if first is not None else next(batches), None
            state, metrics = step(state, batch, frozen, key, nimg // self.batch)
            if not started:
                jax.block_until_ready(metrics)
                self.log("first step done")
                started = True
            pending.append(metrics)
            if self.each:
                self.each(nimg // self.batch, metrics)
            if len(pending) > 2:  # at most two steps queued: prompt signals, honest timing
                jax.block_until_ready(pending[-3])
            self.dog.step()
            before, nimg = nimg, nimg + self.batch
            bar.update(min(self.batch, max(0, self.until - before)))
            last = nimg >= self.until
            asked = self._asked(nimg // self.batch)
            if last or asked or due(self.every.log, before, nimg):
                scalars = writer.mean(jax.device_get(pending))
                scalars |= mark.rates(nimg, batches)
                mark, pending = writer.Mark.now(nimg, batches, self.batch), []
                self._report(nimg, scalars, bar)
                self._check(state, saved)
            for controller in self.plan.host_controllers:
                if due(controller.every, before, nimg):
                    with self.dog.slow("a host controller"):
                        shardings = jax.tree.map(lambda x: x.sharding, state)
                        state = meshes.place(controller.fn(state, nimg), shardings)
            if self._wants_snapshot(before, nimg):
                self._check(state, saved)
                self._snapshot(state, nimg)
            if due(self.every.checkpoint, before, nimg) or last or asked:
                self._check(state, saved)
                self._checkpoint(state, nimg)
                saved = nimg
            if asked and not last:  # little time may be left: hooks are done after resuming
                self._finish()
                name = signal.Signals(asked).name
                raise Stopped(
                    asked,
                    f"{name}: saved a checkpoint at {nimg} images; run the same command again to "
                    "go on from there",
                )
            for hook in self.hooks:
                if due(hook.every, before, nimg) or (last and hook.every):
                    self._hook(hook, state, nimg, bar)
        self._finish()
        return state, nimg

    def _finish(self) -> None:
        with self.dog.slow("the last save"):
            self.checkpoints.wait()
            self.snapshots.wait()

    def _compile(self, state: TrainState, batch: Any, frozen: Any, key: jax.Array) -> steps.Step:
        self.log("compiling the training step ...")
        step = steps.jit_step(
            self.plan, state, batch=self.batch, mesh=self.mesh, microbatches=self.microbatches
        ).compile(state, batch, frozen, key, kept=self.kept)
        processes.meet()
        self.log(f"compiled in {step.trace_seconds + step.compile_seconds:.1f} s")
        return step

    def _asked(self, step: int) -> int:
        """The signal that asks to stop, or 0; the same answer in every process."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            return signal.SIGTERM
        return self.signals.get("got", 0) if jax.process_count() == 1 else 0

    def _report(self, nimg: int, scalars: Mapping[str, float], bar: tqdm | None = None) -> None:
        if self.logs and scalars:
            try:
                self.logs.write(nimg, scalars)
            except OSError as e:
                raise self.checkpoints.failure(f"{self.logs.path}", e) from e
        if bar is not None:
            losses = {n: f"{v:.3g}" for n, v in scalars.items() if n.endswith("/loss")}
            if losses:
                bar.set_postfix(losses)

    def _check(self, state: TrainState, saved: int) -> None:
        for phase, guard in jax.device_get(state.guard).items():
            if guard["longest"] > self.max_skips:
                raise NonFinite(
                    f"phase {phase!r}: {guard['longest']} updates in a row had a gradient or loss "
                    f"that was not finite (limit --config.max_skips={self.max_skips}). The weights "
                    f"are those before them; the last checkpoint, at {saved} images, is kept in "
                    f"{self.checkpoints.folder}. Lower the learning rate, or look at the data"
                )

#!/usr/bin/env python
"""Times training, sampling, post-hoc averaging or the input pipeline of a config, or evaluation.

    python scripts/bench.py train   --config configs/edm2/digits.py --repeats 5 --json train.json
    python scripts/bench.py sample  --config configs/edm2/digits.py --option steps=8
    python scripts/bench.py posthoc --config configs/edm2/digits.py --snapshots 8 --length 0.07
    python scripts/bench.py input   --config configs/edm2/digits.py --config.batch=256
    python scripts/bench.py evaluate --rows 10000 --dim 2048   (bench_evaluate.py; no config)
    python scripts/bench.py scaling --config configs/edm2/digits.py --cases 1x1,1x8,2x1
    python scripts/bench.py start   --config configs/edm2/digits.py
    python scripts/bench.py store   --channels 16,80 --restore 1000        (no config needed)

What is timed is the program that the commands run, waited for (block_until_ready), after a warm-up.
FLOPs are those of matrix products and convolutions, counted on the traced program: bodies of loops
times their length, lazy phases as 1 in `every` (XLA's own count, also printed, takes a loop body
once and a lazy phase always). The ceiling is the best square matrix product of the same dtype on
the same devices in the same process. The same on CPU, GPU and TPU.
"""

import argparse
import dataclasses
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import bench_evaluate
import bench_scaling
import bench_start
import bench_store
import jax
import jax.numpy as jnp
import measure
import numpy as np

from jaxgen import recipes
from jaxgen.cli import common, sampling, values
from jaxgen.common import mesh as meshes
from jaxgen.common import rng, units
from jaxgen.data import pipeline
from jaxgen.planning import flops as counting
from jaxgen.recipes.common import dtype as compute_dtype
from jaxgen.train import snapshot
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.plan import Context, Plan
from jaxgen.train.store import Store, write_json

MODES = ("train", "sample", "posthoc", "input")
OTHERS = {  # with flags of their own
    "evaluate": bench_evaluate,
    "scaling": bench_scaling,
    "start": bench_start,
    "store": bench_store,
}


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "bench", __doc__.partition("\n")[0], "scripts/bench.py train --config FILE.py"
    )
    p.prog = "scripts/bench.py"
    p.add_argument("mode", choices=MODES, help=" | ".join(MODES))
    run = p.add_argument_group("run")
    run.add_argument("--config", required=True, help="config file, its argument after a colon")
    run.add_argument("--config.NAME", metavar="VALUE", dest="_", help="change a setting")
    run.add_argument("--json", metavar="FILE", help="write everything that was measured here")
    timing = p.add_argument_group("timing")
    timing.add_argument("--repeats", type=int, default=5, help="timed repeats (default 5)")
    timing.add_argument("--warmup", type=int, default=2, help="untimed ones before (default 2)")
    timing.add_argument(
        "--baseline",
        action="store_true",
        help="train: also compile and time a step written by hand, without guard, averages and "
        "shardings (the other modes always time theirs)",
    )
    what = p.add_argument_group("what")
    what.add_argument("--num", type=int, default=256, help="sample: images at a time (256)")
    what.add_argument("--option", action="append", default=[], help="sample: NAME=VALUE")
    what.add_argument("--snapshots", type=int, default=8, help="posthoc: how many (8)")
    what.add_argument("--length", type=float, default=0.07, help="posthoc: sigma_rel (0.07)")
    return p


@dataclasses.dataclass
class Bench:
    """The opened config."""

    args: argparse.Namespace
    config: Any
    mesh: Any
    source: Any
    facts: dict[str, Any]
    plan: Plan

    def times(self, *fns: Callable[[], Any], multiple: int = 1) -> list[dict[str, float]]:
        """`measure.repeat` with the flags' numbers."""
        args = self.args
        return measure.repeat(*fns, repeats=args.repeats, warmup=args.warmup, multiple=multiple)

    def rates(self, seconds: dict[str, float], images: int, flops: float) -> dict[str, Any]:
        """Images and FLOP a second beside the ceiling."""
        top = measure.ceiling(self.mesh, compute_dtype(self.config.dtype))
        rate = flops / seconds["median"]
        return {
            "seconds": seconds,
            "images_per_second": images / seconds["median"],
            "flops": flops,
            "flops_per_second": rate,
            "ceiling": top,
            "of_ceiling": rate / top["flops_per_second"],
        }

    def train(self) -> dict[str, Any]:
        """The training step on one batch on the devices, the state handed from call to call."""
        batch, plan = self.config.batch, self.plan
        state = states.create(plan, self.config.seed, self.mesh)
        rows = np.arange(batch) % len(self.source)
        data = meshes.put_batch(pipeline.gather(self.source, rows), self.mesh)
        frozen = steps.put_frozen(plan, self.mesh)
        key = jax.device_put(jax.random.key(self.config.seed), meshes.replicated(self.mesh))
        jitted = steps.jit_step(
            plan, state, batch=batch, mesh=self.mesh, microbatches=self.config.microbatches
        )
        measure.forget_cache()
        jitted.compile(state, data, frozen, key)
        found = {"trace_s": jitted.trace_seconds, "compile_s": jitted.compile_seconds}
        flops = 0.0
        for phase in plan.phases:
            alone = dataclasses.replace(plan, phases=[dataclasses.replace(phase, every=1)])
            step = steps.make_step(alone, batch=batch, microbatches=self.config.microbatches)
            jaxpr = jax.make_jaxpr(step)(state, data, frozen, key).jaxpr
            flops += counting.matmul_flops(jaxpr) / phase.every
        held, fns = [state, 0], []

        def one() -> Any:
            state, metrics = jitted(held[0], data, frozen, key, held[1])
            held[:] = state, held[1] + 1
            return metrics

        fns.append(one)
        if self.args.baseline:  # on copies, since the state is given away
            params, stats = jax.tree.map(jnp.copy, (dict(state.params), dict(state.stats)))
            opt = {n: states.optimizer(p).init(params[n]) for n, p in plan.players.items()}
            by_hand, plain = hand_written(plan, batch), [params, opt]

            def plain_one() -> Any:
                plain[:] = by_hand(*plain, stats, data, frozen, key)
                return plain

            fns.append(plain_one)
        seconds = self.times(*fns, multiple=math.lcm(*(p.every for p in plan.phases)))
        found |= self.rates(seconds[0], batch, flops)
        found |= {"memory": measure.memory(*jitted.programs)}
        counts = [(measure.xla_flops(c), every) for c, every in zip(jitted.programs, jitted.every)]
        found["xla_flops"] = sum((n or 0.0) / every for n, every in counts)
        skipped = sum(float(x) for n, x in one().items() if n.endswith("/skipped"))
        if skipped:
            raise RuntimeError(f"{skipped:.0f} of the timed updates were not finite")
        if self.args.baseline:
            found["baseline"] = {
                "name": "step by hand: phases of every step, no guard, averages, projections",
                "seconds": seconds[1],
                "images_per_second": batch / seconds[1]["median"],
            }
        return found

    def sample(self) -> dict[str, Any]:
        """`jaxgen sample`'s drawing with initial weights, to images on the host, chunk by chunk."""
        plan, args = self.plan, self.args
        options = values.parse_options(args.option, dict(plan.sample.options))
        sampler = sampling.Sampler(plan, self.mesh, args.num, options)
        num = sampler.chunk
        source = common.load_source(self.config.data.source, "test")
        inputs = sampling.inputs(plan, self.facts, num, labels=None, source=source)
        params = states.init_params(plan, self.config.seed)
        params = {n: params[n] for n in plan.sample.players}
        call = params, rng.seed_keys(0, np.arange(num)), inputs, sampler.frozen, sampler.guide
        call = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), call)
        measure.forget_cache()
        start = time.perf_counter()
        lowered = sampler.draw.lower(*call)
        traced = time.perf_counter()
        compiled = sampler.draw = lowered.compile()  # what the sampler calls from here on
        found: dict[str, Any] = {
            "images_a_chunk": num,
            "options": {**plan.sample.options, **options},
        }
        found |= {"trace_s": traced - start, "compile_s": time.perf_counter() - traced}
        one = lambda: next(sampler(params, inputs, num, seed=0))["image"]
        if not np.isfinite(one()).all():
            raise RuntimeError("the images that are to be timed are not finite")
        jaxpr = jax.make_jaxpr(lambda *a: plan.sample.fn(*a, **options)["image"])(*call[:4]).jaxpr
        found |= self.rates(self.times(one)[0], num, counting.matmul_flops(jaxpr))
        return {
            **found,
            "xla_flops": measure.xla_flops(compiled),
            "memory": measure.memory(compiled),
        }

    def posthoc(self) -> dict[str, Any]:
        """Reading, checking and summing snapshots (of initial weights) to one average."""
        plan, n = self.plan, self.args.snapshots
        state = states.create(plan, self.config.seed, self.mesh)
        every = units.images(self.config.snapshot_every) or 1000
        target = {p: states.abstract(plan, self.mesh).params[p] for p in plan.sample.players}
        with tempfile.TemporaryDirectory() as folder:
            with Store(folder) as store:
                for i in range(1, n + 1):
                    snapshot.save(store, plan, state, i * every, self.config.snapshot_dtype, {})

            def load(verify: bool = True) -> Any:
                with Store(folder, verify=verify) as store:
                    return snapshot.load(store, plan, target, self.args.length).params

            load()  # compiles; what follows is the memory of reading and summing
            _, grown = measure.process_peak(lambda: jax.block_until_ready(load()))
            items = [f"{p}.{a}" for p in target for a in plan.averages]
            found = [f for item in items for f in Path(folder).glob(f"*/{item}/**/*")]
            files = [f for f in found if f.is_file()]
            size = sum(f.stat().st_size for f in files)
            seconds, unchecked, plain = self.times(
                load,
                lambda: load(verify=False),
                lambda: [len(f.read_bytes()) for f in files] and None,
            )
        one = sum(x.size * 4 for x in jax.tree.leaves(target))
        arrays = one * n * len(plan.averages)
        if self.config.snapshot_dtype == "float16":
            arrays //= 2
        return {
            "seconds": seconds,
            "snapshots": n,
            "length": self.args.length,
            "bytes_of_arrays": arrays,
            "mb_per_second": arrays / seconds["median"] / 1e6,
            "seconds_unverified": unchecked,
            "process_growth": grown,
            "snapshot_bytes": one,
            "baseline": {
                "name": f"reading the same {len(files)} files ({size / 1e6:.1f} MB) and no more",
                "seconds": plain,
            },
            "memory": measure.memory(),
        }

    def input(self) -> dict[str, Any]:
        """The pipeline's batches on the host and on the devices, against a loop of numpy."""
        batch, source, seed = self.config.batch, self.source, self.config.seed
        put = lambda b: meshes.put_batch(b, self.mesh)
        with pipeline.batches(source, batch, seed) as host:
            (seconds,) = self.times(lambda: next(host) and None)
        with pipeline.to_device(pipeline.batches(source, batch, seed), put) as placed:
            (on_device,) = self.times(lambda: next(placed))
        order = np.random.default_rng(seed)
        if source.arrays is not None:
            name, take = "numpy: images[permutation[i : i + batch]]", source.arrays[0].__getitem__
        else:
            name = "numpy: one image after another"
            take = lambda index: np.stack([source[int(i)]["image"] for i in index])
        index, at = order.permutation(len(source)), [0]

        def plain() -> None:
            take(np.take(index, range(at[0], at[0] + batch), mode="wrap"))
            at[0] = (at[0] + batch) % len(source)

        (other,) = self.times(plain)
        rate = lambda s: {"seconds": s, "images_per_second": batch / s["median"]}
        return {
            **rate(seconds),
            "on_device": rate(on_device),
            "baseline": {"name": name, **rate(other)},
            "memory": measure.memory(),
        }


def hand_written(plan: Plan, batch: int) -> Callable[..., Any]:
    """The plan's phases of every step as a plain jitted loop over optax updates."""

    def step(params: Any, opt: Any, stats: Any, data: Any, frozen: Any, key: jax.Array) -> Any:
        context = Context(jnp.int32(0), jnp.float32(0), key, stats, frozen, {})
        for phase in [p for p in plan.phases if p.every == 1]:
            keys = rng.image_keys(steps.phase_key(key, 0, phase.name), batch)

            def mean(
                trained: Any, phase: Any = phase, params: Any = params, keys: Any = keys
            ) -> Any:
                return phase.loss({**params, **trained}, data, keys, context)[0].mean()

            grads = jax.grad(mean)({n: params[n] for n in phase.trains})
            for n in phase.trains:
                chain = states.optimizer(plan.players[n])
                updates, state = chain.update(grads[n], opt[n], params[n], nimg=jnp.float32(1e4))
                moved = jax.tree.map(lambda p, u: p + u.astype(p.dtype), params[n], updates)
                params, opt = {**params, n: moved}, {**opt, n: state}
        return params, opt

    return jax.jit(step, donate_argnums=(0, 1))


def report(r: dict[str, Any]) -> None:
    """The measurements in words."""
    what = {"train": "step", "sample": "chunk", "posthoc": "average", "input": "batch"}[r["mode"]]
    say = lambda name, text: print(f"{name:<19} {text}")
    if "compile_s" in r:
        say("trace, compile", f"{r['trace_s']:.1f} s, {r['compile_s']:.1f} s (no compile cache)")
    ms = {k: f"{v * 1e3:.4g}" for k, v in r["seconds"].items()}
    say(
        f"one {what}",
        f"{ms['median']} ms (min {ms['min']}, quartiles {ms['q1']} to {ms['q3']}, max {ms['max']}; "
        f"{r['repeats']} repeats)",
    )
    if "images_per_second" in r:
        say("images/s", f"{r['images_per_second']:,.1f}")
    if "flops" in r:
        top = r["ceiling"]
        say("GFLOPs", f"{r['flops'] / 1e9:.4g} in products and convolutions, loops in full")
        if r.get("xla_flops"):
            say("", f"{r['xla_flops'] / 1e9:.4g} a device by XLA: all operations, loop bodies once")
        say("GFLOP/s", f"{r['flops_per_second'] / 1e9:,.1f}, {r['of_ceiling']:.1%} of the ceiling")
        side = f"{top['dtype']} matrix product of side {top['size']}"
        say("ceiling, GFLOP/s", f"{top['flops_per_second'] / 1e9:,.1f} ({side})")
    if r["mode"] == "posthoc":
        arrays = f"{r['bytes_of_arrays'] / 1e6:.1f} MB in {r['snapshots']} snapshots"
        say("MB/s", f"{r['mb_per_second']:,.1f}; {arrays}, checksums verified")
        say("without checksums", f"{r['seconds_unverified']['median'] * 1e3:.4g} ms")
    if r.get("process_growth") is not None:
        two = 2 * r["snapshot_bytes"] / 1e6
        grown = r["process_growth"] / 1e6
        say("process grew by", f"{grown:.1f} MB at most (one snapshot and the sum: {two:.1f} MB)")
    if "on_device" in r:
        say("images/s on device", f"{r['on_device']['images_per_second']:,.1f}")
    if "baseline" in r:
        b = r["baseline"]
        ratio = r["seconds"]["median"] / b["seconds"]["median"]
        rate = f", {b['images_per_second']:,.1f} images/s" if "images_per_second" in b else ""
        say("baseline", b["name"])
        say(
            "", f"{b['seconds']['median'] * 1e3:.4g} ms{rate}; ours takes {ratio:.2f} times as long"
        )
    words = {"program": "program", "device_peak": "device peak", "process_peak": "process peak"}
    sizes = [f"{w} {r['memory'][k] / 1e6:,.1f} MB" for k, w in words.items() if k in r["memory"]]
    say("memory", ", ".join(sizes))


def main(argv: list[str]) -> int:
    """Runs one benchmark."""
    if argv and argv[0] in OTHERS:
        return OTHERS[argv[0]].main(argv[1:])
    args, rest = parser().parse_with_overrides(argv)
    if args.repeats < 1:
        parser().error("--repeats must be at least 1")
    config = common.load_config(args.config, rest)
    common.setup_jax()
    mesh = common.make_mesh(config)
    meshes.check_batch(config.batch, mesh, config.microbatches)
    source = common.load_source(config.data.source, "train")
    facts = common.source_facts(source, config)
    plan = common.last_stage(recipes.build(config, facts))
    print(config)
    where = measure.machine()
    print(f"machine             {where['device']}; {where['machine']}")
    print(
        f"data                {source!r}; batch {config.batch}, compute {config.dtype}", flush=True
    )
    bench = Bench(args, config, mesh, source, facts, plan)
    found = {"mode": args.mode, "repeats": args.repeats, **getattr(bench, args.mode)()}
    report(found)
    if args.json:
        settings = json.loads(config.to_json())
        spec = {"spec": args.config, "overrides": rest, "config": settings, "machine": where}
        write_json(Path(args.json), {**found, **spec})
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (ValueError, RuntimeError, OSError) as e:
        if os.environ.get("JAXGEN_TRACEBACK"):
            raise
        print(f"error: {e}", file=sys.stderr)
        sys.exit(2)

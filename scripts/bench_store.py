"""Times checkpoints: what a save holds a training step up, and how long a restore takes.

    python scripts/bench.py store --channels 16,24,80,176 --batch 64 --restore 1000

Saves: EDM2 of several widths trains on digits, its whole state is saved now and then. Each step
is waited for, so that its time is its own. `held` is what `Store.save` keeps the loop from the next
step; `next` how much longer the step after it takes, `until written` how much longer all steps take
until the save is on disk: it is compressed and hashed on the cores that train here, and a donated
buffer that is being saved is copied. Restore: arrays of so many megabytes, from opening the store
over the checksums to arrays on the devices; the files are in the operating system's cache.
"""

import resource
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from jaxgen import recipes
from jaxgen.cli import common
from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.data import pipeline
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.store import Store, write_json


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser("bench", __doc__.partition("\n")[0], "scripts/bench.py store --channels 16")
    p.prog = "scripts/bench.py store"
    p.add_argument("--config", default="configs/edm2/digits.py", help="an EDM2 config (digits)")
    p.add_argument("--channels", default="16,24,80,176", help="widths of the model (16,24,80,176)")
    p.add_argument("--batch", type=int, default=64, help="images of a step (default 64)")
    p.add_argument("--saves", type=int, default=5, help="timed saves of each width (default 5)")
    p.add_argument("--steps", type=int, default=6, help="steps before each save (default 6)")
    p.add_argument("--restore", type=int, default=1000, help="megabytes; 0 leaves it out (1000)")
    p.add_argument("--leaves", type=int, default=400, help="arrays of them (default 400)")
    p.add_argument("--json", metavar="FILE", help="write everything that was measured here")
    return p


def saves(spec: str, channels: int, batch: int, count: int, between: int) -> dict[str, Any]:
    """Steps with saves between them, each step waited for; seconds."""
    model = f"--config.model.model_channels={channels}", "--config.model.channels_per_head=8"
    config = common.load_config(spec, [*model, f"--config.batch={batch}"])
    mesh = common.make_mesh(config)
    source = common.load_source(config.data.source, "train")
    plan = common.last_stage(recipes.build(config, common.source_facts(source, config)))
    state = states.create(plan, 0, mesh)
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    data = meshes.put_batch(pipeline.gather(source, np.arange(batch) % len(source)), mesh)
    key = meshes.place(jax.random.key(0), meshes.replicated(mesh))
    step = steps.jit_step(plan, state, batch=batch, mesh=mesh).compile(state, data, {}, key)
    done = 0

    def one() -> float:
        nonlocal state, done
        start = time.perf_counter()
        state, metrics = step(state, data, {}, key, done)
        jax.block_until_ready((state, metrics))
        done += 1
        return time.perf_counter() - start

    for _ in range(3):
        one()
    plain, held, after, written, more = [], [], [], [], []
    with (
        tempfile.TemporaryDirectory() as folder,
        Store(folder, keep=2) as store,
        ThreadPoolExecutor(1) as pool,
    ):
        for i in range(count + 1):
            times = [one() for _ in range(between)]
            start = time.perf_counter()
            stall = store.save(done, {"state": state}, {})
            following = [one()]
            waiting = pool.submit(store.wait)
            while not waiting.done():
                following.append(one())
            waiting.result()
            if i:  # the first one sets Orbax up
                plain += times
                held.append(stall)
                after.append(following[0])
                written.append(time.perf_counter() - start)
                more.append(following)
    median = float(np.median(plain))
    return {
        "channels": channels,
        "batch": batch,
        "state_bytes": size,
        "leaves": len(jax.tree.leaves(state)),
        "step": measure.spread(plain),
        "held": measure.spread(held),
        "next": measure.spread([x - median for x in after]),
        "until_written": measure.spread([sum(f) - median * len(f) for f in more]),
        "written": measure.spread(written),
        "process_peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def restore(megabytes: int, leaves: int) -> dict[str, Any]:
    """Seconds of opening, of the checksums and of reading arrays of so many megabytes."""
    n = megabytes * 10**6 // 4 // leaves
    draw = np.random.default_rng(0)  # hard to compress, as weights are
    state = {f"leaf{i}": jnp.asarray(draw.standard_normal(n, np.float32)) for i in range(leaves)}
    mesh = meshes.make_mesh()
    whole = meshes.replicated(mesh)
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=whole), state)
    with tempfile.TemporaryDirectory() as folder:
        with Store(folder) as store:
            start = time.perf_counter()
            store.save(1, {"state": state}, {})
            store.wait()
            saved = time.perf_counter() - start
        disk = sum(f.stat().st_size for f in Path(folder).rglob("*") if f.is_file())
        start = time.perf_counter()
        with Store(folder) as store:
            number = store.newest()
            checked = time.perf_counter()
            found = jax.block_until_ready(store.restore(number, "state", target))
            end = time.perf_counter()
    same = jax.tree.map(lambda a, b: bool(jnp.array_equal(a, b)), state, found)
    if not all(trees.leaves(same).values()):
        raise RuntimeError("what was restored is not what was saved")
    size = sum(x.nbytes for x in jax.tree.leaves(state))
    return {"state_bytes": size, "disk_bytes": disk, "saved": saved, "checked": checked - start} | {
        "read": end - checked,
        "restored": end - start,
        "leaves": leaves,
    }


def main(argv: list[str]) -> int:
    """Measures, prints, writes."""
    args = parser().parse_args(argv)
    common.setup_jax()
    where = measure.machine()
    print(f"machine             {where['device']}; {where['machine']}")
    print(f"saves               {args.config}, batch {args.batch}, {args.saves} of each width")
    names = (
        "state, MB",
        "leaves",
        "step, ms",
        "held, ms",
        "of a step",
        "next, ms",
        "until written, ms",
        "written, s",
    )
    print("  ".join(names), flush=True)
    found: dict[str, Any] = {"saves": []}
    for channels in (int(c) for c in args.channels.split(",") if c):
        r = saves(args.config, channels, args.batch, args.saves, args.steps)
        found["saves"].append(r)
        ms = {k: r[k]["median"] * 1e3 for k in ("step", "held", "next", "until_written")}
        cells = f"{r['state_bytes'] / 1e6:.4g}", r["leaves"], f"{ms['step']:.4g}"
        cells += f"{ms['held']:.3g}", f"{ms['held'] / ms['step']:.1%}", f"{ms['next']:.3g}"
        cells += f"{ms['until_written']:.3g}", f"{r['written']['median']:.2f}"
        print("  ".join(f"{c!s:>{len(n)}}" for n, c in zip(names, cells)), flush=True)
    if args.restore:
        r = found["restore"] = restore(args.restore, args.leaves)
        print(
            f"restore             {r['state_bytes'] / 1e6:.0f} MB ({r['leaves']} arrays, "
            f"{r['disk_bytes'] / 1e6:.0f} MB on disk) in {r['restored']:.2f} s: checksums "
            f"{r['checked']:.2f}, reading {r['read']:.2f}; saved in {r['saved']:.2f}"
        )
    if args.json:
        how = {k: v for k, v in vars(args).items() if k != "json"}
        write_json(Path(args.json), {"mode": "store", **how, **found, "machine": where})
    return 0

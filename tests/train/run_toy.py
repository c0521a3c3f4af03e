"""A real process for tests: trains the toy GAN in a folder given on the command line.

Usage: run_toy.py WORKDIR [--images N] [--sleep SECONDS]
"""

import argparse
import dataclasses
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import jax
import numpy as np
from toys import batch_of, gan_plan

from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.train import loop, store
from jaxgen.train.plan import Stage

BATCH = 16


def data(mesh, sleep=0.0):
    def from_step(start):
        step = start
        while True:
            time.sleep(sleep)
            host = jax.tree.map(np.asarray, batch_of(step, BATCH))
            n, p = jax.process_count(), jax.process_index()
            rows = slice(p * BATCH // n, (p + 1) * BATCH // n)
            yield meshes.put_batch({k: v[rows] for k, v in host.items()}, mesh)
            step += 1

    return from_step


def main(argv=None):
    p = argparse.ArgumentParser()
    p.add_argument("workdir")
    p.add_argument("--images", type=int, default=1600)
    p.add_argument("--sleep", type=float, default=0.0)
    p.add_argument("--fsdp", type=int, default=1)
    p.add_argument("--coordinator")
    p.add_argument("--process_id", type=int)
    p.add_argument("--max-file", type=int, help="RLIMIT_FSIZE in bytes: a disk that is full")
    args = p.parse_args(argv)
    if args.coordinator:
        jax.distributed.initialize(args.coordinator, 2, args.process_id)
    if args.max_file:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (args.max_file, args.max_file))
    plan = gan_plan()
    mesh = meshes.make_mesh(-1, args.fsdp)
    try:
        state, nimg = loop.train(
            [Stage(plan, args.images)],
            data(mesh, args.sleep),
            workdir=args.workdir,
            mesh=mesh,
            batch=BATCH,
            seed=7,
            every=loop.Every(log=160, checkpoint=160, snapshot=320),
            log=lambda text: print(text, flush=True),
            progress=False,
        )
    except loop.Stopped as e:
        print(e, flush=True)
        return 128 + e.signum
    except store.SaveError as e:
        print(f"{type(e).__name__}: {e}", flush=True)
        return 2
    if jax.process_count() == 1:
        flat = trees.leaves(dataclasses.asdict(jax.device_get(state)))
        np.savez(
            Path(args.workdir) / "final.npz",
            nimg=nimg,
            **{k.replace("/", "."): v for k, v in flat.items()},
        )
    print("done", nimg, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""A real process for tests: `jaxgen evaluate` of the toy, alone or one of two.

Usage: run_evaluate.py PORT NUMBER FOLDER METRICS [FEW]; port 0: alone.
"""

import sys
from pathlib import Path

import jax
import numpy as np
import toy_styles as toy

from jaxgen.__main__ import main
from jaxgen.cli import common, evaluate
from jaxgen.data.source import ArraySource


def start(port, number, folder, metrics, few=None):
    if port != "0":
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", 2, int(number))
    run = toy.run(Path(folder))
    common.Run.open = lambda workdir, verify=True: run
    images = np.random.default_rng(0).integers(0, 256, (61, 8, 8, 1), np.uint8)
    part = {"train": images[:40], "test": images[40:]}
    common.load_source = lambda spec, split: ArraySource(part[split], name="digits", split=split)
    if few is not None:
        evaluate.FEW = int(few)
    where = ["--out", f"{folder}/found.json", "--cache", f"{folder}/cache"]
    return main(["evaluate", "--workdir", "toy", "--num", "25", "--metrics", metrics, *where])


if __name__ == "__main__":
    sys.exit(start(*sys.argv[1:]))

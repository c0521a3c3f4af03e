"""Is a bad version of a network a better guide than one without labels?

A class-conditional network on digits, without guidance, with classifier-free guidance, and guided
by networks that are smaller, less trained, or both. It shares its runs with `guidance-interval`.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments import common

CFG, BOTH = "CFG: without labels", "autoguidance: smaller, less trained"
YOUNG, SMALL = "autoguidance: less trained", "autoguidance: smaller"


def run(e: common.Experiment) -> None:
    """Trains main network and guides of each seed, scores every guide at every weight."""
    config = e.pick(
        "configs/edm2/digits.py", "configs/edm2/fashion_mnist.py", "configs/edm2/digits.py"
    )
    length = e.pick(
        ("images=40960", "snapshot_every=5120"), ("images=2M", "snapshot_every=100k"), ()
    )
    half = e.pick(
        ("model.model_channels=8", "model.channels_per_head=8"), ("model.model_channels=16",), ()
    )
    early = e.pick(10_240, 400_000, 32)
    options = {"steps": e.pick(16, 32, 4)}
    weights = e.pick((1.25, 1.5, 2.0, 3.0), (1.25, 1.5, 2.0, 3.0), (2.0,))
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for i in range(e.pick(2, 3, 1)):
        one = dataclasses.replace(e, seed=e.seed + i)
        main = one.train(f"main-{i}", config, *length)
        unconditional = one.train(f"unconditional-{i}", config, *length, "data.labels=False")
        small = one.train(f"small-{i}", config, *length, *half)
        judge = common.Judge(main, e.pick(1000, 10_000, 32), one.seed)
        found.setdefault(("no guidance", 1.0), []).append(judge(options=options))
        runs = {
            CFG: (unconditional, None),
            BOTH: (small, early),
            YOUNG: (main, early),
            SMALL: (small, None),
        }
        for name, (guide, nimg) in runs.items():
            for w, scores in judge.sweep(guide, weights, nimg=nimg, options=options).items():
                found.setdefault((name, w), []).append(scores)
                e.log(f"seed {one.seed}, {name}, weight {w:g}: {scores}")
    rows: list[common.Row] = [{"guide": "(real test images)", **judge.floor}]
    rows += [{"guide": n, "weight": w, **common.over_seeds(s)} for (n, w), s in found.items()]
    e.write(rows, ["guide", "weight", "frechet", "frechet std", "precision", "recall"])
    common.over_weights(e, rows, "guide")


if __name__ == "__main__":
    common.main(__file__, __doc__, run, runs="guidance")

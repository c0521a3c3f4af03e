"""Is guidance only good at middle noise levels: constant weight against limited intervals?

A class-conditional network, guided by one without labels, over weights and intervals of noise
levels. It shares its runs with `autoguidance`.
"""

import dataclasses
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from experiments import common

INTERVALS = {
    "all levels": None,
    "high: sigma > 2": (2.0, 1e9),
    "middle: 0.3 < sigma <= 2": (0.3, 2.0),
    "low: sigma <= 0.3": (0.0, 0.3),
    "middle and low: sigma <= 2": (0.0, 2.0),
}


def run(e: common.Experiment) -> None:
    """Trains both networks a seed, scores every weight and interval."""
    config = e.pick(
        "configs/edm2/digits.py", "configs/edm2/fashion_mnist.py", "configs/edm2/digits.py"
    )
    length = e.pick(
        ("images=40960", "snapshot_every=5120"), ("images=2M", "snapshot_every=100k"), ()
    )
    options = {"steps": e.pick(16, 32, 4)}
    weights = e.pick((1.25, 1.5, 2.0, 3.0), (1.25, 1.5, 2.0, 3.0), (2.0,))
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for i in range(e.pick(2, 3, 1)):
        one = dataclasses.replace(e, seed=e.seed + i)
        main = one.train(f"main-{i}", config, *length)
        guide = one.train(f"unconditional-{i}", config, *length, "data.labels=False")
        judge = common.Judge(main, e.pick(1000, 10_000, 32), one.seed)
        found.setdefault(("no guidance", 1.0), []).append(judge(options=options))
        for name, interval in INTERVALS.items():
            for w, scores in judge.sweep(guide, weights, interval, options=options).items():
                found.setdefault((name, w), []).append(scores)
                e.log(f"seed {one.seed}, {name}, weight {w:g}: {scores}")
    rows: list[common.Row] = [{"guided": "(real test images)", **judge.floor}]
    rows += [{"guided": n, "weight": w, **common.over_seeds(s)} for (n, w), s in found.items()]
    e.write(rows, ["guided", "weight", "frechet", "frechet std", "precision", "recall"])
    common.over_weights(e, rows, "guided")


if __name__ == "__main__":
    common.main(__file__, __doc__, run, runs="guidance")

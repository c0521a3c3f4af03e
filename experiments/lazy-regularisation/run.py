"""How rarely may R1 be done: quality and seconds for intervals of 1, 4, 16 steps (1912.04958)?

StyleGAN2 with R1 in every step, in every k-th with k times the weight, or never. Seconds are of the
compiled steps, measured in turns.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from jaxgen.cli import common as cli

STEPS = 64  # that are timed together


def seconds(paths: dict[int, Path], rounds: int, steps: int) -> dict[int, dict[str, float]]:
    """The least of several rounds, in each of which every interval is timed once."""
    timers = {k: common.Timer(cli.Run.open(path)) for k, path in paths.items()}
    for timer in timers.values():
        timer(steps)  # compiles all phases
    found = [{k: timer(steps) for k, timer in timers.items()} for _ in range(rounds)]
    return {k: {n: min(f[k][n] for f in found) for n in found[0][k]} for k in paths}


def run(e: common.Experiment) -> None:
    """Trains each interval with several seeds, scores, and times the steps."""
    intervals = e.pick((1, 4, 16), (1, 4, 16, 64, 0), (1, 16))
    found: dict[int, list[dict[str, float]]] = {k: [] for k in intervals}
    num = e.pick(2000, 10_000, 32)
    paths, judge = {}, None
    for seed in range(e.seed, e.seed + e.pick(2, 3, 1)):
        for k in intervals:
            changes = () if k == 16 else (f"loss.r1_every={k}",)  # 16 is the config's
            paths[k] = common.lineage(e, "stylegan2", *changes, seed=seed)
            judge = common.Judge(paths[k], num, seed, num_real=5 * num, like=judge)
            found[k].append(judge())
            e.log(f"R1 every {k} steps, seed {seed}: {found[k][-1]}")
    times = seconds(paths, e.pick(5, 10, 1), e.pick(STEPS, STEPS, 16))
    rows = [
        {"R1 every": k or "never", **common.over_seeds(s), **times[k]} for k, s in found.items()
    ]
    columns = ["R1 every", "frechet", "frechet std", "precision", "recall"]
    e.write(rows, [*columns, "seconds", "CPU seconds"])
    figure(e, found, times)


def figure(e: common.Experiment, found: dict[int, Any], times: dict[int, Any]) -> None:
    """Distance of every run, and what 1000 images cost, against the interval."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
    place = range(len(found))
    names = [str(k) if k else "never" for k in found]
    for x, scores in zip(place, found.values()):
        axes[0].plot([x] * len(scores), [s["frechet"] for s in scores], "o", color="tab:blue")
    means = [np.mean([s["frechet"] for s in scores]) for scores in found.values()]
    axes[0].plot(place, means, color="tab:blue")
    axes[0].set(ylabel="Fréchet distance (a point a seed)", ylim=(0, 1.2 * max(means)))
    axes[1].bar(place, [times[k]["CPU seconds"] for k in found], color="tab:orange")
    axes[1].set(ylabel="CPU seconds for 1000 images")
    for ax in axes:
        ax.set_xticks(place, names)
        ax.set_xlabel("R1 every k steps")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run, runs="lineage")

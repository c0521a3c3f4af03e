"""Averages of any length after training: are they right, and which length is best (2312.02696)?

One run tracks many power-function averages directly. From the snapshots of two of them (0.05 and
0.10) the others are rebuilt and compared with what was tracked; the distance of samples is then
measured against the length at three training times and for a second learning rate.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import common
from experiments.averages import STORED, Snapshots, Tree, distance
from jaxgen.cli import common as cli

LENGTHS = (0.02, 0.03, 0.05, 0.075, 0.10, 0.15, 0.20, 0.25)  # all of them are tracked
COUNTS = (32, 16, 8, 4, 2)  # snapshots used, of each stored length
SHARES = (0.25, 0.5, 1.0)  # of the training time
RATES = (0.02, 0.005)
OTHER = f"frechet, rate {RATES[1]}"
SAMPLINGS = 2  # seeds of sampling that a distance is the mean of


def errors(snapshots: Snapshots, raw: Tree, length: float) -> common.Row:
    """Rebuilt against tracked at the end, from all snapshots and from fewer, evenly spaced.

    Relative to the distance of the raw weights; `nearest` takes the nearest stored average instead.
    """
    end, n = snapshots.times[-1], len(snapshots.times)
    truth = snapshots.tracked(end, length)
    scale = distance(raw, truth)
    row: common.Row = {"length": length}
    for count in COUNTS:
        if count <= n:
            times = snapshots.times[:: -(n // count)][::-1]
            params, solution = snapshots.rebuilt(times, length)
            row[f"error, {count} snapshots"] = distance(params, truth) / scale
            row[f"profile error, {count}"] = solution.error
    nearest = min(STORED, key=lambda s: abs(np.log(s / length)))
    return row | {"error, nearest": distance(snapshots.tracked(end, nearest), truth) / scale}


class Curve:
    """Distances of samples of a run, each the mean over SAMPLINGS seeds."""

    def __init__(self, e: common.Experiment, run: cli.Run):
        judge = common.Judge(run.workdir, e.pick(2000, 10_000, 16), e.seed, ("frechet",))
        self.scorer = judge.scorer({"steps": e.pick(10, 18, 3)})
        self.snapshots, self.name = Snapshots(run, "network"), run.workdir.name
        self.seed, self.log = e.seed, e.log

    def score(self, params: Tree) -> float:
        found = []
        for i in range(SAMPLINGS):
            self.scorer.seed = self.seed + i
            found += self.scorer({"network": params}).values()
        return float(np.mean(found))

    def __call__(self, share: float) -> list[float]:
        """For each of LENGTHS, at `share` of the training time."""
        times = self.snapshots.times[: max(2, round(share * len(self.snapshots.times)))]
        found = []
        for length in LENGTHS:
            params, solution = self.snapshots.rebuilt(times, length)
            if solution.error > 0.25:  # these snapshots are too few for it; it was tracked, though
                params = self.snapshots.tracked(times[-1], length)
            found.append(self.score(params))
            self.log(f"{self.name} at {times[-1]} images, length {length}: {found[-1]:.3f}")
        return found


def run(e: common.Experiment) -> None:
    """Trains twice, compares, scores, writes."""
    images = e.pick(102_400, 3_276_800, 64)
    data = e.pick("digits", "fashion_mnist", "digits")
    curves, raw = {}, {}
    for rate in RATES:
        path = e.train(
            f"rate_{rate}",
            f"configs/edm2/{data}.py",
            f"averages.power={LENGTHS}",
            f"optimizer.ref_lr={rate}",
            f"images={images}",
            f"checkpoint_every={images}",
            f"snapshot_every={images // COUNTS[0]}",
        )
        opened = cli.Run.open(path)
        curves[rate] = Curve(e, opened)
        raw[rate] = opened.average("raw").params["network"]
    main, other = RATES
    rows = [errors(curves[main].snapshots, raw[main], length) for length in LENGTHS]
    last: common.Row = {"length": "raw"}
    for name, rate, share in [
        *((f"frechet at {s:.0%}", main, s) for s in SHARES),
        (OTHER, other, 1),
    ]:
        for row, value in zip(rows, curves[rate](share)):
            row[name] = value
        if share == 1:
            last[name] = curves[rate].score(raw[rate])
    figure(e, rows)
    rows.append(last)
    e.write(rows, [n for n in rows[0] if not n.startswith("profile error")])


def figure(e: common.Experiment, rows: list[common.Row]) -> None:
    """Errors against the number of snapshots; distances against the length."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(15, 4.3))
    colors = plt.cm.viridis(np.linspace(0, 0.95, len(rows)))
    counts = [n for n in COUNTS if f"error, {n} snapshots" in rows[0]]
    for row, color in zip(rows, colors):
        if row["length"] in STORED:
            continue
        label = f"{row['length']:g}"
        found = [row[f"error, {n} snapshots"] for n in counts]
        axes[0].loglog(counts, found, "o-", color=color, label=label)
        axes[0].loglog(counts, [row[f"profile error, {n}"] for n in counts], ":", color=color)
    axes[0].set_xticks(counts, counts)
    axes[0].set(xlabel="snapshots of 0.05 and of 0.10", ylabel="error (dotted: of the profile)")
    axes[0].set_title("rebuilt against tracked; raw weights are at 1")
    axes[0].legend(title="length", fontsize=8)
    lengths = [row["length"] for row in rows]

    def draw(ax, name, label):
        values = np.array([row[name] for row in rows])
        best = int(values.argmin())
        label = f"{label}: best {values[best]:.3g} at {lengths[best]:g}"
        (line,) = ax.plot(lengths, values / values[best], "o-", label=label)
        ax.plot(lengths[best], 1, "*", ms=16, color=line.get_color())

    for share in SHARES:
        draw(axes[1], f"frechet at {share:.0%}", f"{share:.0%} of training")
    draw(axes[2], "frechet at 100%", f"learning rate {RATES[0]}")
    draw(axes[2], OTHER, f"learning rate {RATES[1]}")
    for ax in axes[1:]:
        ax.set(xlabel="EMA length sigma_rel", ylabel="frechet, relative to the best", xscale="log")
        ax.set_ylim(0.98, 1.5)
        ax.set_xticks(lengths, [f"{v:g}" for v in lengths])
        ax.minorticks_off()
        ax.legend()
    axes[0].minorticks_off()
    fig.tight_layout()
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

"""Which average of a generator's weights is best, chosen after training (2312.02696 for GANs)?

StyleGAN2 and R3GAN are trained once each. From snapshots of two power-function averages those of
any length are rebuilt, and the distance of their samples is measured at three training times,
beside the raw weights and the usual average with a half-life.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import numpy as np

from experiments import averages, common
from jaxgen.cli import common as cli

LENGTHS = (0.01, 0.02, 0.03, 0.05, 0.075, 0.10, 0.15, 0.20, 0.25)
CHECKED = (0.02, 0.20)  # lengths that are tracked too, to be compared with rebuilt ones
TRACKED = (*averages.STORED, *CHECKED)
SHARES = (0.25, 0.5, 1.0)  # of the training time
SAMPLINGS = 2  # seeds of sampling that a distance is the mean of
MODELS = ("StyleGAN2", "R3GAN")


def train(e: common.Experiment, model: str) -> Path:
    """The run of a model. Its half-life is that of the authors of StyleGAN2, 10k, with its ramp.

    R3GAN at the budget "cpu" has five times its learning rate, which is made for long runs.
    """
    rates = ("optimizer.g_lr=1e-3", "optimizer.d_lr=1e-3")
    return common.lineage(
        e,
        model.lower(),
        f"averages.power={TRACKED}",
        "averages.halflife=10k",
        f"snapshot_every={e.pick(1280, 16_000, 16)}",
        *(rates if model == "R3GAN" and e.budget == "cpu" else ()),
        name=model,
    )


class Curve:
    """Distances of samples of a run, each the mean over SAMPLINGS seeds."""

    def __init__(self, e: common.Experiment, path: Path):
        self.run = cli.Run.open(path)
        judge = common.Judge(path, e.pick(2000, 10_000, 16), e.seed, ("frechet",))
        self.scorer = judge.scorer()
        self.snapshots = averages.Snapshots(self.run, "generator")
        self.e = e

    def score(self, params: averages.Tree) -> float:
        """The distance of a generator with these weights."""
        found = []
        for i in range(SAMPLINGS):
            self.scorer.seed = self.e.seed + i
            found += self.scorer({"generator": params}).values()
        return float(np.mean(found))

    def at(self, share: float) -> dict[float | str, float | None]:
        """By length, and of the average with a half-life, at `share` of the training time."""
        times = self.snapshots.times[: max(2, round(share * len(self.snapshots.times)))]
        found: dict[float | str, float | None] = {}
        for length in LENGTHS:
            params, solution = self.snapshots.rebuilt(times, length)
            # Not of a length that these snapshots cannot give.
            found[length] = self.score(params) if solution.error <= 0.25 else None
        (name,) = (n for n in self.run.plan.averages if n.startswith("halflife"))
        found["half-life"] = self.score(self.snapshots.profile(times[-1], name))
        self.e.log(f"{self.run.workdir.name} at {times[-1]} images: {found}")
        return found

    def raw(self) -> averages.Tree:
        """The weights at the end."""
        return self.run.average("raw").params["generator"]

    def errors(self) -> dict[float, float]:
        """Distance of rebuilt from tracked weights at the end, relative to the raw ones'."""
        times = self.snapshots.times
        found, raw = {}, self.raw()
        for length in CHECKED:
            truth = self.snapshots.tracked(times[-1], length)
            rebuilt, _ = self.snapshots.rebuilt(times, length)
            found[length] = averages.distance(rebuilt, truth) / averages.distance(raw, truth)
        return found


def run(e: common.Experiment) -> None:
    """Trains both, scores every length, writes."""
    rows: list[common.Row] = [{"length": n} for n in (*LENGTHS, "half-life", "raw")]
    for model in MODELS:
        curve = Curve(e, train(e, model))
        for share in SHARES:
            found = curve.at(share)
            if share == 1:
                found["raw"] = curve.score(curve.raw())
            for row in rows:
                row[f"{model} at {share:.0%}"] = found.get(row["length"])
        errors = curve.errors()
        for row in rows:
            row[f"{model} error"] = errors.get(row["length"])
        e.log(f"{model}: raw {found['raw']:.3f}, rebuilt against tracked {errors}")
    e.write(rows)
    figure(e, rows)


def figure(e: common.Experiment, rows: list[common.Row]) -> None:
    """Distance against length, a panel a model, a line a training time."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(12, 4.6), layout="constrained")
    usual, raw = rows[-2:]
    for ax, model in zip(axes, MODELS):
        for share in SHARES:
            name = f"{model} at {share:.0%}"
            known = [r for r in rows[:-2] if r[name] is not None]
            x, y = ([r[n] for r in known] for n in ("length", name))
            best = int(np.argmin(y))
            label = f"{share:.0%} of training: best {y[best]:.3g} at {x[best]:g}"
            (line,) = ax.plot(x, y, "o-", label=label)
            ax.plot(x[best], y[best], "*", ms=16, color=line.get_color())
            ax.axhline(usual[name], ls="--", lw=1, color=line.get_color())
        ax.axhline(raw[name], ls=":", color="k", label="raw weights at the end")
        ax.plot([], [], "--", lw=1, color="0.4", label="average with a half-life")
        ax.set(xscale="log", xlabel="EMA length sigma_rel", title=model)
        ax.set_ylabel("Fréchet distance")
        ax.set_xticks(LENGTHS, [f"{v:g}" for v in LENGTHS])
        ax.minorticks_off()
        ax.legend(fontsize=8)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

"""What the experiments share: budgets, runs that are trained once, scores, tables and figures.

An experiment is a folder with README.md (the paper's claim, our table and figure, a verdict),
run.py and results.csv. run.py makes the table again from nothing: it trains what it needs below
--workdir, finds finished runs there, and rewrites results.csv, figure.png and the README's table.
"""

import argparse
import csv
import dataclasses
import functools
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUDGETS = ("cpu", "gpu", "debug")
Row = dict[str, Any]


@dataclasses.dataclass
class Experiment:
    """One run of an experiment: its folder, its budget and where its runs lie."""

    folder: Path
    budget: str
    workdir: Path
    seed: int
    start: float = dataclasses.field(default_factory=time.perf_counter)

    @property
    def debug(self) -> bool:
        """A run of seconds that only shows that everything works; it writes below workdir."""
        return self.budget == "debug"

    @property
    def out(self) -> Path:
        """Where results.csv, figure.png and the README's table go."""
        return self.workdir if self.debug else self.folder

    def pick(self, cpu: Any, gpu: Any, debug: Any) -> Any:
        """The value of this budget."""
        return {"cpu": cpu, "gpu": gpu, "debug": debug}[self.budget]

    def log(self, text: str) -> None:
        """A line with the seconds since the start."""
        print(f"[{time.perf_counter() - self.start:6.0f} s] {text}", flush=True)

    def train(self, name: str, config: str, *overrides: str) -> "Path":
        """`jaxgen train` in workdir/name, or the finished run found there; overrides are k=v."""
        from jaxgen.cli import train

        path = self.workdir / name
        spec = str(ROOT / config) + ((",debug" if ":" in config else ":debug") * self.debug)
        if self.debug:  # durations stay those of the debug size
            fixed = ("images", "batch", "snapshot_every", "checkpoint_every", "log_every")
            overrides = tuple(o for o in overrides if o.split("=")[0] not in fixed)
        self.log(f"training {name}: {config} {' '.join(overrides)}")
        args = [f"--config.{o}" for o in (*overrides, f"seed={self.seed}")]
        code = train.main(["--config", spec, "--workdir", str(path), "--no_progress", *args])
        if code:
            raise SystemExit(code)
        return path

    def write(self, rows: Sequence[Row], columns: Sequence[str] | None = None) -> None:
        """results.csv with all columns, and the table of `columns` into the README."""
        columns = list(columns or rows[0])
        names = list(dict.fromkeys(n for row in rows for n in row))
        self.out.mkdir(parents=True, exist_ok=True)
        with (self.out / "results.csv").open("w", newline="") as f:
            writer = csv.DictWriter(f, names, lineterminator="\n")
            writer.writeheader()
            writer.writerows({n: number(v) for n, v in row.items()} for row in rows)
        print("\n" + table(rows, columns))
        if not self.debug:
            put_table(self.folder / "README.md", rows, columns)
        self.log(f"written to {self.out / 'results.csv'}")

    def save(self, figure: Any, name: str = "figure.png") -> None:
        """A matplotlib figure beside the README."""
        self.out.mkdir(parents=True, exist_ok=True)
        figure.savefig(self.out / name, dpi=110, bbox_inches="tight")


def main(file: str, doc: str, run: Callable[[Experiment], None], runs: str | None = None) -> None:
    """The command line of run.py: `main(__file__, __doc__, run)`.

    Experiments that train the same networks name the folder of their `runs`.
    """
    from jaxgen.cli import common

    folder = Path(file).resolve().parent
    p = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--budget", choices=BUDGETS, default="cpu", help="size of it all (default cpu)")
    p.add_argument("--workdir", default=f"runs/{runs or folder.name}", help="folder of the runs")
    p.add_argument("--seed", type=int, default=0, help="of training and sampling (default 0)")
    args = p.parse_args()
    around_table(folder / "README.md")  # before anything is computed
    common.setup_jax()
    import matplotlib

    matplotlib.use("Agg")
    workdir = Path(args.workdir) / args.budget
    experiment = Experiment(folder, args.budget, workdir, args.seed)
    run(experiment)
    experiment.log("done")


def lineage(
    e: Experiment, member: str, *overrides: str, seed: int | None = None, name: str = ""
) -> Path:
    """A run of one generator of configs/gan, which experiments share; overrides are k=v.

    seed: None: that of the experiment. name: of the run; "": made of the rest.
    """
    if seed is not None:
        e = dataclasses.replace(e, seed=seed)
    data, *size = e.pick(("fashion_mnist", "small"), ("fashion_mnist",), ("digits",))
    parts = [member, *(o.rpartition(".")[2] for o in overrides), *[f"seed{e.seed}"] * (e.seed > 0)]
    config = f"configs/gan/{data}.py:" + ",".join((member, *size))
    return e.train(name or "-".join(parts), config, *overrides)


def number(v: Any) -> Any:
    """Floats to six digits, for files that do not change in the last bit."""
    return f"{v:.6g}" if isinstance(v, float) else v


def over_seeds(scores: Sequence[Mapping[str, float]]) -> Row:
    """The means of repeated measurements by name, and their standard deviations as `<name> std`."""
    values = {n: [s[n] for s in scores] for n in scores[0]}
    means = {n: statistics.fmean(v) for n, v in values.items()}
    return means | {f"{n} std": statistics.pstdev(v) for n, v in values.items()}


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A Markdown table of these columns; floats as in the file, rounded to four digits."""
    show = lambda v: (
        f"{float(number(v)):.4g}" if isinstance(v, float) else "" if v is None else str(v)
    )
    lines = ["| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    lines += ["| " + " | ".join(show(row.get(c)) for c in columns) + " |" for row in rows]
    return "\n".join(lines)


def over_weights(e: Experiment, rows: Sequence[Row], column: str) -> None:
    """Distance over the guidance weight and precision against recall, a line a value of `column`.

    The first two rows are the real test images and no guidance.
    """
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(12, 4.5), layout="constrained")
    real, none, *rest = rows
    for name in dict.fromkeys(r[column] for r in rest):
        line = [none, *(r for r in rest if r[column] == name)]
        of = {n: [r[n] for r in line] for n in line[-1] if n != column}
        axes[0].errorbar(of["weight"], of["frechet"], of["frechet std"], fmt="o-", label=name)
        axes[1].plot(of["recall"], of["precision"], "o-", label=name)
    axes[0].axhline(real["frechet"], color="k", ls=":")
    axes[0].set(xlabel="guidance weight", ylabel="Fréchet distance")
    axes[1].plot(none["recall"], none["precision"], "ks", label="no guidance")
    axes[1].plot(real["recall"], real["precision"], "k*", ms=10, label="real test images")
    axes[1].set(xlabel="recall", ylabel="precision")
    handles = axes[1].get_legend_handles_labels()
    fig.legend(*handles, fontsize=8, ncols=3, loc="outside lower center")
    e.save(fig)


class Timer:
    """Times the training step of a run: Timer(run)(steps); run.plan, or another with its data."""

    def __init__(self, run: Any, plan: Any = None):
        import jax

        from jaxgen.cli import common
        from jaxgen.common import mesh as meshes
        from jaxgen.data import pipeline
        from jaxgen.train import state, step

        plan, mesh, self.batch = plan or run.plan, run.mesh, run.config.batch
        with pipeline.batches(
            common.load_source(run.config.data.source, "train"), self.batch, 0
        ) as host:
            data = meshes.put_batch(next(host), mesh)
        key = meshes.place(jax.random.key(0), meshes.replicated(mesh))
        self.state = state.create(plan, 0, mesh)
        self.rest = data, step.put_frozen(plan, mesh), key
        self.step = step.jit_step(plan, self.state, batch=self.batch, mesh=mesh)

    def __call__(self, steps: int) -> dict[str, float]:
        """Seconds for 1000 images by the clock, and of all cores; the first call compiles."""
        import jax

        wall, cpu = time.perf_counter(), time.process_time()
        for number in range(steps):
            self.state, _ = self.step(self.state, *self.rest, number)
        jax.block_until_ready(self.state.params)
        thousands = steps * self.batch / 1000
        return {
            "seconds": (time.perf_counter() - wall) / thousands,
            "CPU seconds": (time.process_time() - cpu) / thousands,
        }


MARKS = "<!-- results -->", "<!-- end of results -->"


def put_table(path: Path, rows: Sequence[Row], columns: Sequence[str]) -> None:
    """Replaces what lies between the two marks of a README by the table."""
    before, after = around_table(path)
    block = f"{MARKS[0]}\n{table(rows, columns)}\n{MARKS[1]}"
    path.write_text(before + block + after)


def around_table(path: Path) -> tuple[str, str]:
    """What a README says before and after the two marks."""
    text = path.read_text()
    before, first, rest = text.partition(MARKS[0])
    _, second, after = rest.partition(MARKS[1])
    if not (first and second):
        raise ValueError(f"{path} has no lines {MARKS[0]} and {MARKS[1]} to put the table between")
    return before, after


class Judge:
    """Scores of a trained run's samples: any average, sampler options and guidance.

    judge(average="0.1", options={"steps": 8}, guide="runs/x@0.05", guidance=2.0) gives
    {"frechet": ..., "kernel": ..., "precision": ..., "recall": ...} without the net's name, which
    is `judge.net`.

    num_real: training images that samples are compared with; None: all. like: another judge of the
    same data, metrics and num_real, whose real images' features are taken.
    """

    METRICS = ("frechet", "kernel", "precision_recall")

    def __init__(
        self,
        workdir: Path,
        num: int,
        seed: int = 0,
        metrics: Sequence[str] = METRICS,
        num_real: int | None = None,
        like: "Judge | None" = None,
    ):
        from jaxgen.cli import common

        self.run = common.Run.open(workdir)
        self.num, self.seed, self.metrics, self.num_real = num, seed, metrics, num_real
        self._scorer: Any = like and like._scorer

    def scorer(self, options: Mapping | None = None, guide: Any = None) -> Any:
        """An evaluate.Scorer; the features of the real images are computed once."""
        from jaxgen.cli import evaluate
        from jaxgen.metrics.evaluate import OF_GENERATORS

        kept = [m for m in self.metrics if self._scorer is None or m in OF_GENERATORS]
        new = evaluate.Scorer(
            self.run, kept, None, self.num, self.seed, options, guide, self.num_real
        )
        if self._scorer is None:
            self._scorer = new
        else:
            first = self._scorer
            new.metrics, new.net, new.real = first.metrics, first.net, first.real
            new.num_real, new.floor = first.num_real, first.floor
            new.kept, new.training = first.kept, first.training
        return new

    @functools.cached_property
    def plain(self) -> Any:
        """A scorer without options or guide, always the same."""
        return self.scorer()

    @property
    def net(self) -> str:
        """The name of the feature net."""
        return (self._scorer or self.scorer()).net.name

    @property
    def floor(self) -> dict[str, float]:
        """The scores of real test images."""
        return self._plain((self._scorer or self.scorer()).floor)

    @staticmethod
    def _plain(scores: Mapping[str, float]) -> dict[str, float]:
        return {n.partition("@")[0]: float(v) for n, v in scores.items()}

    def __call__(
        self,
        average: str | float | None = None,
        nimg: int | None = None,
        options: Mapping | None = None,
        **flags: Any,
    ) -> dict[str, float]:
        """The scores; flags are guide, guidance and interval, as on the command line."""
        from jaxgen.cli import guiding

        args = argparse.Namespace(**({"guide": None, "guidance": 1.0, "interval": None} | flags))
        guide = guiding.open_guide(self.run, args)
        params = self.run.average(average, nimg).params
        return self._plain(self.scorer(options, guide)(params))

    def score(self, parts: Any) -> dict[str, float]:
        """The scores of images drawn elsewhere, that come in chunks {"image": ...}."""
        return self._plain(self.plain.score(parts))

    def over(
        self, seeds: Sequence[int], average: str | float | None = None, nimg: int | None = None
    ) -> list[dict[str, float]]:
        """The scores of one average by several seeds of sampling, without compiling anew."""
        params = self.run.average(average, nimg).params
        found = []
        for seed in seeds:
            self.plain.seed = seed
            found.append(self._plain(self.plain(params)))
        return found

    def sweep(
        self,
        guide: Path,
        weights: Sequence[float],
        interval: tuple[float, float] | None = None,
        average: str | float | None = None,
        nimg: int | None = None,
        options: Mapping | None = None,
    ) -> dict[float, dict[str, float]]:
        """The scores at several guidance weights, guided by another run, by weight.

        The weight is an argument of one compiled sampler, where the command's is part of it.
        average, nimg: of the guide, which may be an early snapshot; the run itself takes its own.
        """
        import jax.numpy as jnp

        from jaxgen.cli import common, guiding
        from jaxgen.samplers import guidance

        other = common.Run.open(guide)
        export = other.plan.exports["denoise"]
        found = other.average(average, nimg, export.players)

        def wrap(denoise: Callable, params: Mapping, frozen: Mapping) -> Callable:
            steered = guidance.autoguide(
                denoise, export.fn(params["players"], frozen), params["weight"]
            )
            return steered if interval is None else guidance.interval(steered, denoise, *interval)

        params = {"players": found.params, "weight": jnp.float32(1)}
        scorer = self.scorer(options, guiding.Guide(wrap, params, dict(other.plan.frozen), {}))
        main = self.run.average(None).params
        scores = {}
        for w in weights:
            scorer.sampler.guide[0]["weight"] = jnp.float32(w)
            scores[w] = self._plain(scorer(main))
        return scores


if __name__ == "__main__":
    sys.exit("experiments/common.py is no experiment; run experiments/NAME/run.py")

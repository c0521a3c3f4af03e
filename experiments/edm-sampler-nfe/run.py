"""How many evaluations does a sampler need: Euler or Heun, on the time steps of VP, VE or EDM?

One network, every solver from the same noise. Two distances: of the features of samples and real
images, and of each sample to where a fine solution of the same ODE takes the same noise.
"""

import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen.common import rng
from jaxgen.samplers import drive, edm, grids, solvers
from jaxgen.samplers.steps import Solver, Table

RANGE = (0.002, 80.0)  # of all grids, so that all start from the same noise
GRIDS = {"vp": grids.vp, "ve": grids.geometric, "edm": grids.edm}
# Each family's own time steps, schedule and scaling (arXiv:2206.00364, Table 1).
SCHEDULES = {
    "vp": {"schedule": "vp", "scaling": "vp"},
    "ve": {"schedule": "ve"},
    "edm": {"schedule": "linear"},
}


def methods() -> dict[str, tuple[str, Solver, int]]:
    """name -> (grid, solver, evaluations a step)."""
    found = {}
    for stages, solver in enumerate(("euler", "heun"), 1):
        for family, options in SCHEDULES.items():
            made = edm.generalized(solver=solver, **options)
            found[f"{solver} {family}"] = (family, made, stages)
    found["heun, vp schedule on edm grid"] = (
        "edm", edm.generalized(solver="heun", **SCHEDULES["vp"]), 2,
    )  # fmt: skip
    found["dpmpp_2m edm"] = ("edm", solvers.make("dpmpp_2m"), 1)
    found["dpmpp_2m geometric"] = ("ve", solvers.make("dpmpp_2m"), 1)
    churn = {"S_churn": 40.0, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}
    found["edm stochastic"] = ("edm", edm.generalized(cap=True, **churn), 2)
    return found


def number_of_levels(nfe: int, stages: int) -> int:
    """Levels n of at most `nfe` evaluations; two-stage solvers take 2 n - 1."""
    return nfe if stages == 1 else (nfe + 1) // 2


class Walker:
    """Any table of weights by one compiled row, where `drive.run` compiles every grid."""

    def __init__(self, run: Any, average: str | None = None):
        self.shape = tuple(run.facts["shape"])
        self.params = run.average(average).params
        self.classes = run.facts["label_dim"]
        denoiser = run.plan.exports["denoise"].fn

        @functools.partial(jax.jit, donate_argnums=1)
        def row(params: Any, state: tuple, row: Table, label: jax.Array, keys: jax.Array) -> tuple:
            def draw(step: jax.Array) -> jax.Array:
                fresh = jax.vmap(lambda k: jax.random.fold_in(k, step))(keys)
                return rng.normal(fresh, self.shape)

            return drive.walk(denoiser(params, {}), state, row, {"label": label}, draw)[0]

        self.row = row

    def __call__(self, solver: Solver, levels: np.ndarray, num: int, seed: int) -> np.ndarray:
        """Images (num, h, w, c): image i has the same noise and class whatever the solver."""
        return np.concatenate(list(self.chunks(solver, levels, num, seed)))

    def chunks(
        self, solver: Solver, levels: np.ndarray, num: int, seed: int, chunk: int = 256
    ) -> Iterator[np.ndarray]:
        """The images, `chunk` at a time."""
        table = solver(levels)
        for i in range(0, num, chunk):
            index = np.arange(i, i + chunk)
            start, later = rng.split(rng.seed_keys(seed, index), 2)
            x = rng.normal(start, self.shape) * levels[0]
            state = (
                x,
                None if table.ends is None else jnp.copy(x),
                None if table.previous is None else jnp.zeros_like(x),
            )
            label = jax.nn.one_hot(index % self.classes, self.classes)
            for k in range(len(table.step)):
                one = jax.tree.map(lambda v, k=k: _device(v[k : k + 1]), table)
                state = self.row(self.params, state, one, label, later)
            yield np.asarray(state[0])[: num - i]


def _device(v: np.ndarray) -> jax.Array:
    return jnp.asarray(v, {"f": jnp.float32, "i": jnp.int32, "b": bool}[v.dtype.kind])


def run(e: common.Experiment) -> None:
    """Trains, solves finely, then goes through methods and numbers of evaluations."""
    digits, cifar = "configs/edm/digits.py:ddpmpp", "configs/edm/cifar10.py:width=64"
    small = ("model.model_channels=8", "images=60k", "average=halflife_5000")
    long = ("images=20M", "batch=256")
    path = e.train("network", e.pick(digits, cifar, digits), *e.pick(small, long, ()))
    counts = e.pick((5, 7, 9, 13, 19, 27, 39, 59, 99), (9, 13, 19, 35, 79, 159, 255), (5, 9))
    near = e.pick(256, 256, 16)  # images whose distance to the fine solution is taken
    judge = common.Judge(path, e.pick(1000, 10_000, 32), e.seed, metrics=("frechet",))
    scorer, walk = judge.scorer(), Walker(judge.run)
    reference = walk(solvers.make("heun"), grids.edm(e.pick(500, 500, 8), *RANGE), near, e.seed)
    e.log(f"solved finely; real test images have {judge.floor}")
    rows: list[common.Row] = []
    for name, (grid, solver, stages) in methods().items():
        frechet, distance = {}, {}
        for nfe in counts:
            levels = GRIDS[grid](number_of_levels(nfe, stages), *RANGE)
            x = walk(solver, levels, judge.num, e.seed)
            (frechet[nfe],) = judge._plain(scorer.score([{"image": x}])).values()
            distance[nfe] = float(np.sqrt(np.mean((x[:near] - reference) ** 2)))
        row: common.Row = {"method": name}
        row |= {f"frechet @{n}": v for n, v in frechet.items()}
        if "stochastic" not in name:  # which goes elsewhere on purpose
            row |= {f"rms @{n}": v for n, v in distance.items()} | {"order": order(distance)}
        rows.append(row)
        e.log(f"{name}: frechet {frechet[counts[-1]]:.3g}, rms {distance[counts[-1]]:.3g}")
    shown = e.pick((9, 19, 39, 99), (9, 19, 35, 79), (5, 9))
    columns = [f"{what} @{n}" for what in ("frechet", "rms") for n in shown]
    e.write(rows, ["method", *columns, "order"])
    figure(e, rows, counts, judge.floor["frechet"])


def order(distance: dict[int, float]) -> float:
    """Minus the slope of ln distance over ln evaluations, of the last three of them."""
    last = sorted(distance)[-3:]
    return -float(np.polyfit(np.log(last), np.log([distance[n] for n in last]), 1)[0])


def figure(
    e: common.Experiment, rows: list[common.Row], counts: tuple[int, ...], floor: float
) -> None:
    """Both distances over the number of evaluations."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(12, 6), layout="constrained")
    colors, dashes = (
        {"vp": "tab:blue", "ve": "tab:red", "edm": "tab:green"},
        {"euler": "--", "heun": "-"},
    )
    for row in rows:
        solver, _, family = row["method"].partition(" ")
        style = {"lw": 1, "ls": ":", "marker": "."}
        if solver in dashes and family in colors:
            style = {"ls": dashes[solver], "color": colors[family]}
        for ax, what in zip(axes, ("frechet", "rms")):
            values = [row.get(f"{what} @{n}") for n in counts]
            if values[0] is not None:
                ax.loglog(counts, values, label=row["method"], **style)
    axes[0].axhline(floor, color="grey", lw=1, label="real test images")
    axes[0].set(xlabel="evaluations of the network", ylabel="Fréchet distance")
    axes[1].set(xlabel="evaluations of the network", ylabel="RMS distance to the fine solution")
    for ax in axes:
        ax.set_xticks(counts, [str(n) for n in counts])
        ax.minorticks_off()
    handles = axes[0].get_legend_handles_labels()
    fig.legend(*handles, fontsize=8, ncols=6, loc="outside lower center")
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

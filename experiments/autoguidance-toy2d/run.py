"""Does guiding by a bad version of the model remove outliers without losing branches?

Samples of a small network of a fractal mixture in the plane, without guidance, with classifier-free
guidance, with longer score vectors, and with autoguidance. The exact density judges them.
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

import jax
import jax.numpy as jnp
import numpy as np
import toy

from experiments import common
from jaxgen.common import rng
from jaxgen.noise.precondition import Denoise
from jaxgen.samplers import drive, grids, guidance, likelihood, steps

LEVELS = grids.edm(32, 0.002, 5.0)
OUTLIER = 0.005  # share of the data below the density that makes an outlier
GUIDES = {
    "CFG": "unconditional",
    "autoguidance": "weak",
    "autoguidance, same size": "early",
}
WEIGHTS = {"none": (1.0,), "truncation": (1.1, 1.2, 1.4)} | dict.fromkeys(GUIDES, (1.5, 2.0, 3.0))
SHOWN = {"none": 1.0, "CFG": 3.0, "truncation": 1.2, "autoguidance": 3.0}
Weights = dict[str, Any]


def lengthen(denoise: Denoise, factor: jax.Array) -> Denoise:
    """Naive truncation: every score vector is `factor` times as long."""
    return lambda x, sigma, cond=None: x + factor * (denoise(x, sigma, cond) - x)


def guided(method: str, nets: dict[str, toy.Energy], params: Weights, w: jax.Array) -> Denoise:
    """The denoiser of a method at weight w."""
    of = {n: toy.denoiser(net, params[n]) for n, net in nets.items()}
    if method in GUIDES:
        return guidance.autoguide(of["main"], of[GUIDES[method]], w)
    return lengthen(of["main"], w)  # at 1 none


class Judge:
    """Measures of samples and of denoisers, against class A."""

    def __init__(self, tree: toy.Tree, num: int, held_out: int):
        self.tree, self.num = tree, num
        keys = rng.seed_keys(1, np.arange(num + held_out))
        data = tree.mixture.sample(keys)
        self.real, self.held_out = np.asarray(data[:num]), data[num:]
        self.threshold = np.quantile(self.log_density(self.real), OUTLIER)
        self.share = np.bincount(tree.branch, tree.mixture.w)

    def chunks(self, f: Callable, x: np.ndarray) -> np.ndarray:
        """f(x (b, 2), level 0 (b,)) of many points."""
        parts = np.split(x, range(4096, len(x), 4096))
        return np.concatenate([jax.jit(f)(jnp.asarray(p), jnp.zeros(len(p))) for p in parts])

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """ln p(x) (n,), exact."""
        return self.chunks(self.tree.mixture.log_density, x)

    def samples(self, x: np.ndarray) -> dict[str, float]:
        """Of points (n, 2).

        outliers: percent below the density of all but 0.5% of the data.
        lost branches: percent of the branches that are nearest to less than half of their share
        of the points. misplaced: percent of the points that would have to move to another branch
        for all branches to have their share.
        """
        log = self.log_density(x)
        nearest = lambda x, s: self.tree.mixture.posterior(x, s).argmax(-1)
        branch = self.tree.branch[self.chunks(nearest, x)]
        found = np.bincount(branch, minlength=len(self.share)) / len(x)
        return {
            "median log density": float(np.median(log)),
            "mean log density": float(log.mean()),
            "outliers %": 100 * float((log < self.threshold).mean()),
            "lost branches %": 100 * float((found < self.share / 2).mean()),
            "misplaced %": 50 * float(np.abs(found - self.share).sum()),
        }

    def nll(self, denoise: Denoise, x: jax.Array) -> jax.Array:
        """Minus the mean log density (nats) that the ODE of a denoiser gives held-out data."""
        log, _ = likelihood.log_likelihood(denoise, x, steps=64, sigma_min=0.002, sigma_max=5.0)
        return -log.mean()


def run(e: common.Experiment) -> None:
    """Trains the networks of each seed, measures every method and weight, draws samples."""
    seeds = e.pick(3, 5, 1)
    train_steps, weak_steps, batch = e.pick((4096, 512, 1024), (4096, 512, 4096), (8, 4, 64))
    num, held_out = e.pick((8192, 1024), (65536, 8192), (256, 32))
    one, both = toy.trees(*e.pick((5, 6), (7, 8), (2, 2)))
    judge = Judge(one, num, held_out)
    settings = {  # hidden units, data, training steps
        "main": (64, one, train_steps),
        "unconditional": (64, both, train_steps),
        "weak": (32, one, weak_steps),
        "early": (64, one, weak_steps),
    }
    nets = {name: toy.Energy(hidden) for name, (hidden, _, _) in settings.items()}
    train = {
        name: toy.trainer(nets[name], tree.mixture, length, batch)
        for name, (_, tree, length) in settings.items()
    }

    @functools.partial(jax.jit, static_argnames="method")
    def draw(method: str, params: Weights, w: jax.Array, keys: jax.Array) -> jax.Array:
        return drive.sample(steps.heun, guided(method, nets, params, w), keys, (2,), LEVELS)

    @functools.partial(jax.jit, static_argnames="method")
    def nll(method: str, params: Weights, w: jax.Array) -> jax.Array:
        return judge.nll(guided(method, nets, params, w), judge.held_out)

    keys = rng.seed_keys(2, np.arange(num))
    exact = jax.jit(lambda k: drive.sample(steps.heun, one.mixture.denoise, k, (2,), LEVELS))
    rows: list[common.Row] = [
        {"method": "data", **judge.samples(judge.real)}
        | {"nll": -float(one.mixture.log_density(judge.held_out, jnp.zeros(held_out)).mean())},
        {"method": "exact score", **judge.samples(np.asarray(exact(keys)))}
        | {"nll": float(jax.jit(lambda x: judge.nll(one.mixture.denoise, x))(judge.held_out))},
    ]
    points = {}
    found: dict[tuple[str, float], list[dict[str, float]]] = {}
    for seed in range(e.seed, e.seed + seeds):
        params = {}
        for name, of_seed in train.items():
            params[name] = jax.device_get(of_seed(seed))
            e.log(f"seed {seed}: trained {name}")
        for method, weights in WEIGHTS.items():
            for w in weights:
                x = np.asarray(draw(method, params, jnp.float32(w), keys))
                scores = judge.samples(x) | {"nll": float(nll(method, params, jnp.float32(w)))}
                found.setdefault((method, w), []).append(scores)
                told = ", ".join(f"{n} {v:.3g}" for n, v in scores.items())
                e.log(f"seed {seed}: {method} {w:g}: {told}")
                if seed == e.seed and SHOWN.get(method) == w:
                    points[f"{method}, w = {w:g}" if w != 1 else "no guidance"] = x
    for (method, w), each in found.items():
        rows.append({"method": method, "weight": w, **common.over_seeds(each)})
    columns = [
        "method",
        "weight",
        "median log density",
        "outliers %",
        "lost branches %",
        "misplaced %",
    ]
    e.write(rows, [*columns, "nll"])
    figure(e, judge, points)
    tradeoff(e, rows)


def figure(e: common.Experiment, judge: Judge, points: dict[str, np.ndarray]) -> None:
    """Samples over the density, as in the paper's Figure 1."""
    import matplotlib.pyplot as plt

    low, high = judge.real.min(0) - 0.15, judge.real.max(0) + 0.15
    axis = [np.linspace(a, b, 300) for a, b in zip(low, high)]
    mesh = np.stack(np.meshgrid(*axis), -1).reshape(-1, 2).astype(np.float32)
    density = judge.chunks(lambda x, s: judge.tree.mixture.log_density(x, s + 0.01), mesh).reshape(
        300, 300
    )
    fig, axes = plt.subplots(2, 2, figsize=(10, 10), sharex=True, sharey=True, layout="tight")
    for ax, (title, x) in zip(axes.flat, points.items()):
        ax.contourf(*axis, np.maximum(density, -4), levels=np.linspace(-4, 4, 9), cmap="Oranges")
        x = x[:4000]
        bad = judge.log_density(x) < judge.threshold
        ax.plot(*x[~bad].T, ".", ms=1.5, color="black")
        ax.plot(*x[bad].T, ".", ms=2.5, color="tab:blue")
        ax.set_title(f"{title}: {100 * bad.mean():.1f}% outliers (blue)")
        ax.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[], aspect="equal")
    e.save(fig)


def tradeoff(e: common.Experiment, rows: list[common.Row]) -> None:
    """Outliers against what is lost, a line a method."""
    import matplotlib.pyplot as plt

    fig, ax = plt.subplots(figsize=(6, 4.5), layout="tight")
    start = next(r for r in rows if r["method"] == "none")
    for method in WEIGHTS:
        if method == "none":
            continue
        line = [start, *(r for r in rows if r["method"] == method)]
        x, y = ([r[n] for r in line] for n in ("outliers %", "misplaced %"))
        ax.plot(x, y, "o-", label=method)
        for r in line[1:]:
            ax.annotate(f"{r['weight']:g}", (r["outliers %"], r["misplaced %"]), fontsize=8)
    ax.plot(start["outliers %"], start["misplaced %"], "ks", label="no guidance")
    ax.plot(rows[0]["outliers %"], rows[0]["misplaced %"], "k*", ms=10, label="data")
    ax.set(xlabel="outliers, %", ylabel="misplaced among the branches, %")
    ax.legend()
    e.save(fig, "tradeoff.png")


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

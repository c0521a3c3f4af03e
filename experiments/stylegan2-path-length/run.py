"""Does the path-length regulariser make the generator smoother, and at what price (1912.04958)?

StyleGAN2 at several weights of the regulariser: perceptual path lengths in W, the spread of the
lengths that are regularised, and the distance of samples.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen.cli import styles
from jaxgen.objectives import path_length

PPL = ("ppl_w_full", "ppl_w_end")


def lengths(generator: Any, rows: Any) -> jax.Array:
    """|J_w^T y| (n,) of one random y an image, as the regulariser sees them."""
    w = generator.mapping(generator.latents(rows["key"]), styles.cond_of(rows))
    ws = jnp.repeat(w[:, None], generator.num_ws, 1)
    draw = lambda ws: generator.synthesis(ws, rows["key"])
    return path_length.penalty(draw, ws, rows["key"], jnp.zeros(()))[1]


def run(e: common.Experiment) -> None:
    """Trains each weight with several seeds, scores the averages."""
    weights = e.pick((0.0, 2.0), (0.0, 2.0, 10.0), (0.0, 2.0))
    num = e.pick(2000, 10_000, 32)
    found: dict[float, list[dict[str, float]]] = {w: [] for w in weights}
    spread, judge = {}, None
    for seed in range(e.seed, e.seed + e.pick(2, 3, 1)):
        for weight in weights:
            changes = {0.0: ("loss.path_every=0",), 2.0: ()}  # 2 is the config's
            changes = changes.get(weight, (f"loss.path_weight={weight}",))
            path = common.lineage(e, "stylegan2", *changes, seed=seed)
            metrics = "frechet", "precision_recall", *PPL
            judge = common.Judge(path, num, seed, metrics, num_real=5 * num, like=judge)
            params = judge.run.average(None).params
            rows = styles.rows_of(judge.run, range(num), seed)
            each = styles.Tool(judge.run, lengths).whole(params, rows, num)
            spread[weight] = each / each.mean()  # of the last seed
            both = {"length": float(each.mean()), "spread": float(spread[weight].std())}
            found[weight].append(judge() | both)
            e.log(f"weight {weight:g}, seed {seed}: {found[weight][-1]}")
    rows = [{"weight": w, **common.over_seeds(s)} for w, s in found.items()]
    columns = ["weight", *(f"{n}{s}" for n in ("frechet", *PPL) for s in ("", " std"))]
    e.write(rows, [*columns, "precision", "recall", "length", "spread"])
    figure(e, found, spread)


def figure(e: common.Experiment, found: dict[float, Any], spread: dict[float, np.ndarray]) -> None:
    """Path length against distance, a point a run; the spread of regularised lengths."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(14, 4.2), layout="constrained")
    label = lambda w: f"weight {w:g}" if w else "without"
    for ax, name in zip(axes, PPL):
        for w, scores in found.items():
            ax.plot([s[name] for s in scores], [s["frechet"] for s in scores], "o", label=label(w))
        ax.set(xlabel=name.replace("_", " "), ylabel="Fréchet distance")
        ax.legend()
    for w, each in spread.items():
        bins = np.linspace(0, 3, 40)
        axes[2].hist(each, bins, density=True, histtype="step", lw=2, label=label(w))
    axes[2].set(xlabel="length |J^T y|, relative to its mean", ylabel="density")
    axes[2].legend()
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run, runs="lineage")

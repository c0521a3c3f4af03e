"""What do preconditioning, loss and augmentation bring to a VP score network (2206.00364, Table 2)?

One network and budget, one change at a time, one deterministic sampler for all; the last change is
tried once more with a network that overfits. Besides samples, the denoisers are compared level by
level on training and on held-out images.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen.cli import common as cli
from jaxgen.cli import sampling
from jaxgen.common import units
from jaxgen.metrics import evaluate, stream


class Arm(NamedTuple):
    """A training: argument of configs/edm/digits.py, probability of augmentation, its size."""

    argument: str
    augment: float = 0.0
    large: bool = False  # a wider network, trained for longer: the one that overfits
    seeds: tuple[int, ...] = (0, 1)


ARMS = {  # each of the first four has one change more
    "VP baseline": Arm("ddpmpp,vp"),
    "+ EDM preconditioning": Arm("ddpmpp,edm,vp_loss"),
    "+ EDM loss": Arm("ddpmpp,edm"),
    "+ augmentation": Arm("ddpmpp,edm", 0.12),
    "+ EDM loss, large": Arm("ddpmpp,edm", 0.0, True, (0,)),
    "+ augmentation, large": Arm("ddpmpp,edm", 0.12, True, (0,)),
}
LEVELS = np.geomspace(0.01, 40.0, 13)
SIGMA_DATA = {"digits": 0.75, "fashion_mnist": 0.7}


def train(e: common.Experiment, name: str, seed: int) -> cli.Run:
    """The run of one of ARMS."""
    arm = ARMS[name]
    wide = ["model.channel_mult=(1,2,2)", "model.attn_resolutions=(7,)"]
    wide += ["data.source=fashion_mnist"]
    wide += ["precond.sigma_data=0.7"] * ("edm" in arm.argument)
    wide += ["loss.sigma_data=0.7"] * (arm.argument == "ddpmpp,edm")
    width, images = e.pick((8, 102_400), (32, 4_096_000), (8, 64))
    if arm.large:
        width, images = 2 * width, 5 * images // 2
    path = dataclasses.replace(e, seed=seed).train(
        f"{list(ARMS).index(name)}_seed{seed}",
        f"configs/edm/digits.py:{arm.argument}",
        *e.pick([], wide, []),
        f"model.model_channels={width}",
        f"augment.p={arm.augment}",
        f"images={images}",
        f"checkpoint_every={images}",
        f"snapshot_every={images // 5}",
    )
    return cli.Run.open(path)


def errors(run: cli.Run, params: Any, split: str) -> np.ndarray:
    """The error of the denoiser at each of LEVELS (n,), that of the best linear denoiser being 1.

    (That is if the pixels were Gaussian, independent, of mean 0 and standard deviation sigma_data.)
    """
    source = cli.load_source(run.config.data.source, split)
    rows = [source[i] for i in range(min(len(source), 512))]
    y = units.from_uint8(jnp.stack([r["image"] for r in rows]))
    cond = {"label": jax.nn.one_hot(jnp.array([r["label"] for r in rows]), source.label_dim)}
    denoise = run.plan.exports["denoise"].fn(params, {})

    @jax.jit
    def error(sigma: jax.Array, key: jax.Array) -> jax.Array:
        x = y + sigma * jax.random.normal(key, y.shape)
        return jnp.mean(jnp.square(denoise(x, jnp.full(len(y), sigma), cond) - y))

    sigma_data = SIGMA_DATA[run.config.data.source]
    linear = (LEVELS * sigma_data) ** 2 / (LEVELS**2 + sigma_data**2)
    keys = jax.random.split(jax.random.key(0), len(LEVELS))
    return np.array([float(error(s, k)) for s, k in zip(LEVELS, keys)]) / linear


def look(e: common.Experiment, run: cli.Run) -> common.Row:
    """Distances of samples to the training and the test images, errors of the denoiser."""
    judge = common.Judge(run.workdir, e.pick(2000, 10_000, 16), 0, ("frechet",))
    scorer = judge.scorer()
    params = run.average(None).params
    batch = sampling.inputs(run.plan, run.facts, judge.num, labels=None)
    samples = units.to_uint8(sampling.collect(scorer.sampler(params, batch, judge.num, 0))["image"])
    test = cli.load_source(run.config.data.source, "test")
    held_out = stream.features(scorer.net, [np.stack([test[i]["image"] for i in range(len(test))])])
    fake = stream.features(scorer.net, [samples])
    to = lambda real: next(
        iter(evaluate.compare(fake, real, ["frechet"], net_name=scorer.net.name).values())
    )
    found: common.Row = {"frechet": to(scorer.real), "frechet to test": to(held_out)}
    for split in ("train", "test"):
        each = errors(run, params, split)
        found |= {f"{split} error": float(each.mean())}
        found |= {f"{split} error at {s:.3g}": float(v) for s, v in zip(LEVELS, each)}
    return found


def run(e: common.Experiment) -> None:
    """Trains all, looks, writes."""
    rows = []
    names = e.pick(list(ARMS), list(ARMS), ["VP baseline", "+ augmentation, large"])
    for name in names:
        each = []
        seeds = e.pick(ARMS[name].seeds, ARMS[name].seeds, (0,))
        for seed in seeds:
            each.append(look(e, train(e, name, seed)))
            e.log(f"{name}, seed {seed}: frechet {each[-1]['frechet']:.3f}")
        row: common.Row = {"training": name}
        row |= {f"frechet, seed {s}": r["frechet"] for s, r in zip(seeds, each)}
        row |= {n: float(np.mean([r[n] for r in each])) for n in each[0]}
        rows.append(row)
    figure(e, rows)
    e.write(rows, [n for n in rows[0] if " at " not in n])


def figure(e: common.Experiment, rows: list[common.Row]) -> None:
    """Distances of each seed; errors on held-out images against the level."""
    import matplotlib.pyplot as plt

    fig, (left, right) = plt.subplots(1, 2, figsize=(13, 4.8))
    place = np.arange(len(rows))
    for seed in (0, 1):
        each = [row.get(f"frechet, seed {seed}", np.nan) for row in rows]
        left.plot(place, each, "o", label=f"to training images, seed {seed}")
    left.plot(place, [row["frechet to test"] for row in rows], "k_", ms=25, label="to test, mean")
    names = [row["training"].replace(", ", ",\n").replace("EDM pre", "EDM\npre") for row in rows]
    left.set_xticks(place, names, rotation=30, fontsize=8)
    left.set(ylabel="frechet", ylim=(0, None), xlim=(-0.5, len(rows) - 0.5))
    for row in rows:
        each = [row[f"test error at {s:.3g}"] for s in LEVELS]
        dashes = "--" if ARMS[row["training"]].large else "-"
        right.loglog(LEVELS, each, dashes, marker="o", ms=3, label=row["training"])
    right.set(xlabel="sigma", ylabel="held-out error, best linear denoiser = 1")
    left.legend(fontsize=8)
    right.legend(fontsize=8)
    fig.tight_layout()
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

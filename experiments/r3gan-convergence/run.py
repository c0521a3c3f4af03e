"""Do relativistic pairs and penalties on both sides find more modes than plain GANs (2501.05441)?

Two losses, without penalties, with R1 and with R1 and R2 at several weights, on 25 Gaussians:

    non-saturating  L_D = softplus(D(G(z))) + softplus(-D(x)),  L_G = softplus(-D(G(z)))
    relativistic    L_D = softplus(D(G(z)) - D(x)),             L_G = softplus(D(x) - D(G(z)))
    R1, R2          gamma / 2 |grad D|^2 at real, at generated points
"""

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen import averaging
from jaxgen.common import params as parameters
from jaxgen.common import rng
from jaxgen.data import synthetic
from jaxgen.nn.layers import Dense, lrelu
from jaxgen.objectives import nonsaturating, r1, relativistic
from jaxgen.train import optim, state, step
from jaxgen.train.plan import Aux, Phase, Plan, Player

LOSSES = {"non-saturating": nonsaturating, "relativistic": relativistic}
PENALTIES = {"none": (), "R1": ("real",), "R1 + R2": ("real", "fake")}
ARMS = [(loss, penalty) for loss in LOSSES for penalty in PENALTIES]
CENTRES = 32**0.5 * synthetic.modes("grid")  # -4, -2, 0, 2, 4 along both axes
STD = 0.1
RATE = 3e-3  # learning rate
EMA = 0.05  # length of the power-function average that samples are of
Scores = list[dict[str, float]]  # over time


class Perceptron(nn.Module):
    """x (b, n) -> (b, out), four hidden layers; no normalisation."""

    hidden: int
    out: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(4):
            x = Dense(self.hidden, w_init=parameters.he_normal(2.0), name=f"fc{i}")(x)
            x = lrelu(x, gain=1.0)
        return Dense(self.out, name="out")(x)


def draw(keys: jax.Array) -> jax.Array:
    """Data (b, 2)."""
    which, noise = rng.split(keys, 2)
    index = (rng.uniform(which) * len(CENTRES)).astype(jnp.int32)
    return jnp.asarray(CENTRES, jnp.float32)[index] + STD * rng.normal(noise, (2,))


def score(x: np.ndarray) -> dict[str, float]:
    """Of points (n, 2).

    close %: those within 4 standard deviations of a centre. modes: those with at least a quarter of
    their share of n such points. KL: from uniform frequencies to those of all modes among them.
    """
    distance = np.linalg.norm(x[:, None] - CENTRES, axis=-1)
    close = distance.min(1) < 4 * STD
    counts = np.bincount(distance.argmin(1)[close], minlength=len(CENTRES))
    p = counts[counts > 0] / max(counts.sum(), 1)
    return {
        "modes": float((counts >= len(x) / len(CENTRES) / 4).sum()),
        "KL": float((p * np.log(p * len(CENTRES))).sum()),
        "close %": 100 * float(close.mean()),
    }


def plan(hidden: int, loss: ModuleType, sides: tuple[str, ...], gamma: Any) -> Plan:
    """Two players, two phases; penalties on `sides`, of "real" and "fake"."""
    nets = {"generator": Perceptron(hidden, 2), "discriminator": Perceptron(hidden, 1)}
    call = lambda name, params, x: nets[name].apply({"params": params[name]}, x)
    look = lambda params, x: call("discriminator", params, x)[:, 0]
    generate = lambda params, keys: call("generator", params, rng.normal(keys, (2,)))

    def gen(params, batch, keys, context):
        fake = look(params, generate(params, keys))
        if loss is relativistic:
            return loss.generator(look(params, batch["x"]), fake), Aux()
        return loss.generator(fake), Aux()

    def disc(params, batch, keys, context):
        judge = functools.partial(look, params)
        x = {"real": batch["x"], "fake": generate(params, keys)}
        each = loss.discriminator(judge(x["real"]), judge(x["fake"]))
        return each + sum(r1.penalty(judge, x[side], gamma) for side in sides), Aux()

    def player(name: str) -> Player:
        start = lambda key: parameters.init(nets[name], key, jnp.zeros((1, 2)))
        return Player(start, optim.adam(RATE, b1=0.0, b2=0.99))

    phases = [Phase("gen", ("generator",), gen), Phase("disc", ("discriminator",), disc)]
    return Plan({n: player(n) for n in nets}, phases, averages=averaging.tracks((EMA,)))


def trainer(
    hidden: int, loss: str, penalty: str, steps: int, times: int, batch: int, num: int
) -> Callable[[int, float], tuple[Scores, np.ndarray]]:
    """(seed, gamma) -> scores after each of `times` x `steps` steps, and the last points (num, 2).

    One program for all seeds and gammas. Points are of the averaged generator; its loss is the mean
    since the time before.
    """
    made = functools.partial(plan, hidden, LOSSES[loss], PENALTIES[penalty])
    net, latents = Perceptron(hidden, 2), rng.normal(rng.seed_keys(99, np.arange(num)), (2,))
    sample = jax.jit(lambda params: net.apply({"params": params}, latents))

    @jax.jit
    def run(now: state.TrainState, key: jax.Array, gamma: jax.Array) -> Any:
        one = step.make_step(made(gamma), batch=batch)

        def body(now: state.TrainState, _: None) -> Any:
            data = {"x": draw(rng.image_keys(rng.fold(key, now.step, "data"), batch))}
            now, metrics = one(now, data, {}, key)
            return now, metrics["gen/loss"]

        return jax.lax.scan(body, now, None, length=steps)

    def train(seed: int, gamma: float) -> tuple[Scores, np.ndarray]:
        now, scores = state.from_params(made(0.0), state.init_params(made(0.0), seed)), []
        for _ in range(times):
            now, losses = run(now, jax.random.key(seed), gamma)
            (average,) = now.averages.values()
            x = np.asarray(sample(average["generator"]))
            scores.append(score(x) | {"generator's loss": float(losses.mean())})
        return scores, x

    return train


def run(e: common.Experiment) -> None:
    """Plays every loss, penalty and weight, writes the table and the figures."""
    hidden, gammas = e.pick(64, 128, 8), e.pick((0.01, 0.1, 1.0), (0.001, 0.01, 0.1, 1.0), (0.1,))
    seeds, num = e.pick(4, 5, 1), e.pick(5000, 20_000, 100)
    steps, times, batch = e.pick((600, 10, 128), (2000, 20, 256), (2, 1, 16))
    real = score(np.asarray(jax.jit(draw)(rng.seed_keys(98, np.arange(num)))))
    rows: list[common.Row] = [{"loss": "(real data)", **real}]
    curves, points = {}, {}
    for loss, penalty in e.pick(ARMS, ARMS, ARMS[-1:]):
        train = trainer(hidden, loss, penalty, steps, times, batch, num)
        for gamma in gammas if PENALTIES[penalty] else (0.0,):
            arm = loss, penalty, gamma
            played = [train(seed, gamma) for seed in range(e.seed, e.seed + seeds)]
            curves[arm], points[arm] = [scores for scores, _ in played], played[0][1]
            row = dict(zip(("loss", "penalty", "gamma"), arm))
            rows.append(row | common.over_seeds([scores[-1] for scores, _ in played]))
            e.log(f"{rows[-1]}")
    columns = ["loss", "penalty", "gamma", "modes", "modes std", "KL", "KL std"]
    e.write(rows, [*columns, "close %", "close % std", "generator's loss"])
    figure(e, curves, steps)
    plot(e, points)


def figure(e: common.Experiment, curves: dict[tuple, list[Scores]], steps: int) -> None:
    """Modes, divergence and the generator's loss over training, without or with small penalties."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 3, figsize=(15, 4.3), layout="constrained")
    first = min(gamma for _, _, gamma in curves if gamma)
    for (loss, penalty, gamma), seeds in curves.items():
        if gamma > first:
            continue
        x = steps * np.arange(1, len(seeds[0]) + 1)
        style = {"color": f"C{list(PENALTIES).index(penalty)}"}
        style["ls"] = "-" if loss == "relativistic" else "--"
        label = f"{loss}, {penalty}" + (f", gamma {gamma:g}" if gamma else "")
        for ax, name in zip(axes, ("modes", "KL", "generator's loss")):
            y = np.array([[s[name] for s in scores] for scores in seeds])
            ax.plot(x, y.mean(0), **style, label=label)
            ax.fill_between(x, y.min(0), y.max(0), color=style["color"], alpha=0.1)
    axes[0].set(xlabel="steps", ylabel=f"modes found, of {len(CENTRES)}")
    axes[1].set(xlabel="steps", ylabel="KL of modes from uniform, nats", yscale="log")
    axes[2].set(xlabel="steps", ylabel="loss of the generator")
    axes[0].legend(fontsize=8)
    e.save(fig)


def plot(e: common.Experiment, points: dict[tuple, np.ndarray]) -> None:
    """Points of the first seed: a row a loss; no penalty, then R1 and R1 + R2, small weight."""
    import matplotlib.pyplot as plt

    first = min(gamma for _, _, gamma in points if gamma)
    fig, axes = plt.subplots(2, 3, figsize=(11, 7.6), layout="constrained")
    shown = {arm: x for arm, x in points.items() if arm[2] <= first}
    for ax, ((loss, penalty, gamma), x) in zip(axes.flat, shown.items()):
        ax.plot(*x[:3000].T, ".", ms=2, color="black")
        ax.set_title(f"{loss}, {penalty}" + (f", gamma {gamma:g}" if gamma else ""), fontsize=10)
        ax.set(xlim=(-5.5, 5.5), ylim=(-5.5, 5.5), xticks=[], yticks=[], aspect="equal")
    e.save(fig, "points.png")


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

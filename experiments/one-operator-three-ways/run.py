"""One operator inverted by a supervised network, from measurements alone, and by a prior?

Digits are blurred or made smaller, and noise is added. Three ways back: a network trained on pairs
of measurement and clean image; the same network trained on pairs of measurements of the same image
(Noise2Noise through the operator), which sees no image; and samples of a diffusion model of the
digits that no operator was known to when it was trained, steered by the measurement.
"""

import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen.cli import common as cli
from jaxgen.common import mesh as meshes
from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.data import pipeline
from jaxgen.metrics.psnr import psnr_8bit
from jaxgen.networks.n2n_unet import N2NUNet
from jaxgen.noise import operators
from jaxgen.objectives import measured
from jaxgen.recipes.denoise import ramps
from jaxgen.samplers import drive, grids, posterior, solvers
from jaxgen.train import optim, state, step
from jaxgen.train.plan import Aux, Phase, Plan, Player

OPERATORS = {
    "blur": {"std": 0.8, "sigma": 0.1},
    "downsample": {"factor": 2, "sigma": 0.1},
}
LOSSES = {"supervised": measured.supervised, "from measurements": measured.loss}
STEERING = {
    "prior, pigdm": {"method": "pigdm", "sigma_data": 0.75},
    "prior, tweedie": {"method": "tweedie", "iterations": 5},
    "prior, dps": {"method": "dps", "zeta": 2.0},
}
BATCH = 64


def network(e: common.Experiment, operator: Any, loss: Callable, images: int) -> Callable:
    """start(y) -> image: an N2N U-Net trained with one of LOSSES on the training digits."""
    source = cli.load_source("digits", "train")
    size = {"features": 4, "last_features": (4, 4)} if e.debug else {"features": 32}
    net = N2NUNet(depth=2, **{"last_features": (48, 32), **size})
    apply = lambda params, y: net.apply({"params": params}, y)

    def objective(params: Any, batch: Any, keys: jax.Array, context: Any) -> Any:
        x = units.from_uint8(batch["image"])
        return loss(lambda y: apply(params["restorer"], y), operator, x, keys), Aux()

    init = lambda key: parameters.init(net, key, jnp.zeros((1, *source.shape)))
    player = Player(init, optim.adam(ramps(1e-3, images), b1=0.9, b2=0.99))
    plan = Plan({"restorer": player}, [Phase("regression", ("restorer",), objective)])
    mesh = meshes.make_mesh()
    now = state.create(plan, e.seed, mesh)
    train = step.jit_step(plan, now, batch=BATCH, mesh=mesh)
    key = meshes.place(jax.random.key(e.seed), meshes.replicated(mesh))
    frozen = step.put_frozen(plan, mesh)
    with pipeline.batches(source, BATCH, e.seed) as host:
        for number, batch in enumerate(itertools.islice(host, images // BATCH)):
            now, _ = train(now, meshes.put_batch(batch, mesh), frozen, key, number)
    return jax.jit(lambda y: apply(now.params["restorer"], y))


def wiener(operator: Any) -> Callable:
    """start(y) -> image: the best affine map, by the mean and covariance of the training digits."""
    x = np.asarray(units.from_uint8(cli.load_source("digits", "train").arrays[0]))
    keys = rng.image_keys(jax.random.key(1), len(x))
    flat = lambda a: np.asarray(a, np.float64).reshape(len(a), -1)
    clean = operators.make(type(operator).__name__.lower(), **vars(operator) | {"sigma": 0.0})
    y, n = flat(clean.corrupt(keys, x)), y_size(operator, x)
    mean, cov = flat(x).mean(0), np.cov(y.T) + operator.sigma**2 * np.eye(n)
    cross = (flat(x) - mean).T @ (y - y.mean(0)) / (len(x) - 1)
    gain = np.linalg.solve(cov, cross.T)
    return lambda seen: (mean + (flat(seen) - y.mean(0)) @ gain).reshape(-1, *x.shape[1:])


def y_size(operator: Any, x: np.ndarray) -> int:
    """Numbers in the measurement of an image."""
    return int(np.prod(jax.eval_shape(operator.forward, x).shape[1:]))


def sampler(e: common.Experiment, prior: Path, operator: Any, how: dict[str, Any]) -> Callable:
    """(keys, y) -> samples of the prior that y tells of."""
    run = cli.Run.open(prior)
    export = run.plan.exports["denoise"]
    params = run.average(None, None, export.players).params
    levels = grids.edm(e.pick(18, 24, 2))
    shape = tuple(run.facts["shape"])

    def draw(params: Any, keys: jax.Array, y: jax.Array) -> jax.Array:
        steered = posterior.steer(export.fn(params, {}), operator, y, **how)
        return drive.sample(solvers.make("heun"), steered, keys, shape, levels)

    compiled = jax.jit(draw)
    return lambda keys, y: compiled(params, keys, y)


def run(e: common.Experiment) -> None:
    """Trains the prior once and two networks an operator; scores all on the same measurements."""
    size = e.pick(("images=100k",), ("images=2M",), ())
    prior = e.train("prior", "configs/edm/digits.py", "data.labels=False", *size)
    n, draws = e.pick((96, 4), (512, 8), (8, 2))
    x = np.asarray(units.from_uint8(cli.load_source("digits", "test").arrays[0][:n]))
    rows, pictures = [], {}
    for name, settings in OPERATORS.items():
        operator = operators.make(name, **settings)
        y = operator.corrupt(rng.image_keys(jax.random.key(100 + e.seed), n), x)
        start = operator.start(y)
        shown = {"true": x, "measured": start}

        def misfit(image: Any, operator: Any = operator, y: Any = y) -> float:
            """Root mean square of y - A image over that of the noise; 1 for the true image."""
            error = operator.forward(jnp.asarray(image, jnp.float32)) - y
            return float(jnp.sqrt(jnp.square(error).mean())) / operator.sigma

        def add(way: str, image: Any, name: str = name, **more: Any) -> None:
            row = {"operator": name, "way": way, "PSNR": float(psnr_8bit(image, x).mean())}
            rows.append(row | {"misfit": misfit(image)} | more)
            e.log(f"{rows[-1]}")

        add("nothing (measurement)", np.asarray(start))
        shown["best affine map"] = np.asarray(wiener(operator)(y), np.float32)
        add("best affine map", shown["best affine map"])
        for way, loss in LOSSES.items():
            restore = network(e, operator, loss, e.pick(50_000, 500_000, 2 * BATCH))
            shown[way] = np.asarray(restore(start))
            add(way, shown[way])
        for way, how in STEERING.items():
            draw, parts = sampler(e, prior, operator, how), []
            for i in range(draws):
                keys = rng.image_keys(rng.fold(jax.random.key(e.seed), i), n)
                parts.append(np.asarray(draw(keys, y)))
            samples = np.stack(parts)
            mean = samples.mean(0)
            # For samples of the true posterior the squared error of the mean of k is this spread.
            spread = samples.var(0, ddof=1).mean() * (1 + 1 / draws)
            sure = float(np.sqrt(np.square(mean - x).mean() / spread))
            add(f"{way}: one sample", samples[0])
            add(f"{way}: mean of {draws}", mean, **{"error / spread": sure})
            shown[way] = samples[0]
            if "pigdm" in way:
                shown[f"mean of {draws}"] = mean
        pictures[name] = {way: units.to_uint8(np.asarray(v[:6])) for way, v in shown.items()}
    e.write(rows, ["operator", "way", "PSNR", "misfit", "error / spread"])
    figure(e, pictures)


def figure(e: common.Experiment, pictures: dict[str, dict[str, np.ndarray]]) -> None:
    """A column an image, a row a way, a panel an operator."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, len(pictures), figsize=(12, 8), layout="constrained")
    for ax, (name, images) in zip(axes, pictures.items()):
        rows = [np.concatenate(list(np.pad(v, ((0, 0), (0, 1), (0, 1), (0, 0)))), 1)
                for v in images.values()]  # fmt: skip
        sheet = np.concatenate(rows)[..., 0]
        ax.imshow(sheet, cmap="gray", vmin=0, vmax=255)
        height = rows[0].shape[0]
        ax.set_yticks(height * (np.arange(len(rows)) + 0.5), list(images))
        ax.set_xticks([])
        ax.set_title(f"{name}, {OPERATORS[name]}", fontsize=10)
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

"""Do StyleGAN2, StyleGAN3-T and -R follow shifts and rotations of their input (2106.12423)?

EQ-T, EQ-T_frac and EQ-R of generators at initialisation, with several seeds, and after a short
training. As in the paper, StyleGAN2 gets an input that can be moved: fixed Fourier features in
place of its learned constant. An untrained generator's images are scaled to standard deviation 0.5,
about that of photos, since paler images would have smaller errors for that reason alone.
"""

import dataclasses
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen import recipes
from jaxgen.cli import common as cli
from jaxgen.common import mesh as meshes
from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.data import pipeline
from jaxgen.metrics import equivariance
from jaxgen.networks import stylegan3
from jaxgen.recipes.gan_networks import Networks
from jaxgen.train import loop
from jaxgen.train.plan import Plan, Stage

CONTRAST = 0.5
BATCH = 4  # images that move alike
T, R = "StyleGAN3-T", "StyleGAN3-R"
ARMS = {  # name: member of configs/gan, changes of its generator
    "StyleGAN2": ("stylegan2", {}),
    T: ("stylegan3", {}),
    R: ("stylegan3", {"kernel": 1, "radial": True}),
    f"{T}, no margin": ("stylegan3", {"margin": 0}),
    f"{T}, filters a third as long": ("stylegan3", {"filter_size": 2}),
}
TRAINED = ("StyleGAN2", T, R)
Tree = Any


def waves(channels: int, transform: jax.Array) -> jax.Array:
    """StyleGAN2's input (4, 4, channels), moved: Fourier features within the band of 4x4 samples.

    Of variance 1, as the learned constant has at the start. No margin: it shows the unit square.
    """
    draw = np.random.default_rng(0)
    n, phases = draw.normal(size=(channels, 2)), draw.uniform(-0.5, 0.5, channels)
    square = np.square(n).sum(1, keepdims=True)
    freqs = 2 * n / np.sqrt(square) * np.exp(-square / 4)  # uniform on a disc of radius 2
    x, y = np.meshgrid(*((np.arange(4) - 1.5) / 4,) * 2)
    points = jnp.stack([x, y, np.ones_like(x)], -1) @ transform.T
    return 2**0.5 * jnp.sin(2 * np.pi * (points[..., :2] @ freqs.T + phases)).astype(jnp.float32)


def with_waves(params: Tree, transform: jax.Array) -> Tree:
    """A StyleGAN2's params with `waves` as its constant."""
    synthesis = params["synthesis"]
    moved = waves(synthesis["b4_const"].shape[-1], transform)
    return {**params, "synthesis": {**synthesis, "b4_const": moved}}


@dataclasses.dataclass
class Arm:
    """A generator, with its config and data."""

    name: str
    config: Any
    facts: dict[str, Any]
    module: Any

    @classmethod
    def make(cls, e: common.Experiment, name: str) -> "Arm":
        """The member of configs/gan for Fashion-MNIST, unconditional; small at budget cpu."""
        member, changes = ARMS[name]
        width = e.pick(16, 64, 8)
        spec = f"configs/gan/fashion_mnist.py:{member}" + ",debug" * e.debug
        config = cli.load_config(str(common.ROOT / spec), ["--config.data.labels=False"])
        with config.unlocked():
            config.batch = e.pick(16, 32, 16)
            config.loss.update(path_every=0, style_mixing=0.0)  # as for StyleGAN3
            config.generator.update(channel_max=width, channel_base=16 * width, **changes)
            config.discriminator.update(channel_max=2 * width, channel_base=32 * width)
            if member == "stylegan3":
                config.generator.num_layers = e.pick(5, 8, 4)
        # The size of the data is all that matters here, and there may be none at debug size.
        facts = {"shape": (28, 28, 1), "label_kind": "none", "label_dim": 0, "name": name}
        return cls(name, config, facts, Networks.make(config, facts).generator)

    def synthesis(self, params: Tree, ws: jax.Array, transform: jax.Array) -> jax.Array:
        """Images (b, 32, 32, 1) of styles, their input moved by `transform` (3, 3)."""
        if isinstance(self.module, stylegan3.Generator):
            moved = {"transform": transform}
        else:
            params, moved = with_waves(params, transform), {}
        return self.module.apply({"params": params}, ws, method="synthesis", **moved)

    def plan(self) -> Plan:
        """The plan of its training; a StyleGAN2's input stays as it is."""
        plan = recipes.build(self.config, self.facts)
        if isinstance(self.module, stylegan3.Generator):
            return plan
        old = plan.players["generator"]
        init = lambda key: with_waves(old.init(key), jnp.eye(3))
        new = dataclasses.replace(old, init=init, fixed=(*old.fixed, r"b4_const$"))
        return dataclasses.replace(plan, players={**plan.players, "generator": new})

    def train(self, e: common.Experiment, images: int) -> Tree:
        """The average of a generator after so many images."""
        config, mesh = self.config, meshes.make_mesh()
        source = cli.load_source(config.data.source, "train")

        def data(start: int) -> Any:
            host = pipeline.batches(source, config.batch, e.seed, start)
            return pipeline.to_device(host, lambda b: meshes.put_batch(b, mesh))

        e.log(f"training {self.name} on {images} images")
        state, _ = loop.train(
            [Stage(self.plan(), images)],
            data,
            workdir=e.workdir / self.name,
            mesh=mesh,
            batch=config.batch,
            seed=e.seed,
            every=loop.Every(log=images // 10, checkpoint=images // 5, snapshot=0),
            progress=False,
            log=e.log,
        )
        return state.averages["power_0.100"]["generator"]


class Ruler:
    """Measures generators of one arm, which is compiled once."""

    def __init__(self, arm: Arm, batches: int):
        self.arm, self.batches = arm, batches
        self.map = jax.jit(lambda p, z: arm.module.apply({"params": p}, z, method="mapping"))
        self.draw = jax.jit(lambda p, scale, ws, transform: scale * arm.synthesis(p, ws, transform))

    def __call__(self, params: Tree, scaled: bool, seed: int) -> tuple[common.Row, np.ndarray]:
        """The metrics and the contrast before scaling; images: still, moved by both kinds."""
        keys = rng.seed_keys(seed, np.arange(self.batches * BATCH))
        z = rng.normal(keys, (self.arm.module.z_dim,))
        styles = jnp.split(self.map(params, z), self.batches)
        still = [self.draw(params, 1.0, ws, jnp.eye(3)) for ws in styles]
        std = float(np.std(np.concatenate(still)))
        scale = CONTRAST / std if scaled else 1.0
        synthesis = lambda ws, transform: self.draw(params, scale, ws, transform)
        found = equivariance.measure(synthesis, styles, seed)
        moves = (
            jnp.eye(3),
            equivariance.translation(np.array([0.125, 0])),
            equivariance.rotation(np.pi / 4),
        )
        shown = np.concatenate([synthesis(styles[0], m)[:1] for m in moves])
        return {**found, "contrast": std}, shown


def run(e: common.Experiment) -> None:
    """Measures at initialisation, trains, measures again."""
    arms = e.pick(list(ARMS), list(ARMS), ["StyleGAN2", T])
    seeds, batches = e.pick(3, 5, 1), e.pick(16, 1000, 2)
    images = e.pick(24_576, 5_000_000, 0)
    rows, shown = [], []
    for arm in (Arm.make(e, name) for name in arms):
        ruler = Ruler(arm, batches)
        z = jnp.zeros((1, arm.module.z_dim))
        init = lambda seed, arm=arm, z=z: parameters.init(arm.module, jax.random.key(seed), z)
        tries = []
        for seed in range(e.seed, e.seed + seeds):
            scores, pictures = ruler(init(seed), True, seed)
            tries.append(scores)
            if seed == e.seed:
                shown.append(pictures)
            e.log(f"{arm.name}, seed {seed}: {scores}")
        rows.append({"generator": arm.name, "images": 0, **common.over_seeds(tries)})
        if images and arm.name in TRAINED:
            scores, pictures = ruler(arm.train(e, images), False, e.seed)
            shown.append(pictures)
            rows.append({"generator": arm.name, "images": images, **scores})
            e.log(f"{arm.name}, trained: {scores}")
    figure(e, rows, shown)
    metrics = [f"{m}{s}" for m in equivariance.METRICS for s in ("", " std")]
    e.write(rows, ["generator", "images", *metrics, "contrast"])


def name(row: common.Row) -> list[str]:
    """Of a row, in parts."""
    return [*row["generator"].split(", "), *(["trained"] if row["images"] else [])]


def figure(e: common.Experiment, rows: list[common.Row], shown: list[np.ndarray]) -> None:
    """Decibels of each generator; an image of each, still, shifted and turned."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(1, 2, figsize=(13, 5), layout="constrained", width_ratios=(2, 3))
    at = np.arange(len(rows))
    for i, metric in enumerate(equivariance.METRICS):
        values, error = ([r.get(n, 0) for r in rows] for n in (metric, f"{metric} std"))
        label = metric.upper().replace("_", "-", 1).replace("_FRAC", "_frac")
        axes[0].barh(at + 0.27 * (i - 1), values, 0.25, xerr=error, label=label)
    axes[0].set_yticks(at, [", ".join(name(r)) for r in rows])
    axes[0].invert_yaxis()
    axes[0].set(xlabel="dB, higher follows better")
    axes[0].legend()
    columns = [np.concatenate(list(pictures), 0) for pictures in shown]
    sheet = units.to_uint8(np.concatenate(columns, 1))[..., 0]
    axes[1].imshow(sheet, cmap="gray", vmin=0, vmax=255)
    size = sheet.shape[0] // 3
    names = ["\n".join(name(r)).replace("third as", "third\nas") for r in rows]
    axes[1].set_xticks(size * (np.arange(len(rows)) + 0.5), names, fontsize=7)
    axes[1].set_yticks(size * (np.arange(3) + 0.5), ["still", "shifted by 1/8", "turned by 45°"])
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

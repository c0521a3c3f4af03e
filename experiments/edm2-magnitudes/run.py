"""Do EDM2's layers keep activations and weights from growing, where ADM's do not (2312.02696)?

Three networks of equal width see the same images: ADM, EDM2 without and EDM2 with forced weight
normalisation. At several times the raw weights are read from checkpoints, and the rms of every
block's weights and, on one fixed noisy batch, of its output is noted.
"""

import contextlib
import dataclasses
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments import common
from jaxgen import recipes
from jaxgen.cli import common as cli
from jaxgen.common import trees, units
from jaxgen.train import state
from jaxgen.train.store import Store

NETWORKS = ("ADM", "EDM2, free weights", "EDM2")
PARTS = 16  # checkpoints of a run
BLOCK = re.compile(r"(enc|dec)_\d+_(block\d+|in\d+|down|up)")
SHOWN = (0, 1, 2, 4, 8, 16)  # those that are looked at; 0 is the initialisation


@contextlib.contextmanager
def free_weights() -> Iterator[None]:
    """Plans made inside have no forced weight normalisation, as the paper's CONFIG D."""
    build = recipes.build

    def without(config: Any, facts: Mapping) -> Any:
        plan = build(config, facts)
        free = {n: dataclasses.replace(p, project=None) for n, p in plan.players.items()}
        return dataclasses.replace(plan, players=free)

    with mock.patch.object(recipes, "build", without):
        yield


def train(e: common.Experiment, network: str) -> cli.Run:
    """The run of one of NETWORKS."""
    images = e.pick(204_800, 6_553_600, 64)
    small = ("model.model_channels=8", "model.channels_per_head=8")
    overrides = [
        *e.pick(small, (), ()),
        *("loss.P_mean=-0.4", "loss.P_std=1.0"),
        f"images={images}",
        f"checkpoint_every={images // PARTS}",
        f"keep_checkpoints={PARTS}",
        f"snapshot_every={images}",
    ]
    if network == "ADM":
        overrides += [f"data.source={e.pick('digits', 'fashion_mnist', 'digits')}"]
        wide = ("model.channel_mult=(1,2,2)", "model.attn_resolutions=(7,)")
        wide += ("precond.sigma_data=0.7", "loss.sigma_data=0.7")
        overrides += e.pick((), wide, ())
        return cli.Run.open(e.train("adm", "configs/edm/digits.py:adm", *overrides))
    config = f"configs/edm2/{e.pick('digits', 'fashion_mnist', 'digits')}.py"
    name = network.lower().replace(", ", "_").replace(" ", "_")
    with contextlib.nullcontext() if network == "EDM2" else free_weights():
        return cli.Run.open(e.train(name, config, *overrides))


def weights(params: Any) -> dict[str, float]:
    """The rms of all kernels of each block, by the block's name."""
    blocks: dict[str, list[np.ndarray]] = {}
    for path, leaf in trees.leaves(params).items():
        name, *_, last = path.split("/")
        if BLOCK.fullmatch(name) and last == "w" and leaf.ndim > 1:
            blocks.setdefault(name, []).append(np.asarray(leaf, np.float64).ravel())
    return {name: rms(np.concatenate(parts)) for name, parts in blocks.items()}


def rms(x: Any) -> float:
    """sqrt(mean x^2)."""
    return float(np.sqrt(np.mean(np.square(np.asarray(x, np.float64)))))


class Probe:
    """A network on the test images under fixed noise: its blocks' outputs and its error."""

    def __init__(self, run: cli.Run):
        test = cli.load_source(run.config.data.source, "test")
        rows = [test[i] for i in range(min(len(test), 512))]
        random = np.random.default_rng(0)
        y = units.from_uint8(jnp.stack([r["image"] for r in rows]))
        sigma = jnp.exp(jnp.float32(-0.4 + random.standard_normal(len(rows))))
        noise = jnp.float32(random.standard_normal(y.shape))
        x = y + sigma[:, None, None, None] * noise
        cond = {"label": jax.nn.one_hot(jnp.array([r["label"] for r in rows]), test.label_dim)}
        export = run.plan.exports["denoise"]
        weight = 1 / sigma**2 + 1 / 0.75**2
        order: list[str] = []  # of the blocks

        @jax.jit
        def see(params: Any) -> tuple[dict[str, jax.Array], jax.Array]:
            outputs = {}

            def note(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
                y = call(*args, **kwargs)
                if context.method_name == "__call__" and BLOCK.fullmatch(context.module.name or ""):
                    outputs[context.module.name] = jnp.sqrt(jnp.mean(jnp.square(y)))
                    order.append(context.module.name)
                return y

            with nn.intercept_methods(note):
                x0 = export.fn({"network": params}, {})(x, sigma, cond)
            return outputs, jnp.mean(weight * jnp.mean(jnp.square(x0 - y), (1, 2, 3)))

        self.see, self.order = see, order

    def __call__(self, params: Any) -> common.Row:
        """Columns of the table: means over blocks, extremes, each block, the weighted error."""
        outputs, error = jax.device_get(self.see(params))
        row: common.Row = {}
        kernels = weights(params)
        for what, found in (("activation", outputs), ("weight", kernels)):
            each = [float(found[name]) for name in self.order]
            row[what] = float(np.mean(each))
            row |= {f"{what} {name}": value for name, value in zip(self.order, each)}
        row["largest activation"] = max(float(v) for v in outputs.values())
        return row | {"test error": float(error)}


def run(e: common.Experiment) -> None:
    """Trains, looks, scores, writes."""
    rows = []
    for network in NETWORKS:
        opened = train(e, network)
        whole = state.abstract(opened.plan, opened.mesh)
        with Store(opened.workdir / "checkpoints") as store:
            times = store.numbers()
            chosen = [times[round(i * len(times) / PARTS) - 1] for i in SHOWN[1:]]
            tracked = {0: state.init_params(opened.plan, e.seed)["network"]}
            for time in sorted(set(chosen)):
                tracked[time] = store.restore(time, "state", whole).params["network"]
        probe = Probe(opened)
        mine = [{"network": network, "images": t} | probe(p) for t, p in tracked.items()]
        judge = common.Judge(opened.workdir, e.pick(2000, 10_000, 16), e.seed, ("frechet",))
        mine[-1] |= judge()
        e.log(f"{network}: {mine[-1]}")
        rows += mine
    figure(e, rows)
    columns = ("network", "images", "activation", "largest activation", "weight", "test error")
    e.write(rows, [*columns, "frechet"])


def figure(e: common.Experiment, rows: list[common.Row]) -> None:
    """Block by block: activations and weights against images, one colour a depth."""
    import matplotlib.pyplot as plt

    fig, axes = plt.subplots(2, 3, figsize=(13, 7), sharex=True, sharey="row")
    for column, network in zip(axes.T, NETWORKS):
        mine = [row for row in rows if row["network"] == network]
        images = [row["images"] for row in mine]
        for ax, what in zip(column, ("activation", "weight")):
            names = [n for n in mine[0] if n.startswith(what + " ")]
            for name, color in zip(names, plt.cm.viridis(np.linspace(0, 0.95, len(names)))):
                label = name.removeprefix(what + " ")
                values = np.array([row[name] for row in mine])
                values = values / values[0] if what == "weight" else values
                ax.plot(images, values, "o-", ms=3, color=color, label=label)
        column[0].set_title(network)
        column[1].set_xlabel("training images")
    axes[0, 0].set_ylabel("rms of block outputs")
    axes[0, 0].set_ylim(0, None)
    axes[1, 0].set_ylabel("rms of block weights, initial = 1")
    axes[0, 2].legend(fontsize=7, loc="upper left", bbox_to_anchor=(1, 1))
    e.save(fig)


if __name__ == "__main__":
    common.main(__file__, __doc__, run)

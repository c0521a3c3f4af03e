"""A plan whose numbers are known by hand: layers of one width, tanh between them."""

import jax
import jax.numpy as jnp

from jaxgen import averaging
from jaxgen.planning.chips import Topology, parse
from jaxgen.train.optim import adam
from jaxgen.train.plan import Aux, Phase, Plan, Player

WIDTH, LAYERS = 128, 4


def init(key, width=WIDTH, layers=LAYERS):
    keys = jax.random.split(key, layers)
    return {f"w{i}": jax.random.normal(k, (width, width)) / width**0.5 for i, k in enumerate(keys)}


def run(params, x, remat=False):
    def two(x, v, w):
        return jnp.tanh(jnp.tanh(x @ v) @ w)

    two = jax.checkpoint(two) if remat else two
    for i in range(0, len(params), 2):
        x = two(x, params[f"w{i}"], params[f"w{i + 1}"])
    return x


def plan(width=WIDTH, layers=LAYERS, remat=False, lazy=0):
    """Adam, one average; with `lazy` a second phase of the same loss every so many steps."""

    def loss(params, batch, key, context):
        x = batch["image"].reshape(-1, width).astype(jnp.float32)
        return jnp.square(run(params["net"], x, remat)).mean(-1), Aux()

    phases = [Phase("fit", ("net",), loss)]
    if lazy:
        phases.insert(0, Phase("lazy", ("net",), loss, every=lazy))
    return Plan(
        players={"net": Player(lambda key: init(key, width, layers), adam(1e-3))},
        phases=phases,
        averages=averaging.tracks(power=(0.1,)),
    )


def structs(batch, width=WIDTH):
    struct = jax.ShapeDtypeStruct
    return {
        "image": struct((batch, 1, 1, width), "float32"),
        "index": struct((batch,), "int32"),
    }


def small(chips=8, hbm=0.0, **row) -> Topology:
    """A GPU-like node of this many chips with little memory (GiB)."""
    chip = parse("h200:8").chip
    return Topology("small", (chips,), row=chip._replace(hbm=hbm or chip.hbm, **row))

"""A generator with styles whose images can be read: layer i fills rows 2i and 2i + 1."""

import json

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from jaxgen.cli import common
from jaxgen.common import mesh as meshes
from jaxgen.common import rng
from jaxgen.samplers.styles import Generator
from jaxgen.train.plan import Aux, Export, Phase, Plan, Player, Sample
from jaxgen.train.snapshot import Average

NUM_WS, DIM, SIZE = 4, 3, 8
MOVED = True  # whether its input can be moved
DRAW = np.random.default_rng(0)
PARAMS = {
    "generator": {
        "a": DRAW.normal(size=(DIM, DIM)).astype("f4"),
        "b": 0.3 * DRAW.normal(size=(DIM, SIZE)).astype("f4"),
        "noise_const": DRAW.normal(size=(SIZE, SIZE)).astype("f4"),
    }
}
FACTS = {"name": "digits", "shape": (SIZE, SIZE, 1), "label_kind": "class", "label_dim": 3}
FACTS |= {"length": 9, "class_names": None}


def generator(params, frozen):
    p = params["generator"]

    def truncate(w, cond, psi=1.0, cutoff=0):
        ws = jnp.repeat(w[:, None], NUM_WS, 1)
        return jnp.where(jnp.arange(NUM_WS)[:, None] < (cutoff or NUM_WS), psi * ws, ws)

    def synthesis(ws, keys=None):
        ws = ws if ws.ndim == 3 else jnp.repeat(ws[:, None], NUM_WS, 1)
        noise = p["noise_const"] if keys is None else rng.normal(keys, (SIZE, SIZE))
        return (jnp.tanh(jnp.repeat(ws @ p["b"], SIZE // NUM_WS, 1)) + 0.05 * noise)[..., None]

    return Generator(
        latents=lambda keys: rng.normal(keys, (DIM,)),
        mapping=lambda z, cond: z @ p["a"] + (0 if cond is None else cond["label"]),
        truncate=truncate,
        synthesis=synthesis,
        z_dim=DIM,
        w_dim=DIM,
        num_ws=NUM_WS,
        moved=(lambda ws, transform: transform[0, 0] * synthesis(ws)) if MOVED else None,
    )


def _sample(params, keys, batch, frozen, *, psi=1.0, cutoff=0):
    g, cond = generator(params, frozen), {"label": batch["label"]}
    ws = g.truncate(g.mapping(g.latents(keys), cond), cond, psi, cutoff)
    return {"image": g.synthesis(ws)}


def plan(styled=True):
    player = Player(lambda key: PARAMS["generator"], None)
    loss = lambda params, batch, key, context: (jnp.zeros(len(key)), Aux())
    return Plan(
        players={"generator": player},
        phases=[Phase("gen", ("generator",), loss)],
        sample=Sample(_sample, ("generator",), ("label",), {"psi": 1.0, "cutoff": 0}),
        exports={"generator": Export(generator, ("generator",))} if styled else {},
        evals=("frechet",),
    )


class Run(common.Run):
    """A run of the toy that was never trained."""

    def average(self, *_, **__):
        facts = {"average": "the toy's", "profile": "toy", "nimg": 0, "sigma_rel": None}
        return Average(PARAMS, facts)


def run(folder, styled=True):
    config = {"recipe": "toy", "data": {"source": "digits", "labels": True}, "features": "auto"}
    return Run(folder, ConfigDict(config), FACTS, plan(styled), meshes.make_mesh())


def facts_of(path):
    return json.loads(path.read_text())

"""Tomography recipe: a network from poor reconstructions to images, trained on projections only.

Each object of the data is scanned once: its noise belongs to its index, not to the step. The
methods "simulator" and "noise2inverse" see an object through that scan and in no other way;
"supervised" compares with the object itself, and so does the score of any run.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.networks.n2n_unet import N2NUNet
from jaxgen.networks.unet3d import UNet3D
from jaxgen.noise import operators
from jaxgen.noise.transmission import Scanner
from jaxgen.objectives import tomography as objective
from jaxgen.recipes import common, score
from jaxgen.recipes.denoise import ramps
from jaxgen.recipes.denoise_methods import choose
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Export, Phase, Plan, Player, Sample

NETWORKS = {
    "n2n_unet": lambda slices, **given: N2NUNet(out_channels=slices, **given),
    "unet3d": lambda slices, **given: UNet3D(**given),
}
METHODS = ("simulator", "noise2inverse", "supervised")


def scanner_of(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Scanner:
    """The scanner of config.noise for objects (h, w, c) of the data.

    Raises:
      ValueError: for an unknown scanner or setting, or objects that are not square.
    """
    h, w, c = facts["shape"]
    if h != w:
        raise ValueError(f"a scanner turns around square images or slices, got {h}x{w}")
    given = {k: score.plain(v) for k, v in config.noise.items()}
    shape = {"parallel_beam": {"size": h}, "helical": {"size": h, "depth": c}}
    name = given.pop("name")
    own = choose("config.noise.name", name, shape)
    if twice := sorted(set(own) & set(given)):
        raise ValueError(f"config.noise: the data's shape gives {twice}; leave them out")
    return operators.make(name, **own, **given)


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Args:
      config: with model, noise, loss, optimizer and averages (see configs/tomography/phantoms.py).
      facts: of the data source: shape (n, n, c); for a helical scan c are the slices.
    Raises:
      ValueError: for an unknown method, network or scanner.
    """
    scanner, opt, loss_cfg = scanner_of(config, facts), config.optimizer, config.loss
    method = choose("config.loss.method", loss_cfg.method, {m: m for m in METHODS})
    objective.held(jnp.zeros(1), scanner.views, loss_cfg.parts)  # found before training
    model = {k: score.plain(v) for k, v in config.model.items()}
    make = choose("config.model.network", model.pop("network"), NETWORKS)
    network = make(facts["shape"][2], dtype=common.dtype(config.dtype), **model)

    def of(params: Any) -> objective.Restore:
        return lambda x: network.apply({"params": params["restorer"]}, x)

    def loss(params, batch, key, context):
        del context
        x, scan = common.images(batch), rng.fold(jax.random.key(config.seed), "scan")
        y = scanner.corrupt(jax.vmap(lambda i: rng.fold(scan, i))(batch["index"]), x)
        if method == "supervised":
            return objective.supervised(of(params), scanner, y, x), Aux()
        if method == "noise2inverse":
            return objective.noise2inverse(of(params), scanner, y, key, loss_cfg.parts), Aux()
        each = objective.simulator(
            of(params), scanner, y, key, loss_cfg.parts, sharpen=loss_cfg.sharpen
        )
        return each, Aux()

    def sample(params, keys, batch, frozen):
        del frozen
        x = common.images(batch)
        y = scanner.corrupt(keys, x)
        start = scanner.start(y)
        if method == "supervised":
            image = of(params)(start)
        else:
            image = objective.reconstruct(of(params), scanner, y, loss_cfg.parts)
        return {"image": image, "input": start, "target": x}

    def restorer(params, frozen):
        del frozen

        def restore(x: jax.Array, level: jax.Array | None = None) -> jax.Array:
            if level is not None:
                raise ValueError("a reconstruction has no noise level; leave it out")
            return of(params)(x)

        return restore

    rate = ramps(opt.lr, units.images(config.images), opt.rampup, opt.rampdown)
    example = jnp.zeros((1, *facts["shape"]))
    return Plan(
        players={
            "restorer": Player(
                lambda key: parameters.init(network, key, example),
                optim.adam(rate, b1=opt.b1, b2=opt.b2),
            )
        },
        phases=[Phase("projections", ("restorer",), loss)],
        averages=common.averages(config),
        sample=Sample(sample, players=("restorer",), needs=("image",)),
        exports={"restore": Export(restorer, ("restorer",))},
        evals=("psnr",),
    )

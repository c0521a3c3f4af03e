"""Noise2Noise recipe: one restorer, trained on pairs of corrupted images or on clean targets."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import units
from jaxgen.networks.n2n_unet import N2NUNet
from jaxgen.noise import operators
from jaxgen.objectives import noise2noise
from jaxgen.recipes import common
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Phase, Plan, Player, Sample

TARGETS = {"noisy": noise2noise.loss, "clean": noise2noise.supervised}


def rampdown(rate: float, images: int, fraction: float = 0.3) -> optim.Schedule:
    """Constant, then over the last `fraction` of `images` (1/2 + cos(pi t) / 2)^2 down to 0."""

    def schedule(nimg: jax.Array) -> jax.Array:
        t = jnp.clip((nimg / images - 1.0) / fraction + 1.0, 0.0, 1.0)
        return rate * jnp.square(0.5 + 0.5 * jnp.cos(jnp.pi * t))

    return schedule


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Args:
      config: with model, loss (target "noisy" or "clean"), optimizer, noise and averages (see
        configs/noise2noise/digits.py).
      facts: of the data source: shape (h, w, c).
    Raises:
      ValueError: for another config.loss.target.
    """
    h, w, c = facts["shape"]
    loss_cfg, opt = config.loss, config.optimizer
    if loss_cfg.target not in TARGETS:
        raise ValueError(
            f"config.loss.target must be one of {sorted(TARGETS)}, got {loss_cfg.target!r}"
        )
    objective = TARGETS[loss_cfg.target]
    model = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in config.model.items()}
    network = N2NUNet(dtype=common.dtype(config.dtype), **model)
    low, high = config.noise.sigma_min, config.noise.sigma_max

    def restore(params: Any, x: jax.Array) -> jax.Array:
        return network.apply({"params": params}, x)

    def loss(params, batch, key, context):
        del context
        each = objective(
            lambda x: restore(params["restorer"], x),
            lambda keys, x: operators.gaussian(keys, x, (low, high)),
            common.images(batch),
            key,
            loss_cfg.norm,
        )
        return each, Aux()

    def sample(params, keys, batch, frozen, *, sigma: float = config.noise.sigma_eval):
        del frozen
        clean = common.images(batch)
        noisy = operators.gaussian(keys, clean, sigma)
        return {"image": restore(params["restorer"], noisy), "input": noisy, "target": clean}

    rate = rampdown(opt.lr, units.images(config.images), opt.rampdown)
    return Plan(
        players={
            "restorer": Player(
                lambda key: parameters.init(network, key, jnp.zeros((1, h, w, c))),
                optim.adam(rate, b1=opt.b1, b2=opt.b2),
            )
        },
        phases=[Phase("regression", ("restorer",), loss)],
        averages=common.averages(config),
        sample=Sample(
            sample,
            players=("restorer",),
            needs=("image",),
            options={"sigma": config.noise.sigma_eval},
        ),
        evals=("psnr",),
    )

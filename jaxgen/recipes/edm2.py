"""EDM2 recipe: one phase that trains two players, the network and its uncertainty head."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.data import augmentations, latents
from jaxgen.networks import edm2
from jaxgen.noise import precondition
from jaxgen.objectives import edm2 as objective
from jaxgen.objectives import label_dropout
from jaxgen.recipes import common, score
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Phase, Plan, Player


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Args:
      config: with model, loss, optimizer, sampler and averages (see configs/edm2/digits.py).
      facts: of the data source: shape (h, w, c), label_dim, label_kind.
    """
    h, w, c = facts["shape"]
    c = c // 2 if config.data.latents else c
    label_dim = score.label_dim(facts)
    model, loss_cfg, opt = config.model, config.loss, config.optimizer
    network = edm2.EDM2(
        channels=c,
        label_dim=label_dim,
        dtype=common.dtype(config.dtype),
        **{k: score.plain(v) for k, v in model.items() if k != "uncertainty_features"},
    )
    head = edm2.Uncertainty(model.uncertainty_features)
    family = precondition.family("edm", sigma_data=loss_cfg.sigma_data)
    one = (jnp.zeros((1, h, w, c)), jnp.zeros((1,)))
    example_cond = {"label": jnp.zeros((1, label_dim))} if label_dim else None

    def denoiser(params: Any, **kwargs: Any) -> precondition.Denoise:
        raw = lambda x, c_noise, cond: network.apply({"params": params}, x, c_noise, cond, **kwargs)
        return precondition.denoiser(raw, family)

    def loss(params, batch, key, context):
        rngs = {"dropout": context.key} if model.dropout else {}
        y, cond = common.images(batch), common.condition(batch, facts)
        if config.data.latents:
            fresh, key = rng.split(key, 2)
            y = latents.draw(fresh, y)
        if config.data.hflip:
            flip, key = rng.split(key, 2)
            y = augmentations.hflip(flip, y)
        if loss_cfg.label_dropout and cond:
            drop, key = rng.split(key, 2)
            cond = {"label": label_dropout.drop(drop, cond["label"], loss_cfg.label_dropout)}
        each, metrics = objective.loss(
            denoiser(params["network"], train=True, rngs=rngs),
            lambda sigma: head.apply({"params": params["uncertainty"]}, jnp.log(sigma) / 4),
            y,
            key,
            cond,
            P_mean=loss_cfg.P_mean,
            P_std=loss_cfg.P_std,
            sigma_data=loss_cfg.sigma_data,
        )
        return each, Aux(metrics)

    rate = optim.inverse_sqrt(
        opt.ref_lr, units.images(opt.ref_images), units.images(opt.rampup_images)
    )
    adam = lambda: optim.adam(rate, b1=opt.b1, b2=opt.b2)

    return Plan(
        players={
            "network": Player(
                lambda key: parameters.init(network, key, *one, example_cond),
                adam(),
                edm2.project,
                edm2.FIXED,
                edm2.SHARDING,
            ),
            "uncertainty": Player(
                lambda key: parameters.init(head, key, one[1]), adam(), edm2.project, edm2.FIXED
            ),
        },
        phases=[Phase("score", ("network", "uncertainty"), loss)],
        averages=common.averages(config),
        evals=("frechet", "kernel"),
        **score.sampling(config, facts, (h, w, c), denoiser, family),
    )

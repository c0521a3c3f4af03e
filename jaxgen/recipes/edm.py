"""EDM recipe: one network of score-SDE or ADM under any preconditioning and training levels."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.data import augmentations
from jaxgen.networks import adm, ddpmpp, ncsnpp
from jaxgen.nn import residual
from jaxgen.noise import levels, precondition
from jaxgen.objectives import augment, label_dropout
from jaxgen.objectives import edm as objective
from jaxgen.recipes import common, score
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Phase, Plan, Player

NETWORKS = {"ddpmpp": ddpmpp.UNet, "ncsnpp": ncsnpp.unet, "adm": adm.ADM}


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Args:
      config: with model, precond, loss, augment, optimizer, sampler and averages (see
      configs/edm/digits.py).
      facts: of the data source: shape (h, w, c), label_dim, label_kind.
    """
    h, w, c = facts["shape"]
    labels = score.label_dim(facts)
    model, loss_cfg, opt = config.model, config.loss, config.optimizer
    family = precondition.family(**config.precond)
    p_augment = config.augment.p
    if model.network not in NETWORKS:
        raise ValueError(
            f"config.model.network must be one of {sorted(NETWORKS)}, got {model.network!r}"
        )
    network = NETWORKS[model.network](
        channels=c,
        out_channels=family.outputs * c,
        label_dim=labels,
        augment_dim=augment.LABELS["edm"] if p_augment else 0,
        dtype=common.dtype(config.dtype),
        **{k: score.plain(v) for k, v in model.items() if k != "network"},
    )
    cond = {}
    if labels:
        cond["label"] = jnp.zeros((1, labels))
    if p_augment:
        cond["augment"] = jnp.zeros((1, network.augment_dim))
    example = (jnp.zeros((1, h, w, c)), jnp.zeros((1,)), cond or None)
    draw, weight = levels.training(
        loss_cfg.levels,
        **{k: v for k, v in loss_cfg.items() if k not in ("levels", "label_dropout")},
    )

    def denoiser(params: Any, **kwargs: Any) -> precondition.Denoise:
        raw = lambda x, c_noise, cond: network.apply({"params": params}, x, c_noise, cond, **kwargs)
        return precondition.denoiser(raw, family)

    def loss(params, batch, key, context):
        rngs = {"dropout": context.key} if model.dropout else {}
        y, cond = common.images(batch), common.condition(batch, facts) or {}
        flip, drop, warp, key = rng.split(key, 4)
        if config.data.hflip:
            y = augmentations.hflip(flip, y)
        if loss_cfg.label_dropout and "label" in cond:
            cond["label"] = label_dropout.drop(drop, cond["label"], loss_cfg.label_dropout)
        if p_augment:
            y, cond["augment"] = augment.augment(warp, y, p_augment)
        each, metrics = objective.loss(
            denoiser(params["network"], train=True, rngs=rngs), y, key, cond or None, draw, weight
        )
        return each, Aux(metrics)

    rate = optim.inverse_sqrt(opt.lr, 0, units.images(opt.rampup_images))
    return Plan(
        players={
            "network": Player(
                lambda key: parameters.init(network, key, *example),
                optim.adam(rate, b1=opt.b1, b2=opt.b2, eps=opt.eps),
                fixed=ncsnpp.FIXED if model.network == "ncsnpp" else (),
                sharding=residual.SHARDING,
            )
        },
        phases=[Phase("score", ("network",), loss)],
        averages=common.averages(config),
        evals=("frechet", "kernel"),
        **score.sampling(config, facts, (h, w, c), denoiser, family),
    )

"""Noisy classifier recipe: a network that knows the class at any noise level, to guide samplers."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.data import augmentations
from jaxgen.networks import adm_classifier
from jaxgen.nn import residual
from jaxgen.noise import levels, precondition
from jaxgen.objectives import classify as objective
from jaxgen.recipes import common, score
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Export, Phase, Plan, Player


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Args:
      config: with model, precond, loss and optimizer (see configs/adm_classifier/digits.py).
      facts: of the data source: shape (h, w, c), label_dim, label_kind.
    Raises:
      ValueError: for data without classes.
    """
    h, w, c = facts["shape"]
    if facts["label_kind"] != "class":
        raise ValueError(
            f"a classifier needs data with classes, got label_kind {facts['label_kind']!r} "
            f"of {facts['name']}"
        )
    model, loss_cfg, opt = config.model, config.loss, config.optimizer
    network = adm_classifier.Classifier(
        channels=c,
        num_classes=facts["label_dim"],
        dtype=common.dtype(config.dtype),
        **{k: score.plain(v) for k, v in model.items()},
    )
    family = precondition.family(**config.precond)
    draw, _ = levels.training(
        loss_cfg.levels, **{k: v for k, v in loss_cfg.items() if k != "levels"}
    )

    def logits(params: Any, x: jax.Array, sigma: jax.Array, **kwargs: Any) -> jax.Array:
        s = family.scaling(sigma)
        x = precondition.expand(s.c_in, x) * x
        return network.apply({"params": params}, x, s.c_noise, **kwargs)

    def loss(params, batch, key, context):
        rngs = {"dropout": context.key}
        y, label = common.images(batch), common.condition(batch, facts)["label"]
        flip, key = rng.split(key, 2)
        if config.data.hflip:
            y = augmentations.hflip(flip, y)
        judge = lambda x, sigma: logits(params["classifier"], x, sigma, train=True, rngs=rngs)
        each, metrics = objective.loss(judge, y, label, key, draw)
        return each, Aux(metrics)

    def log_prob(params: Mapping[str, Any], frozen: Mapping[str, Any]) -> Any:
        del frozen

        def of(x: jax.Array, sigma: jax.Array, cond: precondition.Cond) -> jax.Array:
            all_classes = jax.nn.log_softmax(logits(params["classifier"], x, sigma))
            return jnp.sum(all_classes * cond["label"], -1)

        return of

    rate = optim.inverse_sqrt(opt.lr, 0, units.images(opt.rampup_images))
    return Plan(
        players={
            "classifier": Player(
                lambda key: parameters.init(network, key, jnp.zeros((1, h, w, c)), jnp.zeros((1,))),
                optim.adam(rate, b1=opt.b1, b2=opt.b2),
                sharding=residual.SHARDING,
            )
        },
        phases=[Phase("classify", ("classifier",), loss)],
        averages=common.averages(config),
        exports={"log_prob": Export(log_prob, ("classifier",))},
    )

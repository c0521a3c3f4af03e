"""EDM2 recipe: one phase that trains two players, the network and its uncertainty head."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen import averaging
from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.data import augmentations
from jaxgen.networks import edm2
from jaxgen.noise import precondition
from jaxgen.objectives import edm2 as objective
from jaxgen.recipes import common
from jaxgen.samplers import drive, grids
from jaxgen.samplers import steps as solvers
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Phase, Plan, Player, Sample


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Args:
      config: with model, loss, optimizer, sampler and averages (see configs/edm2/digits.py).
      facts: of the data source: shape (h, w, c), label_dim, label_kind.
    """
    h, w, c = facts["shape"]
    label_dim = facts["label_dim"] if facts["label_kind"] != "none" else 0
    model, loss_cfg, opt = config.model, config.loss, config.optimizer
    network = edm2.EDM2(
        channels=c,
        label_dim=label_dim,
        dtype=common.dtype(config.dtype),
        **{k: _plain(v) for k, v in model.items() if k != "uncertainty_features"},
    )
    head = edm2.Uncertainty(model.uncertainty_features)
    one = (jnp.zeros((1, h, w, c)), jnp.zeros((1,)))
    example_cond = {"label": jnp.zeros((1, label_dim))} if label_dim else None

    def denoiser(params: Any, **kwargs: Any) -> precondition.Denoise:
        raw = lambda x, c_noise, cond: network.apply({"params": params}, x, c_noise, cond, **kwargs)
        return precondition.edm(raw, loss_cfg.sigma_data)

    def loss(params, batch, key, context):
        rngs = {"dropout": context.key} if model.dropout else {}
        y = common.images(batch)
        if config.data.hflip:
            flip, key = rng.split(key, 2)
            y = augmentations.hflip(flip, y)
        each, metrics = objective.loss(
            denoiser(params["network"], train=True, rngs=rngs),
            lambda sigma: head.apply({"params": params["uncertainty"]}, jnp.log(sigma) / 4),
            y,
            key,
            common.condition(batch, facts),
            P_mean=loss_cfg.P_mean,
            P_std=loss_cfg.P_std,
            sigma_data=loss_cfg.sigma_data,
        )
        return each, Aux(metrics)

    rate = optim.inverse_sqrt(
        opt.ref_lr, units.images(opt.ref_images), units.images(opt.rampup_images)
    )
    adam = lambda: optim.adam(rate, b1=opt.b1, b2=opt.b2)

    def sample(
        params: Mapping[str, Any],
        keys: jax.Array,
        batch: Mapping[str, jax.Array],
        frozen: Mapping[str, Any],
        *,
        steps: int = config.sampler.steps,
        solver: str = config.sampler.solver,
        sigma_min: float = config.sampler.sigma_min,
        sigma_max: float = config.sampler.sigma_max,
        rho: float = config.sampler.rho,
    ) -> dict[str, jax.Array]:
        del frozen
        grid = grids.edm(steps, sigma_min, sigma_max, rho)
        cond = common.condition(batch, facts)
        denoise = denoiser(params["network"])
        return {"image": drive.sample(solvers.STEPS[solver], denoise, keys, (h, w, c), grid, cond)}

    return Plan(
        players={
            "network": Player(
                lambda key: parameters.init(network, key, *one, example_cond),
                adam(),
                edm2.project,
                edm2.FIXED,
            ),
            "uncertainty": Player(
                lambda key: parameters.init(head, key, one[1]), adam(), edm2.project, edm2.FIXED
            ),
        },
        phases=[Phase("score", ("network", "uncertainty"), loss)],
        averages=averaging.tracks(tuple(config.averages.power), config.averages.halflife),
        sample=Sample(
            sample,
            players=("network",),
            needs=("label",) if label_dim else (),
            options={"steps": config.sampler.steps, "solver": config.sampler.solver},
        ),
        evals=("frechet", "kernel"),
    )


def _plain(v: Any) -> Any:
    return tuple(v) if isinstance(v, (list, tuple)) else v

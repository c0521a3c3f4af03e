"""Denoise recipe: a restorer trained on corrupted images, by any method, network and noise."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import units
from jaxgen.objectives.noise2noise import Seen
from jaxgen.recipes import common, denoise_methods
from jaxgen.recipes.denoise_setup import Setup
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Export, Phase, Plan, Player, Sample


def ramps(rate: float, images: int, up: float = 0.0, down: float = 0.3) -> optim.Schedule:
    """Constant but for a rise over the first `up` and a fall over the last `down` of `images`.

    The rise is 1/2 - cos(pi t) / 2, the fall (1/2 + cos(pi t) / 2)^2, t from 0 to 1.
    """

    def schedule(nimg: jax.Array) -> jax.Array:
        done = nimg / images
        start = jnp.clip(done / up, 0.0, 1.0) if up else 1.0
        end = jnp.clip((done - 1.0) / down + 1.0, 0.0, 1.0) if down else 0.0
        rise = 0.5 - 0.5 * jnp.cos(jnp.pi * start)
        return rate * rise * jnp.square(0.5 + 0.5 * jnp.cos(jnp.pi * end))

    return schedule


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Args:
      config: with model, noise, loss, optimizer and averages (see configs/denoisers.py).
      facts: of the data source: shape (h, w, c).
    Raises:
      ValueError: for an unknown method, network or noise, or settings that do not fit together.
    """
    setup = Setup.of(config, facts)
    method = denoise_methods.make(setup)
    opt = config.optimizer

    def adam(player: str) -> Any:
        rate = opt.lr * (opt.noise_lr if player == "noise" else 1.0)
        schedule = ramps(rate, units.images(config.images), opt.rampup, opt.rampdown)
        return optim.adam(schedule, b1=opt.b1, b2=opt.b2)

    name, names = config.loss.method, tuple(method.players)

    def loss(params, batch, keys, context):
        each, metrics = method.loss(params, *setup.view(keys, batch), context)
        return each, Aux(metrics=metrics)

    def restorer(params, frozen):
        del frozen

        def restore(x: jax.Array, level: jax.Array | None = None) -> jax.Array:
            if level is None and method.knows:
                raise ValueError(f"method {name!r} needs the noise level of each image, (b,)")
            if level is not None and not method.knows:
                raise ValueError(f"method {name!r} does not use the noise level; leave it out")
            return method.restore(params, Seen(x, level))

        return restore

    def sample(params, keys, batch, frozen, **options):
        del frozen
        clean = common.images(batch)
        seen = setup.observe(keys, clean, **(setup.options | options))
        return {"image": method.restore(params, seen), "input": seen.y, "target": clean}

    return Plan(
        players={player: Player(init, adam(player)) for player, init in method.players.items()},
        phases=[Phase("regression", names, loss)],
        averages=common.averages(config),
        sample=Sample(sample, players=names, needs=("image",), options=setup.options),
        exports={"restore": Export(restorer, names)},
        evals=("psnr",),
    )

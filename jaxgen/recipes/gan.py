"""GAN recipe: two players, any of the networks, losses and regularisers, adaptive augmentation.

One step does the phases in this order (arXiv:2006.06676): the generator, on every `d_steps`-th
step, its path length, the discriminator, R1. Lazy phases share their player's optimizer, whose rate
and betas are corrected for it. See `gan_losses` for the phases, `gan_networks` for the
networks, `gan_sampling` for samples.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax

from jaxgen.averaging import HalfLife, Power
from jaxgen.common import units
from jaxgen.objectives import ada_controller, cosine, growing
from jaxgen.recipes import gan_losses, gan_sampling
from jaxgen.recipes.gan_losses import Value, at
from jaxgen.recipes.gan_networks import Networks, resolution_of
from jaxgen.train import optim, stages
from jaxgen.train.plan import Phase, Plan, Player, Stage


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan | Sequence[Stage]:
    """The plan of a run, or with config.growing.first its stages, one a size.

    Args:
      config: see configs/gans.py for every key.
      facts: of the data source: shape (h, w, c), label_dim, label_kind.
    Raises:
      ValueError: for settings that do not go together; see the modules.
    """
    grow = config.growing
    if not grow.first:
        return plan_of(config, facts)
    spans = growing.spans(
        resolution_of(*facts["shape"][:2]),
        units.images(config.images),
        first=grow.first,
        fade=units.images(grow.fade),
        stable=units.images(grow.stable),
    )
    plans = [plan_of(config, facts, span) for span in spans]
    return stages.grow(plans, [s.until for s in spans], keep_optimizer=grow.keep_optimizer)


def plan_of(
    config: ml_collections.ConfigDict, facts: Mapping[str, Any], span: growing.Span | None = None
) -> Plan:
    """The plan of a run, or of the part of it that trains one size."""
    networks, cfg = Networks.make(config, facts, span), config.loss
    losses = gan_losses.losses(networks, config)
    if cfg.d_steps < 1:
        raise ValueError(f"config.loss.d_steps must be at least 1, got {cfg.d_steps}")
    players, phases = {}, []
    for player, rate, main, lazy, every, skip in (
        ("generator", "g_lr", "gen", "gen_path", cfg.path_every, cfg.d_steps),
        ("discriminator", "d_lr", "disc", "disc_r1", cfg.r1_every, 1),
    ):
        optimizer = adam(config, rate, every)
        players[player] = Player(
            networks.init(player),
            stages.by_leaf(optimizer) if span else optimizer,
            fixed=networks.fixed[player],
            sharding=networks.sharding[player],
        )
        phases.append(Phase(main, (player,), losses[main], skip))
        if every > 1:
            phases.append(Phase(lazy, (player,), losses[lazy], every * skip))
    stats: dict[str, Any] = {}
    if networks.styled:
        stats |= {"w_avg": jnp.zeros((networks.generator.w_dim,)), "pl_mean": jnp.zeros(())}
    controllers = gan_losses.controllers(config)
    if controllers:
        stats["ada"] = ada_controller.init(config.augment.p)
    return Plan(
        players=players,
        phases=phases,
        stats=stats,
        controllers=controllers,
        averages=averages(config),
        evals=("frechet", "kernel"),
        **gan_sampling.sampling(networks, config),
    )


def adam(
    config: ml_collections.ConfigDict, rate: str, every: int
) -> optax.GradientTransformationExtraArgs:
    """Adam of one player, corrected for a lazy phase done every `every` updates.

    rate: the key of its learning rate. With config.cosine, rate and b2 move.
    """
    o = config.optimizer
    if not units.images(config.cosine.images):
        return optim.lazy_adam(o[rate], o.b1, o.b2, every, o.eps)
    c = every / (every + 1) if every > 1 else 1.0
    lr, b2 = at(config, rate, o[rate]), at(config, "b2", o.b2)
    return moving_adam(lambda nimg: c * lr(nimg), o.b1**c, lambda nimg: b2(nimg) ** c, o.eps)


def moving_adam(
    rate: Value, b1: float, b2: Value, eps: float
) -> optax.GradientTransformationExtraArgs:
    """Adam whose learning rate and b2 are functions of images seen (arXiv:2501.05441).

    The bias of the second moment is taken to be that of the present b2.
    """

    def update(updates: Any, state: Any, params: Any = None, *, nimg: jax.Array, **_: Any) -> Any:
        return optax.scale_by_adam(b1, b2(nimg), eps).update(updates, state, params)

    init = optax.scale_by_adam(b1, 0.0, eps).init
    scale = optax.GradientTransformationExtraArgs(init, update)
    return optax.chain(scale, optim.scale_by_images(rate))


def averages(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Power-function averages, and one with a half-life.

    The half-life is at most `rampup` x the images seen (arXiv:2006.06676, App. C); 0 is no ramp.
    With config.cosine it rises from 0 instead.
    """
    c, trackers = config.averages, [Power(float(s)) for s in config.averages.power]
    if images := units.images(c.halflife):
        total = units.images(config.cosine.images)
        rise = (lambda nimg: cosine.schedule(nimg, 0.0, images, total)) if total else None
        trackers.append(HalfLife(float(images), c.rampup or None, rise))
    return {t.name: t for t in trackers}

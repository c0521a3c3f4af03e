"""The losses of a GAN's phases, from the words of its config.

    gen       adversarial loss of the generator, orthogonality; new mean of styles
    gen_path  path length, every `path_every` updates of the generator; in `gen` if that is 1
    disc      adversarial loss of the discriminator, gradient penalty of WGAN-GP
    disc_r1   R1 and R2, every `r1_every` steps; in `disc` if that is 1

Wherever the discriminator looks, images are first blurred and augmented. Each phase reports the new
tracked values of the network that it trains; where that looks twice, their mean.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import rng, trees, units
from jaxgen.objectives import (
    ada,
    ada_controller,
    augment,
    blur_fade,
    cosine,
    diffaugment,
    gradient_penalty,
    hinge,
    least_squares,
    minimax,
    nonsaturating,
    orthogonal,
    path_length,
    r1,
    relativistic,
    wasserstein,
)
from jaxgen.recipes.gan_networks import Networks, named
from jaxgen.train.plan import Aux, Context

LOSSES = {
    "nonsaturating": nonsaturating,
    "minimax": minimax,
    "hinge": hinge,
    "least_squares": least_squares,
    "wasserstein": wasserstein,
    "relativistic": relativistic,
}
EMBEDDING = r"(^|/)embed/"  # of labels
Judge = Callable[[jax.Array, str], tuple[jax.Array, Any]]
Value = Callable[[jax.Array], jax.Array | float]


def at(config: ml_collections.ConfigDict, name: str, start: float) -> Value:
    """nimg -> a value of the config: `start`, or on the way to config.cosine[name]."""
    images = units.images(config.cosine.images)
    if not images:
        return lambda nimg: start
    return lambda nimg: cosine.schedule(nimg, start, config.cosine[name], images)


@dataclasses.dataclass(frozen=True)
class Augment:
    """What is done to images before the discriminator sees them, by config.augment.

    kind: "none", "ada" or "diffaugment". p: of ADA, nimg -> probability. recipe: transforms of ADA
    and multipliers of p, or a policy of DiffAugment. adaptive: whether p is that of the controller.
    """

    kind: str
    p: Value
    recipe: Any
    adaptive: bool

    @classmethod
    def make(cls, config: ml_collections.ConfigDict) -> "Augment":
        """Reads the config.

        Raises:
          ValueError: for an unknown kind, recipe or policy, a p outside of [0, 1].
        """
        c = config.augment
        if c.kind not in ("none", "ada", "diffaugment"):
            raise ValueError(f"config.augment.kind is none, ada or diffaugment, got {c.kind!r}")
        augment.check_probability(c.p)
        recipe = tuple(c.policy)
        if c.kind == "ada":
            recipe = {**ada.multipliers(c.recipe), **c.multipliers.to_dict()}
            recipe = ada.multipliers(recipe)
        elif unknown := sorted(set(recipe) - set(diffaugment.POLICIES)):
            raise ValueError(
                f"config.augment.policy: unknown {unknown}; known are {diffaugment.POLICIES}"
            )
        adaptive = c.kind == "ada" and c.target > 0
        return cls(c.kind, at(config, "p", c.p), recipe, adaptive)

    def now(self, context: Context) -> jax.Array | float:
        """The probability of ADA."""
        return context.stats["ada"]["p"] if self.adaptive else self.p(context.nimg)

    def __call__(self, keys: jax.Array, x: jax.Array, context: Context) -> jax.Array:
        """Images x (b, h, w, c), image i by keys[i]."""
        if self.kind == "ada":
            return ada.augment(keys, x, self.now(context), self.recipe)[0]
        return diffaugment.augment(keys, x, self.recipe) if self.kind == "diffaugment" else x


def losses(networks: Networks, config: ml_collections.ConfigDict) -> dict[str, Callable]:
    """The loss of every phase, by the phase's name.

    Raises:
      ValueError: for an unknown loss or augmentation, path length without styles.
    """
    cfg, change = config.loss, Augment.make(config)
    if cfg.name not in LOSSES:
        raise ValueError(f"config.loss.name is one of {', '.join(LOSSES)}, got {cfg.name!r}")
    if cfg.path_every and not networks.styled:
        raise ValueError(
            f"config.loss.path_every is {cfg.path_every}, but the generator "
            f"{config.generator.network!r} has no styles; set it to 0"
        )
    paired = cfg.name == "relativistic"
    kind = LOSSES[cfg.name]
    drift = {"epsilon_drift": cfg.epsilon_drift} if cfg.name == "wasserstein" else {}
    gammas = [at(config, n, cfg[n]) for n in ("r1_gamma", "r2_gamma")]
    blur_images = units.images(cfg.blur_images)

    def judge(params: Any, keys: jax.Array, context: Context, cond: Any) -> Judge:
        """x, "real" or "fake" -> (logits, new tracked values) of images as they are judged."""

        def look(x: jax.Array, side: str) -> tuple[jax.Array, Any]:
            if cfg.blur_sigma:
                x = blur_fade.blur(x, context.nimg, start=cfg.blur_sigma, images=blur_images)
            x = change(named(keys, "augment", side), x, context)
            key = rng.fold(context.key, side)
            return networks.discriminate(params, x, cond, context.nimg, key)

        return look

    def path(params: Any, keys: jax.Array, cond: Any, context: Context) -> tuple:
        """(path-length penalty (b,), what to report)."""
        keys, cond = path_length.shrink((keys, cond), cfg.path_batch_shrink)
        latent, noise, direction = rng.split(keys, 3)
        style, _ = networks.mapping(params, networks.latents(latent), cond)
        penalty, lengths, pl_mean = path_length.penalty(
            lambda ws: networks.synthesis(params, ws, noise, context.nimg)[0],
            networks.mixed(params, keys, style, cond),
            direction,
            context.stats["pl_mean"],
            weight=cfg.path_weight,
            decay=cfg.path_decay,
        )
        aux = Aux({"penalty": penalty, "length": lengths}, {"pl_mean": pl_mean})
        return path_length.spread(penalty, cfg.path_batch_shrink), aux

    def gradients(look: Judge, real: jax.Array, fake: jax.Array | None, nimg: jax.Array) -> Any:
        """R1 of real and R2 of generated images, (b,)."""
        total = r1.penalty(lambda x: look(x, "real")[0], real, gammas[0](nimg))
        if cfg.r2_gamma:
            total = total + r1.penalty(lambda x: look(x, "fake")[0], fake, gammas[1](nimg))
        return total

    def gen(params, batch, key, context):
        cond = networks.condition(batch)
        fake, style, tracked = networks.generate(params, key, cond, context.nimg)
        look = judge(params, key, context, cond)
        logits, _ = look(fake, "fake")
        if paired:
            real, _ = look(networks.real(batch, key, context.nimg), "real")
            each = kind.generator(real, logits)
        else:
            each = kind.generator(logits)
        metrics, stats = {"logits": logits}, {}
        if networks.styled:
            mean = jax.lax.stop_gradient(style).mean(0)
            stats["w_avg"] = mean + cfg.w_avg_decay * (context.stats["w_avg"] - mean)
        if cfg.orthogonal_weight:
            embedded = any(re.search(EMBEDDING, n) for n in trees.leaves(params["generator"]))
            spared = (EMBEDDING,) if embedded else ()  # as in the paper
            penalty = orthogonal.penalty(params["generator"], cfg.orthogonal_weight, spared)
            each, metrics["orthogonal"] = each + penalty, penalty
        if cfg.path_every == 1:
            penalty, aux = path(params, named(key, "path"), cond, context)
            each, stats = each + penalty, {**stats, **aux.stats}
            metrics |= {f"path_{n}": v for n, v in aux.metrics.items()}
        return each, Aux(metrics, stats, _part("generator", tracked))

    def gen_path(params, batch, key, context):
        penalty, aux = path(params, key, networks.condition(batch), context)
        return cfg.path_every * penalty, aux

    def disc(params, batch, key, context):
        cond = networks.condition(batch)
        fake, _, _ = networks.generate(params, key, cond, context.nimg)
        real = networks.real(batch, key, context.nimg)
        look = judge(params, key, context, cond)
        fake_logits, one = look(fake, "fake")
        real_logits, other = look(real, "real")
        each = kind.discriminator(real_logits, fake_logits, **drift)
        metrics = {
            "real_logits": real_logits,
            "fake_logits": fake_logits,
            "real_sign": jnp.sign(real_logits),
        }
        if change.kind == "ada":
            metrics["augment_p"] = jnp.float32(change.now(context))
        if cfg.r1_every == 1:
            metrics["penalty"] = gradients(look, real, fake, context.nimg)
            each = each + metrics["penalty"]
        if cfg.gp_weight:
            between = gradient_penalty.interpolates(named(key, "between"), real, fake)
            slope = lambda x: look(x, "real")[0]
            metrics["slope"] = gradient_penalty.penalty(slope, between, cfg.gp_weight)
            each = each + metrics["slope"]
        tracked = jax.tree.map(lambda a, b: (a + b) / 2, one, other)
        return each, Aux(metrics, fixed=_part("discriminator", tracked))

    def disc_r1(params, batch, key, context):
        cond, fake = networks.condition(batch), None
        look = judge(params, key, context, cond)
        if cfg.r2_gamma:
            fake, _, _ = networks.generate(params, key, cond, context.nimg)
        penalty = gradients(look, networks.real(batch, key, context.nimg), fake, context.nimg)
        return cfg.r1_every * penalty, Aux({"penalty": penalty})

    return {"gen": gen, "gen_path": gen_path, "disc": disc, "disc_r1": disc_r1}


def controllers(config: ml_collections.ConfigDict) -> tuple[Callable, ...]:
    """ADA's controller, which counts images, if p is to be adaptive."""
    c = config.augment
    if not Augment.make(config).adaptive:
        return ()
    return (
        ada_controller.controller(
            ("disc/real_sign",), batch=config.batch, target=c.target, speed=units.images(c.images)
        ),
    )


def _part(player: str, tracked: Mapping[str, Any]) -> dict[str, Any]:
    return {player: tracked} if tracked else {}

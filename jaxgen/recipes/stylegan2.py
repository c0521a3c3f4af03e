"""StyleGAN2 recipe: two players, non-saturating losses, path length and R1 as lazy phases."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import rng
from jaxgen.networks.stylegan2 import Discriminator, Generator
from jaxgen.objectives import nonsaturating, path_length, r1
from jaxgen.recipes import common
from jaxgen.train import optim
from jaxgen.train.plan import Aux, Phase, Plan, Player, Sample

FIXED = (r"noise_const$",)
TRUNCATION_LATENTS = 256


def resolution_of(h: int, w: int) -> int:
    """The smallest power of two, at least 8, that holds an h x w image."""
    return max(8, 1 << (max(h, w) - 1).bit_length())


def build(config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> Plan:
    """The plan of a run.

    Images whose sides are not one power of two are padded with -1 for the networks, and samples are
    cropped back.

    Args:
      config: with generator, discriminator, loss, optimizer, sampler and averages (see
        configs/stylegan2/digits.py).
      facts: of the data source: shape (h, w, c), label_dim, label_kind.
    """
    h, w, c = facts["shape"]
    label_dim = facts["label_dim"] if facts["label_kind"] != "none" else 0
    resolution, loss_cfg, opt = resolution_of(h, w), config.loss, config.optimizer
    top, left = (resolution - h) // 2, (resolution - w) // 2
    of = {"resolution": resolution, "label_dim": label_dim, "dtype": common.dtype(config.dtype)}
    g = Generator(channels=c, **of, **config.generator)
    d = Discriminator(**of, **config.discriminator)
    has_noise = g.use_noise
    cond_of = lambda batch: common.condition(batch, facts)

    def real(batch: Mapping[str, jax.Array]) -> jax.Array:
        edges = ((0, 0), (top, resolution - h - top), (left, resolution - w - left), (0, 0))
        return jnp.pad(common.images(batch), edges, constant_values=-1.0)

    def mapping(params: Any, z: jax.Array, cond: Any) -> jax.Array:
        return g.apply({"params": params}, z, cond, method="mapping")

    def synthesis(params: Any, ws: jax.Array, keys: jax.Array) -> jax.Array:
        return g.apply({"params": params}, ws, keys, method="synthesis")

    def generate(params: Any, keys: jax.Array, cond: Any) -> tuple[jax.Array, jax.Array]:
        """(images, w) from one key an image."""
        latent, noise = rng.split(keys, 2)
        style = mapping(params, rng.normal(latent, (g.z_dim,)), cond)
        return synthesis(params, style, noise), style

    def discriminate(params: Any, x: jax.Array, cond: Any) -> jax.Array:
        return d.apply({"params": params}, x, cond)

    def gen(params, batch, key, context):
        cond = cond_of(batch)
        fake, style = generate(params["generator"], key, cond)
        logits = discriminate(params["discriminator"], fake, cond)
        mean = jax.lax.stop_gradient(style).mean(0)
        w_avg = mean + loss_cfg.w_avg_decay * (context.stats["w_avg"] - mean)
        return nonsaturating.generator(logits), Aux({"logits": logits}, {"w_avg": w_avg})

    def gen_path(params, batch, key, context):
        latent, noise, direction = rng.split(key, 3)
        style = mapping(params["generator"], rng.normal(latent, (g.z_dim,)), cond_of(batch))
        ws = jnp.repeat(style[:, None], g.num_ws, 1)
        penalty, lengths, pl_mean = path_length.penalty(
            lambda ws: synthesis(params["generator"], ws, noise),
            ws,
            direction,
            context.stats["pl_mean"],
            weight=loss_cfg.path_weight,
            decay=loss_cfg.path_decay,
        )
        aux = Aux({"penalty": penalty, "length": lengths}, {"pl_mean": pl_mean})
        return loss_cfg.path_every * penalty, aux

    def disc(params, batch, key, context):
        del context
        cond = cond_of(batch)
        fake, _ = generate(params["generator"], key, cond)
        fake_logits = discriminate(params["discriminator"], fake, cond)
        real_logits = discriminate(params["discriminator"], real(batch), cond)
        metrics = {"real_logits": real_logits, "fake_logits": fake_logits}
        return nonsaturating.discriminator(real_logits, fake_logits), Aux(metrics)

    def disc_r1(params, batch, key, context):
        del key, context
        cond = cond_of(batch)
        judge = lambda x: discriminate(params["discriminator"], x, cond)
        penalty = r1.penalty(judge, real(batch), loss_cfg.r1_gamma)
        return loss_cfg.r1_every * penalty, Aux({"penalty": penalty})

    def mean_style(params: Any, cond: Any, n: int) -> jax.Array:
        """E[w | label] (n, w_dim) over fixed latents: exact for any averaged mapping network."""
        z = rng.normal(rng.image_keys(jax.random.key(0), TRUNCATION_LATENTS), (g.z_dim,))
        if cond is None:
            return jnp.broadcast_to(mapping(params, z, None).mean(0), (n, g.w_dim))
        tile = lambda a: jnp.broadcast_to(a, (TRUNCATION_LATENTS, *a.shape))
        return jax.lax.map(lambda one: mapping(params, z, jax.tree.map(tile, one)).mean(0), cond)

    def sample(params, keys, batch, frozen, *, psi: float = config.sampler.psi):
        del frozen
        cond, latents = cond_of(batch), rng.split(keys, 2)
        style = mapping(params["generator"], rng.normal(latents[0], (g.z_dim,)), cond)
        if psi != 1.0:  # truncation: towards the mean style of the image's label
            mean = mean_style(params["generator"], cond, keys.shape[0])
            style = mean + psi * (style - mean)
        images = synthesis(params["generator"], style, latents[1])
        return {"image": images[:, top : top + h, left : left + w]}

    cond = {"label": jnp.zeros((1, label_dim))} if label_dim else None
    square = jnp.zeros((1, resolution, resolution, c))
    lazy = lambda rate, every: optim.lazy_adam(rate, opt.b1, opt.b2, every)
    phases = [Phase("gen", ("generator",), gen)]
    if loss_cfg.path_every:
        phases.append(Phase("gen_path", ("generator",), gen_path, loss_cfg.path_every))
    phases.append(Phase("disc", ("discriminator",), disc))
    if loss_cfg.r1_every:
        phases.append(Phase("disc_r1", ("discriminator",), disc_r1, loss_cfg.r1_every))
    return Plan(
        players={
            "generator": Player(
                lambda key: parameters.init(g, key, jnp.zeros((1, g.z_dim)), cond),
                lazy(opt.g_lr, loss_cfg.path_every),
                fixed=FIXED if has_noise else (),
            ),
            "discriminator": Player(
                lambda key: parameters.init(d, key, square, cond),
                lazy(opt.d_lr, loss_cfg.r1_every),
            ),
        },
        phases=phases,
        stats={"w_avg": jnp.zeros((g.w_dim,)), "pl_mean": jnp.zeros(())},
        averages=common.averages(config),
        sample=Sample(
            sample,
            players=("generator",),
            needs=("label",) if label_dim else (),
            options={"psi": config.sampler.psi},
        ),
        evals=("frechet", "kernel"),
    )

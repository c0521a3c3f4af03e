"""Samples of a GAN: truncation of styles or latents, and what tools need of a generator."""

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import rng
from jaxgen.networks.stylegan2_mapping import truncate
from jaxgen.recipes import score
from jaxgen.recipes.gan_networks import Networks
from jaxgen.samplers import styles
from jaxgen.train.plan import Export, Sample

TRUNCATION_LATENTS = 256
NEUTRAL = {"psi": 1.0, "cutoff": 0, "z_max": 0.0}


def generator(networks: Networks, params: Mapping[str, Any]) -> styles.Generator:
    """The functions of a generator with styles, with kept statistics and nothing fading."""
    g = networks.generator
    call = partial(g.apply, {"params": params["generator"]})
    growth = {"size": networks.size} if networks.span else {}

    def latents(keys: jax.Array) -> jax.Array:
        return networks.latents(rng.split(keys, 2)[0])

    def mapping(z: jax.Array, cond: Any = None) -> jax.Array:
        return call(z, cond, method="mapping")

    def move(w: jax.Array, cond: Any = None, psi: float = 1.0, cutoff: int = 0) -> jax.Array:
        """Towards the mean style of the label, in the first `cutoff` layers or, at 0, in all."""
        ws = jnp.repeat(w[:, None], networks.num_ws, 1)
        if psi == 1.0:
            return ws
        mean = mean_style(networks, mapping, cond, len(w))
        return truncate(ws, mean[:, None], psi, cutoff or None)

    def synthesis(ws: jax.Array, keys: jax.Array | None = None) -> jax.Array:
        return networks.as_data(call(ws, keys, method="synthesis", **growth))

    def moved(ws: jax.Array, transform: jax.Array) -> jax.Array:
        return call(ws, transform=transform, method="synthesis")

    return styles.Generator(
        latents, mapping, move, synthesis, g.z_dim, g.w_dim, networks.num_ws,
        moved if "transform" in inspect.signature(g.synthesis).parameters else None,
    )  # fmt: skip


def mean_style(networks: Networks, mapping: Any, cond: Any, n: int) -> jax.Array:
    """E[w | label] (n, w_dim) over fixed latents: exact for any averaged mapping network."""
    z = networks.latents(rng.image_keys(jax.random.key(0), TRUNCATION_LATENTS))
    if cond is None:
        return jnp.broadcast_to(mapping(z, None).mean(0), (n, networks.generator.w_dim))
    tile = lambda a: jnp.broadcast_to(a, (TRUNCATION_LATENTS, *a.shape))
    return jax.lax.map(lambda one: mapping(z, jax.tree.map(tile, one)).mean(0), cond)


def truncated(keys: jax.Array, z_dim: int, z_max: float) -> jax.Array:
    """z (n, z_dim), normal but for |z| < z_max; 0 is no bound (arXiv:1809.11096, Sec. 3.1)."""
    if not z_max:
        return rng.normal(keys, (z_dim,))
    return jax.vmap(lambda key: jax.random.truncated_normal(key, -z_max, z_max, (z_dim,)))(keys)


def sampling(networks: Networks, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """The `sample` of a plan, with options psi and cutoff of styles or z_max, and its `exports`.

    A generator with styles is exported as a samplers.styles.Generator.

    Raises:
      ValueError: for an option of the config that the generator does not have.
    """
    c, g = config.sampler, networks.generator
    own = ("psi", "cutoff") if networks.styled else ("z_max",)
    for name, neutral in NEUTRAL.items():
        if name not in own and c[name] != neutral:
            raise ValueError(
                f"config.sampler.{name} is {c[name]}, but the generator "
                f"{config.generator.network!r} has {' and '.join(own)}; leave it at {neutral}"
            )
    defaults = {name: c[name] for name in own}

    def styled(params: Mapping[str, Any], keys: jax.Array, cond: Any, **options: Any) -> jax.Array:
        of = generator(networks, params)
        ws = of.truncate(of.mapping(of.latents(keys), cond), cond, **options)
        return of.synthesis(ws, rng.split(keys, 2)[1])

    def plain(params: Mapping[str, Any], keys: jax.Array, cond: Any, z_max: float) -> jax.Array:
        latent, noise = rng.split(keys, 2)
        z, growth = truncated(latent, g.z_dim, z_max), {}
        if networks.span:
            growth["size"] = networks.size
        return networks.as_data(g.apply({"params": params["generator"]}, z, cond, noise, **growth))

    draw = styled if networks.styled else plain

    def sample(params, keys, batch, frozen, **options):
        del frozen
        cond = networks.condition(batch)
        return {"image": draw(params, keys, cond, **{**defaults, **options})}

    export = Export(lambda params, frozen: generator(networks, params), ("generator",))
    return {
        "sample": Sample(
            sample,
            players=("generator",),
            needs=("label",) if score.label_dim(networks.facts) else (),
            options=defaults,
        ),
        "exports": {"generator": export} if networks.styled else {},
    }

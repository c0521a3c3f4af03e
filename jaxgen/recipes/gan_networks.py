"""The networks of a GAN, found by name, and the calls that its losses and samples make of them.

Generators with a `mapping` have styles: mixing and path length are for them only. Networks whose
module has `fade_real` can grow.
"""

import dataclasses
import difflib
import importlib
import pkgutil
import re
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections

from jaxgen import networks
from jaxgen.common import params as parameters
from jaxgen.common import rng, trees
from jaxgen.common.sharding import DEFAULT, Rules
from jaxgen.data import augmentations
from jaxgen.objectives import style_mixing
from jaxgen.objectives.growing import Span
from jaxgen.recipes import common, score

Tree = Any
NOISE = (r"noise_const$",)  # what is fixed in modules that do not say so themselves


def module_of(word: str) -> ModuleType:
    """`jaxgen.networks.<word>`.

    Raises:
      ValueError: for an unknown word, with the nearest.
    """
    known = sorted(m.name for m in pkgutil.iter_modules(networks.__path__))
    if word not in known:
        near = difflib.get_close_matches(word, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no network {word!r} in jaxgen.networks{hint}")
    return importlib.import_module(f"jaxgen.networks.{word}")


def network(role: str, config: ml_collections.ConfigDict, **of: Any) -> Any:
    """The `role`, "Generator" or "Discriminator", of the module `config.network`.

    Args:
      config: `network` and arguments of the class. of: arguments that come from the data.
    Raises:
      ValueError: for a module without that role, or an argument that it does not take.
    """
    key, kind = f"config.{role.lower()}", getattr(module_of(config.network), role, None)
    if kind is None:
        raise ValueError(f"{key}.network: jaxgen.networks.{config.network} has no {role}")
    given = {k: score.plain(v) for k, v in config.items() if k != "network"}
    known = {f.name for f in dataclasses.fields(kind)} - {"name", "parent", *of}
    if unknown := sorted(set(given) - known):
        raise ValueError(
            f"{key}: the {role} of {config.network!r} does not take {unknown}; its arguments are "
            f"{sorted(known)}"
        )
    return kind(**of, **given)


def resolution_of(h: int, w: int) -> int:
    """The smallest power of two, at least 8, that holds an h x w image."""
    return max(8, 1 << (max(h, w) - 1).bit_length())


def named(keys: jax.Array, *what: str) -> jax.Array:
    """Keys (b,) of another purpose, folded with its name: what is drawn from `keys` stays."""
    return jax.vmap(lambda key: rng.fold(key, *what))(keys)


def merged(*parts: Tree) -> Tree:
    """Trees of dicts with different leaves, as one."""
    return trees.nest({name: x for part in parts for name, x in trees.leaves(part).items()})


def _run(module: Any, params: Tree, *args: Any, **kwargs: Any) -> tuple[Any, Tree]:
    """What a network gives in training, and the new values of its tracked leaves."""
    out, new = module.apply({"params": params}, *args, mutable=["tracked"], **kwargs)
    return out, dict(new.get("tracked", {}))


@dataclasses.dataclass(frozen=True)
class Networks:
    """Generator and discriminator for images of a data set, as functions of all players' params.

    Images whose sides are not one power of two are padded with -1 for the networks, and samples are
    cropped back.

    facts: of the data source: shape (h, w, c), label_dim, label_kind. hflip: real images are
    mirrored at random. mixing: probability of style mixing. span: of a growing run, the one that
    these networks are for.
    """

    generator: Any
    discriminator: Any
    fixed: Mapping[str, tuple[str, ...]]
    sharding: Mapping[str, Rules]
    facts: Mapping[str, Any]
    hflip: bool
    mixing: float
    span: Span | None
    fade_real: Callable[..., jax.Array] | None
    num_ws: int

    @classmethod
    def make(
        cls,
        config: ml_collections.ConfigDict,
        facts: Mapping[str, Any],
        span: Span | None = None,
    ) -> "Networks":
        """The networks that config.generator and config.discriminator describe.

        Raises:
          ValueError: for unknown networks or arguments, those that cannot grow with a span, style
            mixing without styles.
        """
        h, w, c = facts["shape"]
        of = {
            "resolution": resolution_of(h, w),
            "label_dim": score.label_dim(facts),
            "dtype": common.dtype(config.dtype),
        }
        g = network("Generator", config.generator, channels=c, **of)
        d = network("Discriminator", config.discriminator, **of)
        modules = {p: module_of(config[p].network) for p in ("generator", "discriminator")}
        fixed = {p: getattr(m, "FIXED", NOISE) for p, m in modules.items()}
        for player, m in modules.items():
            if span and not hasattr(m, "fade_real"):
                raise ValueError(
                    f"config.growing: the {player} {config[player].network!r} does not grow; set "
                    "growing.first to 0, or take pggan or stylegan"
                )
        fade_real = modules["discriminator"].fade_real if span else None
        count = lambda size: modules["generator"].num_layers(size) if span else g.num_ws
        num_ws = count(span.size if span else None) if hasattr(g, "mapping") else 0
        mixing = config.loss.style_mixing
        if mixing and not num_ws:
            raise ValueError(
                f"config.loss.style_mixing is {mixing}, but the generator "
                f"{config.generator.network!r} has no styles; set it to 0"
            )
        lies = {p: getattr(m, "SHARDING", DEFAULT) for p, m in modules.items()}
        made = cls(g, d, fixed, lies, facts, config.data.hflip, mixing, span, fade_real, num_ws)
        # A module's patterns are of both of its networks, and of all their variants.
        names = {p: trees.leaves(jax.eval_shape(made.init(p), jax.random.key(0))) for p in fixed}
        found = {
            p: tuple(r for r in fixed[p] if any(re.search(r, n) for n in names[p])) for p in fixed
        }
        return dataclasses.replace(made, fixed=found)

    @property
    def styled(self) -> bool:
        """Whether the generator has styles."""
        return self.num_ws > 0

    @property
    def size(self) -> int:
        """Side of the images that the networks work on now."""
        return self.span.size if self.span else self.generator.resolution

    def growth(self, nimg: jax.Array | float) -> dict[str, Any]:
        """Arguments of growing networks after nimg images."""
        if not self.span:
            return {}
        return {"size": self.size, "alpha": self.span.alpha(nimg) if self.span.fade else None}

    def init(self, player: str) -> Callable[[jax.Array], Tree]:
        """`key -> params` of "generator" or "discriminator"."""
        label_dim = score.label_dim(self.facts)
        cond = {"label": jnp.zeros((1, label_dim))} if label_dim else None
        module, channels = getattr(self, player), self.facts["shape"][2]
        square = (1, self.size, self.size, channels)
        x = jnp.zeros(square if player == "discriminator" else (1, self.generator.z_dim))
        growth = self.growth(0.0)
        return lambda key: parameters.init(module, key, x, cond, **growth)

    def condition(self, batch: Mapping[str, jax.Array]) -> dict | None:
        """The labels of a batch, which generated images share with real ones."""
        return common.condition(batch, self.facts)

    def corner(self) -> tuple[int, int]:
        """(top, left) of the data's images in the padded ones."""
        h, w, _ = self.facts["shape"]
        return (self.generator.resolution - h) // 2, (self.generator.resolution - w) // 2

    def real(self, batch: Mapping[str, jax.Array], keys: jax.Array, nimg: jax.Array) -> jax.Array:
        """The batch's images (b, size, size, c), padded and, in a growing run, faded."""
        h, w, _ = self.facts["shape"]
        (top, left), r = self.corner(), self.generator.resolution
        edges = ((0, 0), (top, r - h - top), (left, r - w - left), (0, 0))
        x = common.images(batch)
        x = augmentations.hflip(named(keys, "hflip"), x) if self.hflip else x
        x = jnp.pad(x, edges, constant_values=-1.0)
        return self.fade_real(x, **self.growth(nimg)) if self.span else x

    def as_data(self, x: jax.Array) -> jax.Array:
        """Generated images (n, h, w, c) in the size and shape of the data's."""
        h, w, _ = self.facts["shape"]
        (top, left), scale = self.corner(), self.generator.resolution // self.size
        x = x.repeat(scale, 1).repeat(scale, 2) if scale > 1 else x
        return x[:, top : top + h, left : left + w]

    def latents(self, keys: jax.Array) -> jax.Array:
        """z (b, z_dim), normal."""
        return rng.normal(keys, (self.generator.z_dim,))

    def mapping(self, params: Tree, z: jax.Array, cond: Any) -> tuple[jax.Array, Tree]:
        """Styles w (b, w_dim), new tracked values."""
        return _run(self.generator, params["generator"], z, cond, method="mapping")

    def synthesis(
        self, params: Tree, ws: jax.Array, keys: jax.Array, nimg: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """Images of styles, one for all layers or one each; new tracked values."""
        growth = self.growth(nimg)
        return _run(self.generator, params["generator"], ws, keys, method="synthesis", **growth)

    def mixed(self, params: Tree, keys: jax.Array, style: jax.Array, cond: Any) -> jax.Array:
        """Styles (b, num_ws, w_dim) that may change to a second latent's at some layer."""
        if not self.mixing:
            return jnp.repeat(style[:, None], self.num_ws, 1)
        latent, gate = rng.split(named(keys, "mixing"), 2)
        second, _ = self.mapping(params, self.latents(latent), cond)
        return style_mixing.mix(gate, style, second, self.num_ws, self.mixing)

    def generate(
        self, params: Tree, keys: jax.Array, cond: Any, nimg: jax.Array
    ) -> tuple[jax.Array, jax.Array | None, Tree]:
        """(images, styles w before mixing or None, new tracked values), one key an image."""
        latent, noise = rng.split(keys, 2)
        z = self.latents(latent)
        if not self.styled:
            growth = self.growth(nimg)
            images, new = _run(self.generator, params["generator"], z, cond, noise, **growth)
            return images, None, new
        style, new = self.mapping(params, z, cond)
        ws = self.mixed(params, keys, style, cond) if self.mixing else style
        images, more = self.synthesis(params, ws, noise, nimg)
        return images, style, merged(new, more)

    def discriminate(
        self, params: Tree, x: jax.Array, cond: Any, nimg: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Tree]:
        """(logits (b,), new tracked values); key: for dropout, of the whole batch."""
        rngs, growth = {"dropout": key}, self.growth(nimg)
        return _run(self.discriminator, params["discriminator"], x, cond, rngs=rngs, **growth)

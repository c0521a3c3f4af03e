"""The methods of the recipe `denoise`: what each trains, with which loss, and how it restores."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import rng
from jaxgen.networks.n2n_unet import N2NUNet
from jaxgen.noise import operators
from jaxgen.objectives import noise2noise
from jaxgen.recipes import common, score

NETWORKS = {"n2n_unet": N2NUNet}  # (out_channels, dtype, **config.model)


@dataclasses.dataclass(frozen=True)
class _Gaussian:
    """Gaussian noise of `sigma` grey levels, or of a range of them."""

    sigma: operators.Level = 25.0

    def levels(self, keys: jax.Array) -> jax.Array:
        return operators.levels(keys, self.sigma)

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        std = level[:, None, None, None] / operators.GREY
        return x + std * rng.normal(keys, x.shape[1:])


def _make(name: str, **settings: Any) -> Any:
    if name != "gaussian":
        raise ValueError(f"config.noise.name must be 'gaussian', got {name!r}")
    return _Gaussian(**settings)


def choose(what: str, word: str, known: Mapping[str, Any]) -> Any:
    """known[word].

    Raises:
      ValueError: for another word, with the nearest.
    """
    if word not in known:
        near = difflib.get_close_matches(word, known, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} is {word!r}, known are {sorted(known)}{hint}")
    return known[word]


class Setup(NamedTuple):
    """What methods read: the config, the images' channels, the noise.

    level: of sampling and evaluation, in the noise's units; None for noise without levels.
    """

    config: ml_collections.ConfigDict
    channels: int
    noise: Any
    level: float | None

    @classmethod
    def of(cls, config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> "Setup":
        """Reads the noise and checks the size of crops.

        Raises:
          ValueError: for settings that the noise does not have, crops larger than the images.
        """
        h, w, c = facts["shape"]
        if config.data.crop > min(h, w):
            raise ValueError(
                f"config.data.crop is {config.data.crop}, larger than the images of {h}x{w}; take "
                "a smaller one, or 0 for whole images"
            )
        settings = {k: score.plain(v) for k, v in config.noise.items()}
        name, level = settings.pop("name"), settings.pop("level_eval")
        noise = _make(name, **settings)
        return cls(config, c, noise, float(level) if hasattr(noise, "levels") else None)

    @property
    def options(self) -> dict[str, float]:
        """The options of sampling."""
        return {} if self.level is None else {"level": self.level}

    def crop(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """A random square of config.data.crop pixels of each image (b, h, w, c); 0: all of it."""
        size = self.config.data.crop
        if not size:
            return x
        room = jnp.array([n - size + 1 for n in x.shape[1:3]])
        keys = jax.vmap(lambda k: rng.fold(k, "crop"))(keys)
        corners = jnp.floor(rng.uniform(keys, (2,)) * room).astype(jnp.int32)
        cut = lambda x, at: jax.lax.dynamic_slice(x, (*at, 0), (size, size, x.shape[-1]))
        return jax.vmap(cut)(x, corners)

    def observe(
        self, keys: jax.Array, x: jax.Array, level: float | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Corrupted images of x, and their levels (b,), drawn unless `level` is given.

        Of a linear operator, the simple reconstruction from its measurement, and None.
        """
        if hasattr(self.noise, "levels"):
            first, second = rng.split(keys, 2)
            levels = self.noise.levels(first) if level is None else jnp.full(keys.shape, level)
            return self.noise.apply(second, x, levels), levels
        y = self.noise.corrupt(keys, x)
        return (self.noise.start(y) if hasattr(self.noise, "start") else y), None

    def corrupt(self, keys: jax.Array, x: jax.Array) -> jax.Array:
        """Corrupted images of x."""
        return self.observe(keys, x)[0]

    def network(self, out_channels: int | None = None) -> nn.Module:
        """The network of config.model, with as many output channels as images unless told."""
        given = {k: score.plain(v) for k, v in self.config.model.items()}
        kind = choose("config.model.network", given.pop("network"), NETWORKS)
        known = {f.name for f in dataclasses.fields(kind)} - {"name", "parent"}
        if unknown := sorted(set(given) - known):
            raise ValueError(
                f"config.model: {self.config.model.network} takes no {unknown}, but {sorted(known)}"
            )
        channels = self.channels if out_channels is None else out_channels
        return kind(out_channels=channels, dtype=common.dtype(self.config.dtype), **given)

    def init(self, module: nn.Module) -> Callable[[jax.Array], Any]:
        """key -> params."""
        return lambda key: parameters.init(module, key, jnp.zeros((1, 32, 32, self.channels)))


class Method(NamedTuple):
    """players: name -> init of their params. loss(params, clean, keys, context) -> (b,), metrics.

    restore(params, y, level) -> image; level, (b,) in the noise's units, for those that know it.
    """

    players: Mapping[str, Callable[[jax.Array], Any]]
    loss: Callable[..., tuple[jax.Array, Mapping[str, jax.Array]]]
    restore: Callable[[Any, jax.Array, jax.Array | None], jax.Array]
    knows: bool = False


def _regression(setup: Setup, objective: Callable[..., jax.Array]) -> Method:
    network = setup.network()

    def restore(params, y, level=None):
        return network.apply({"params": params["restorer"]}, y)

    def loss(params, clean, keys, context):
        del context
        of = lambda y: restore(params, y)
        return objective(of, setup.corrupt, clean, keys, setup.config.loss.norm), {}

    return Method({"restorer": setup.init(network)}, loss, restore)


METHODS = {
    "noise2noise": lambda setup: _regression(setup, noise2noise.loss),
    "noise2clean": lambda setup: _regression(setup, noise2noise.supervised),
}


def make(setup: Setup) -> Method:
    """The method that config.loss.method names.

    Raises:
      ValueError: for an unknown one, or settings that do not fit it.
    """
    return choose("config.loss.method", setup.config.loss.method, METHODS)(setup)

"""What the methods of `denoise` share: network and noise by name, crops, what is seen."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections

from jaxgen.common import params as parameters
from jaxgen.common import rng, units
from jaxgen.networks.blindspot import BlindSpot
from jaxgen.networks.dncnn import DnCNN
from jaxgen.networks.n2n_unet import N2NUNet
from jaxgen.noise import fourier, operators
from jaxgen.objectives.noise2noise import Seen
from jaxgen.recipes import common, score

Init = Callable[[jax.Array], Any]
NETWORKS = {  # called with (out_channels, dtype, **config.model)
    "blindspot": BlindSpot,
    "dncnn": DnCNN,
    "n2n_unet": N2NUNet,
}


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
    """What methods read of config and data.

    images: length of training. noise: a Corruption. level: of sampling and evaluation, in the
    noise's units; None for a corruption without levels.
    """

    config: ml_collections.ConfigDict
    channels: int
    images: int
    noise: Any
    level: float | None

    @classmethod
    def of(cls, config: ml_collections.ConfigDict, facts: Mapping[str, Any]) -> "Setup":
        """Reads the noise and checks crops and pairs.

        Raises:
          ValueError: for settings that the noise does not have, crops larger than the images, and
            crops of pairs.
        """
        h, w, c = facts["shape"]
        if config.data.crop > min(h, w):
            raise ValueError(
                f"config.data.crop is {config.data.crop}, larger than the images of {h}x{w}; take "
                "a smaller one, or 0 for whole images"
            )
        if config.loss.pairs and config.data.crop:
            raise ValueError(
                "config.loss.pairs fixes the noise of whole images: set config.data.crop to 0"
            )
        settings = {k: score.plain(v) for k, v in config.noise.items()}
        name, level = settings.pop("name"), settings.pop("level_eval")
        noise = operators.make(name, **settings)
        level = float(level) if isinstance(noise, operators.Noise) else None
        return cls(config, c, units.images(config.images), noise, level)

    @property
    def options(self) -> dict[str, float]:
        """The options of sampling."""
        return {} if self.level is None else {"level": self.level}

    def view(self, keys: jax.Array, batch: Mapping[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Clean images (b, h, w, c), cropped, and the keys of their noise.

        With config.loss.pairs the keys are those of the images' places in the data: the same
        noise whenever an image comes.
        """
        x = common.images(batch)
        if self.config.loss.pairs:
            root = rng.fold(jax.random.key(self.config.seed), "pairs")
            return x, jax.vmap(lambda i: jax.random.fold_in(root, i))(batch["index"])
        return self.crop(keys, x), keys

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

    def observe(self, keys: jax.Array, x: jax.Array, level: float | None = None) -> Seen:
        """Corrupted x; levels are drawn unless one is given.

        Of a linear operator, the simple reconstruction from its measurement.
        """
        noise = self.noise
        if not isinstance(noise, operators.Noise):
            return Seen(noise.start(noise.corrupt(keys, x)))
        first, second = rng.split(keys, 2)
        levels = noise.levels(first) if level is None else jnp.full(keys.shape, level, jnp.float32)
        y = noise.apply(second, x, levels)
        if not hasattr(noise, "mask"):
            return Seen(y, levels)
        mask = noise.mask(second, x, levels)
        if isinstance(noise, fourier.Fourier):
            p = fourier.probability(levels, *x.shape[1:3])[..., None]
            return Seen(y, levels, known=lambda result: fourier.replace(result, y, mask, p))
        return Seen(y, levels, weight=mask)

    def network(self, out_channels: int | None = None) -> nn.Module:
        """The network of config.model, with as many output channels as images unless told.

        Raises:
          ValueError: for an unknown one, or a setting that it does not have.
        """
        given = {k: score.plain(v) for k, v in self.config.model.items()}
        kind = choose("config.model.network", given.pop("network"), NETWORKS)
        known = {f.name for f in dataclasses.fields(kind)} - {"name", "parent"}
        if unknown := sorted(set(given) - known):
            raise ValueError(
                f"config.model: {self.config.model.network} takes no {unknown}, but {sorted(known)}"
            )
        channels = self.channels if out_channels is None else out_channels
        return kind(out_channels=channels, dtype=common.dtype(self.config.dtype), **given)

    def init(self, module: nn.Module) -> Init:
        """key -> params."""
        return lambda key: parameters.init(module, key, jnp.zeros((1, 32, 32, self.channels)))

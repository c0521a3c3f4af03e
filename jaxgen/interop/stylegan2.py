"""StyleGAN2's published networks, by the names and keywords of the official release (ADA, PyTorch).

G = load_generator(arrays, z_dim=512, c_dim=0, w_dim=512, img_resolution=1024, img_channels=3,
                   mapping_kwargs={"num_layers": 8}, synthesis_kwargs={"channel_base": 32768})
images = G(z, truncation_psi=0.7)
D = load_discriminator(arrays, c_dim=0, img_resolution=1024, img_channels=3)
logits = D(images)
"""

import dataclasses
import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.interop import common
from jaxgen.interop import stylegan2_keywords as keywords
from jaxgen.interop.layout import Layout
from jaxgen.networks import stylegan2

W_AVG = "mapping.w_avg"
LAYER = re.compile(r"^(.*b\d+)\.(fromrgb|conv\d?|skip)\.weight$")  # those that hold a filter
UP = re.compile(r"^synthesis\..*\.conv0\.weight$")  # true convolutions there, correlations here


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedGenerator:
    """A published generator.

    module: networks.stylegan2.Generator. variables: {"params": tree}, float32. w_avg: (w_dim,), the
    mean style that truncation moves to, None where the file has none. init: the official keywords,
    complete. buffers: the filters of the file, by official name.
    """

    module: stylegan2.Generator
    variables: Mapping[str, Any]
    w_avg: jax.Array | None
    init: Mapping[str, Any]
    buffers: Mapping[str, np.ndarray]

    def __call__(
        self,
        z: jax.Array,
        labels: jax.Array | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: str | jax.Array = "const",
    ) -> jax.Array:
        """Images (b, h, w, c), float32, nominally in [-1, 1]; see `mapping` and `synthesis`.

        Args:
          z: N(0, 1), (b, z_dim). labels: (b, c_dim). truncation_psi: 1 for none.
          truncation_cutoff: of that many coarsest layers, None for all. noise: as in `synthesis`.
        """
        ws = jnp.repeat(self.mapping(z, labels)[:, None], self.module.num_ws, 1)
        if truncation_psi != 1:
            if self.w_avg is None:
                raise ValueError("this generator has no w_avg (w_avg_beta=None): no truncation")
            ws = stylegan2.truncate(ws, self.w_avg, truncation_psi, truncation_cutoff)
        return self.synthesis(ws, noise)

    def mapping(self, z: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Styles w (b, w_dim), not truncated, of z (b, z_dim) and labels (b, c_dim).

        Raises:
          ValueError: shapes that do not fit; labels that are missing or not expected.
        """
        return _mapping(self.module, self.variables, *_inputs(z, labels, self.init["c_dim"]))

    def synthesis(self, w: jax.Array, noise: str | jax.Array = "const") -> jax.Array:
        """Images (b, h, w, c) of styles: one for all layers (b, w_dim), or (b, num_ws, w_dim).

        Args:
          noise: "const" for the planes of the file, "none", or one random key an image, (b,).
        Raises:
          ValueError: another shape or another word.
        """
        if isinstance(noise, str) and noise not in ("const", "none"):
            raise ValueError(f'noise is "const", "none" or one random key an image, got {noise!r}')
        keys = None if isinstance(noise, str) else noise
        add = not (isinstance(noise, str) and noise == "none")
        return _synthesis(self.module, add, self.variables, jnp.asarray(w, jnp.float32), keys)


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedDiscriminator:
    """A published discriminator; fields as in ImportedGenerator."""

    module: stylegan2.Discriminator
    variables: Mapping[str, Any]
    init: Mapping[str, Any]
    buffers: Mapping[str, np.ndarray]

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Logits (b,) of images (b, h, w, c) in [-1, 1] and labels (b, c_dim).

        Raises:
          ValueError: shapes that do not fit; labels that are missing or not expected.
        """
        size, c = self.init["img_resolution"], self.init["img_channels"]
        if np.ndim(images) != 4 or np.shape(images)[1:] != (size, size, c):
            raise ValueError(
                f"this network takes images (b, {size}, {size}, {c}), got {np.shape(images)}"
            )
        return _judge(self.module, self.variables, *_inputs(images, labels, self.init["c_dim"]))


@functools.partial(jax.jit, static_argnums=0)
def _mapping(module: nn.Module, variables: Any, z: jax.Array, cond: Any) -> jax.Array:
    return module.apply(variables, z, cond, method="mapping")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _synthesis(module: nn.Module, add_noise: bool, variables: Any, ws: Any, keys: Any) -> jax.Array:
    return module.apply(variables, ws, keys, add_noise, method="synthesis")


@functools.partial(jax.jit, static_argnums=0)
def _judge(module: nn.Module, variables: Any, x: jax.Array, cond: Any) -> jax.Array:
    return module.apply(variables, x, cond)


def _inputs(x: Any, labels: Any, c_dim: int) -> tuple[jax.Array, dict[str, jax.Array] | None]:
    """The first argument of a network and its condition; labels (b, 0) are none."""
    b = np.shape(x)[0]
    if labels is None and c_dim:
        raise ValueError(f"this network is conditional: give labels (b, {c_dim}), one-hot")
    if labels is not None and np.shape(labels) != (b, c_dim):
        raise ValueError(
            f"labels must have shape {(b, c_dim)}, got {np.shape(labels)}"
            + ("; one-hot them" if c_dim else "; this network was made without labels")
        )
    cond = {"label": jnp.asarray(labels, jnp.float32)} if c_dim else None
    return jnp.asarray(x, jnp.float32), cond


@common.explained
def load_generator(arrays: common.Arrays, **init: Any) -> ImportedGenerator:
    """The generator of official arrays.

    Args:
      arrays: official parameter and buffer names -> numbers. init: keywords of the official
        constructor, see stylegan2_keywords.
    Raises:
      ValueError: unknown or missing keywords; one error for all unknown, missing and wrongly shaped
      arrays; NaN or infinity; filters that are not those of `init`.
    """
    what = "stylegan2.load_generator"
    init = keywords.complete_generator(init)
    module = keywords.generator(init)
    z = jax.ShapeDtypeStruct((1, init["z_dim"]), jnp.float32)
    names, expected = LAYOUT.expected(module, z, init["c_dim"])
    taps = init["synthesis_kwargs"]["resample_filter"]
    constants = filters(expected, ("conv0", "skip"), taps)
    has_average = init["mapping_kwargs"]["w_avg_beta"] is not None
    if has_average:
        expected[W_AVG] = (init["w_dim"],)
    params, found = LAYOUT.take(arrays, names, expected, constants, what)
    return ImportedGenerator(
        module=module,
        variables={"params": params},
        w_avg=jnp.asarray(found[W_AVG]) if has_average else None,
        init=init,
        buffers={name: found[name] for name in constants},
    )


@common.explained
def load_discriminator(arrays: common.Arrays, **init: Any) -> ImportedDiscriminator:
    """The discriminator of official arrays.

    Args:
      arrays: official parameter and buffer names -> numbers. init: keywords of the official
        constructor, see stylegan2_keywords.
    Raises:
      ValueError: as `load_generator`.
    """
    init = keywords.complete_discriminator(init)
    module = keywords.discriminator(init)
    size, c = init["img_resolution"], init["img_channels"]
    x = jax.ShapeDtypeStruct((1, size, size, c), jnp.float32)
    names, expected = LAYOUT.expected(module, x, init["c_dim"])
    constants = filters(expected, ("conv1", "skip"), init["block_kwargs"]["resample_filter"])
    params, found = LAYOUT.take(arrays, names, expected, constants, "stylegan2.load_discriminator")
    return ImportedDiscriminator(
        module=module,
        variables={"params": params},
        init=init,
        buffers={name: found[name] for name in constants},
    )


def dump_generator(imported: ImportedGenerator) -> dict[str, np.ndarray]:
    """The official arrays of `load_generator`, float32."""
    average = {} if imported.w_avg is None else {W_AVG: np.array(imported.w_avg)}
    return LAYOUT.official(imported.variables["params"], imported.buffers) | average


def dump_discriminator(imported: ImportedDiscriminator) -> dict[str, np.ndarray]:
    """The official arrays of `load_discriminator`, float32."""
    return LAYOUT.official(imported.variables["params"], imported.buffers)


def filters(
    names: Iterable[str], resampling: tuple[str, ...], taps: tuple[float, ...]
) -> dict[str, np.ndarray]:
    """The filters of blocks and layers, by official name: `taps` in those that resample.

    The others hold the default, which they do not use.
    """
    found = {}
    for block, layer in (m.groups() for m in map(LAYER.match, names) if m):
        found[f"{block}.{layer}.resample_filter"] = _kernel(
            taps if layer in resampling else keywords.TAPS
        )
        if block != "b4":  # the discriminator's end has none
            found[f"{block}.resample_filter"] = _kernel(taps)
    return found


def _kernel(taps: tuple[float, ...]) -> np.ndarray:
    """The filter of unit sum, as a matrix unless it is long."""
    f = np.asarray(taps, np.float64)
    f = np.outer(f, f) if len(f) < 8 else f
    return (f / f.sum()).astype(np.float32)


def _to_ours(name: str, x: np.ndarray) -> np.ndarray:
    """Our layout of an official array."""
    if name.endswith(".noise_const"):
        return x
    if name.endswith(".const"):
        return x.transpose(1, 2, 0)
    if name == "b4.fc.weight":  # the 4x4 image is flattened c h w there, h w c here
        return x.reshape(len(x), -1, 4, 4).transpose(2, 3, 1, 0).reshape(-1, len(x))
    x = common.to_ours(x)
    return x[::-1, ::-1] if UP.match(name) else x


def _to_official(name: str, x: np.ndarray) -> np.ndarray:
    """The inverse of `_to_ours`."""
    if name.endswith(".noise_const"):
        return x
    if name.endswith(".const"):
        return x.transpose(2, 0, 1)
    if name == "b4.fc.weight":
        out = x.shape[-1]
        return x.reshape(4, 4, -1, out).transpose(3, 2, 0, 1).reshape(out, -1)
    return common.to_official(x[::-1, ::-1] if UP.match(name) else x)


LAYOUT = Layout(
    rules=(
        (r"(^|/)(b\d+)_", r"\1\2."),
        (r"/w$", ".weight"),
        (r"/b$", ".bias"),
        (r"/", "."),
    ),
    to_ours=_to_ours,
    to_official=_to_official,
)

"""R3GAN's published networks, by the names and keywords of the official release.

G = load_generator(arrays, NoiseDimension=64, WidthPerStage=[768] * 4, CardinalityPerStage=[96] * 4,
                   BlocksPerStage=[2] * 4, ExpansionFactor=2, c_dim=10, img_resolution=32,
                   ConditionEmbeddingDimension=64, FP16Stages=[-1, -2, -3])
images = G(z, labels)
D = load_discriminator(arrays, WidthPerStage=..., ...)    # stages from the image down to 4x4
logits = D(images, labels)

The keywords are those of the network or of what the release wraps around it, which stands as
"Model." before the names; labels are there if c_dim or ConditionDimension is not 0.
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

from jaxgen.common import trees
from jaxgen.interop import common
from jaxgen.networks import r3gan

WRAPPER = ("Model.",)
NETWORK = {  # keywords and defaults; `...` has none
    "WidthPerStage": ...,
    "CardinalityPerStage": ...,
    "BlocksPerStage": ...,
    "ExpansionFactor": ...,
    "ConditionDimension": None,
    "ConditionEmbeddingDimension": 0,
    "KernelSize": 3,
    "ResamplingFilter": (1, 2, 1),
    "FP16Stages": (),
    "c_dim": 0,
    "img_resolution": None,
}
KEYWORDS = {"generator": {"NoiseDimension": ..., **NETWORK}, "discriminator": NETWORK}
CONST, WINDOW = "b4_const", "b4_window"


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedGenerator:
    """A published generator.

    module: networks.r3gan.Generator. variables: {"params": tree}, float32. init: the official
    keywords, complete. prefix: what stood before the names. buffers: the filters, by official name.
    """

    module: r3gan.Generator
    variables: Mapping[str, Any]
    init: Mapping[str, Any]
    prefix: str
    buffers: Mapping[str, np.ndarray]

    def __call__(
        self,
        z: jax.Array,
        labels: jax.Array | None = None,
        truncation_psi: float = 1.0,
        truncation_cutoff: int | None = None,
        noise: str = "const",
    ) -> jax.Array:
        """Images (b, h, w, c), float32, nominally in [-1, 1].

        Args:
          z: N(0, 1), (b, z_dim). labels: one-hot, (b, label_dim). truncation_psi,
          truncation_cutoff, noise: of generators with styles and noise; here only their neutral
          values.
        Raises:
          ValueError: shapes that do not fit; labels that are missing or not expected; another
          truncation or noise.
        """
        if truncation_psi != 1 or truncation_cutoff is not None or noise not in ("const", "none"):
            raise ValueError(
                "R3GAN has no styles to truncate and no noise: truncation_psi must be 1, "
                f"truncation_cutoff None and noise 'const' or 'none', got {truncation_psi}, "
                f"{truncation_cutoff} and {noise!r}"
            )
        return _run(self.module, self.variables, *_inputs(z, labels, self.module.label_dim))


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedDiscriminator:
    """A published discriminator; fields as in ImportedGenerator."""

    module: r3gan.Discriminator
    variables: Mapping[str, Any]
    init: Mapping[str, Any]
    prefix: str
    buffers: Mapping[str, np.ndarray]

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> jax.Array:
        """Logits (b,) of images (b, h, w, 3) in [-1, 1] and labels (b, label_dim).

        Raises:
          ValueError: shapes that do not fit; labels that are missing or not expected.
        """
        return _run(self.module, self.variables, *_inputs(images, labels, self.module.label_dim))


@functools.partial(jax.jit, static_argnums=0)
def _run(module: nn.Module, variables: Any, x: jax.Array, cond: Any) -> jax.Array:
    return module.apply(variables, x, cond)


def _inputs(x: Any, labels: Any, label_dim: int) -> tuple[jax.Array, dict[str, jax.Array] | None]:
    """The first argument of a network and its condition; labels (b, 0) are none."""
    b = np.shape(x)[0]
    if labels is None and label_dim:
        raise ValueError(f"this network is conditional: give labels (b, {label_dim}), one-hot")
    if labels is not None and np.shape(labels) != (b, label_dim):
        raise ValueError(
            f"labels must have shape {(b, label_dim)}, got {np.shape(labels)}"
            + ("; one-hot them" if label_dim else "; this network was made without labels")
        )
    cond = {"label": jnp.asarray(labels, jnp.float32)} if label_dim else None
    return jnp.asarray(x, jnp.float32), cond


@common.explained
def load_generator(arrays: common.Arrays, **init: Any) -> ImportedGenerator:
    """The generator of official arrays.

    Args:
      arrays: official parameter and buffer names -> numbers. init: keywords of the official
        constructor.
    Raises:
      ValueError: unknown or missing keywords; one error for all unknown, missing and wrongly shaped
      arrays; NaN or infinity; filters that are not those of `init`.
    """
    return ImportedGenerator(*_load("generator", arrays, init))


@common.explained
def load_discriminator(arrays: common.Arrays, **init: Any) -> ImportedDiscriminator:
    """The discriminator of official arrays; see `load_generator`."""
    return ImportedDiscriminator(*_load("discriminator", arrays, init))


def dump(imported: ImportedGenerator | ImportedDiscriminator) -> dict[str, np.ndarray]:
    """The official arrays that the network was loaded from, float32."""
    flat = trees.leaves(imported.variables["params"])
    found = {
        official: np.array(_to_official(ours, np.asarray(flat[ours])), order="C")
        for ours, official in official_names(imported.module, flat).items()
    }
    found |= {name: x.copy() for name, x in imported.buffers.items()}
    return {imported.prefix + name: x for name, x in found.items()}


dump_generator = dump_discriminator = dump


def complete(role: str, init: Mapping[str, Any]) -> dict[str, Any]:
    """All keywords of a "generator" or "discriminator".

    Raises:
      ValueError: listing the unknown and the missing ones; two numbers of classes; another size
      than the stages make.
    """
    what = f"r3gan.load_{role}"
    init = common.complete(init, KEYWORDS[role], what)
    init = {k: tuple(v) if isinstance(v, list) else v for k, v in init.items()}
    size = 2 << len(init["WidthPerStage"])
    if init["img_resolution"] not in (None, size):
        raise ValueError(
            f"{what}: {len(init['WidthPerStage'])} stages make images of {size}, and "
            f"img_resolution is {init['img_resolution']}"
        )
    if init["c_dim"] and init["ConditionDimension"] not in (None, init["c_dim"]):
        raise ValueError(
            f"{what}: c_dim and ConditionDimension are the same number, got {init['c_dim']} and "
            f"{init['ConditionDimension']}"
        )
    return init


def network(role: str, init: Mapping[str, Any]) -> r3gan.Generator | r3gan.Discriminator:
    """The module of complete keywords."""
    first = role == "generator"  # the discriminator's stages stand in the order that it runs them
    order = slice(None) if first else slice(None, None, -1)
    n = len(init["WidthPerStage"])
    half = {s % n for s in init["FP16Stages"]}
    half = half if first else {n - 1 - s for s in half}
    if half != set(range(n - len(half), n)) or len(half) == n:
        raise ValueError(
            f"r3gan.load_{role}: FP16Stages are the largest stages without the 4x4 one, got "
            f"{init['FP16Stages']} of {n}"
        )
    low = half and jax.default_backend() != "cpu"
    return (r3gan.Generator if first else r3gan.Discriminator)(
        resolution=2 << n,
        label_dim=init["c_dim"] or init["ConditionDimension"] or 0,
        widths=init["WidthPerStage"][order],
        cardinality=init["CardinalityPerStage"][order],
        blocks=init["BlocksPerStage"][order],
        embed_dim=init["ConditionEmbeddingDimension"] or None,
        expansion=init["ExpansionFactor"],
        kernel=init["KernelSize"],
        taps=_interpolating(init["ResamplingFilter"]),
        dtype=jnp.bfloat16 if low else jnp.float32,
        half_blocks=len(half),
        **({"z_dim": init["NoiseDimension"]} if first else {}),
    )


def _interpolating(taps: Iterable[float]) -> tuple[float, ...]:
    """A filter at twice the rate: convolved with 1 1."""
    return tuple(float(t) for t in np.convolve(tuple(taps), (1, 1)))


def official_names(
    module: r3gan.Generator | r3gan.Discriminator, names: Iterable[str]
) -> dict[str, str]:
    """{our name: official name} of the parameters of a network.

    A stage is MainLayers.i, from 4x4 up in a generator and down to it in a discriminator. What
    changes the size, or begins or ends it, stands first or last in it.
    """
    n, first = len(module.widths), isinstance(module, r3gan.Generator)
    table = {
        "torgb/w": "AggregationLayer.Layer.weight",
        "fromrgb/w": "ExtractionLayer.Layer.weight",
        "embed/w": "EmbeddingLayer.weight",
        CONST: "MainLayers.0.Layers.0.Basis",
        "b4_scale/w": "MainLayers.0.Layers.0.LinearLayer.weight",
        WINDOW: f"MainLayers.{n - 1}.Layers.{module.blocks[0]}.Basis.weight",
        "out/w": f"MainLayers.{n - 1}.Layers.{module.blocks[0]}.LinearLayer.weight",
    }
    inside = {"w": "LinearLayer{}.Layer.weight", "b": "NonLinearity{}.Bias"}
    for i in range(n):
        size, stage = 4 << i, i if first else n - 1 - i
        for j in range(module.blocks[i]):
            prefix = f"MainLayers.{stage}.Layers.{j + first}."
            for k in range(3):
                for kind, name in inside.items():
                    ours = f"b{size}_block{j}/conv{k}/{kind}"
                    table[ours] = prefix + name.format(k + 1)
        # A change of width is in the stage that follows it in a generator, and precedes it else.
        layer = f"{stage}.Layers.0" if first else f"{stage - 1}.Layers.{module.blocks[(i + 1) % n]}"
        table[f"b{size}_width/w"] = f"MainLayers.{layer}.LinearLayer.Layer.weight"
    return {ours: table[ours] for ours in names}


def filters(module: r3gan.Generator | r3gan.Discriminator) -> dict[str, np.ndarray]:
    """The filter of each stage that resamples, by official name."""
    f = np.outer(module.taps, module.taps)
    f = (f / f.sum()).astype(np.float32)
    n = len(module.widths)
    if isinstance(module, r3gan.Generator):
        return {f"MainLayers.{i}.Layers.0.Resampler.Kernel": f for i in range(1, n)}
    last = {i: module.blocks[n - 1 - i] for i in range(n - 1)}
    return {f"MainLayers.{i}.Layers.{j}.Resampler.Kernel": f for i, j in last.items()}


def _load(role: str, arrays: common.Arrays, init: Mapping[str, Any]) -> tuple:
    """The fields of an imported network."""
    what, init = f"r3gan.load_{role}", complete(role, init)
    module = network(role, init)
    x = (1, module.z_dim) if role == "generator" else (1, module.resolution, module.resolution, 3)
    k = module.label_dim
    cond = {"label": jax.ShapeDtypeStruct((1, k), jnp.float32)} if k else None
    shapes = common.shapes(module, jax.ShapeDtypeStruct(x, jnp.float32), cond)
    names, constants = official_names(module, shapes), filters(module)
    zero = np.float32(0)
    expected = {
        o: _to_official(ours, np.broadcast_to(zero, shapes[ours])).shape
        for ours, o in names.items()
    }
    arrays, prefix = common.strip(arrays, WRAPPER)
    found = common.take(arrays, {**expected, **{n: f.shape for n, f in constants.items()}}, what)
    for name, value in constants.items():
        if not np.allclose(found[name], value, rtol=1e-3, atol=1e-6):
            raise ValueError(
                f"{what}: the constant {name} is not what init makes it: expected "
                f"{value.ravel()[:4]} ..., got {found[name].ravel()[:4]} ...; correct "
                "ResamplingFilter"
            )
    params = {ours: jnp.asarray(_to_ours(ours, found[o])) for ours, o in names.items()}
    buffers = {name: found[name] for name in constants}
    return module, {"params": trees.nest(params)}, init, prefix, buffers


def _is_matrix(ours: str) -> bool:
    """Whether the official release keeps this matrix as a 1x1 convolution."""
    return re.search(r"(^(to|from)rgb|_width|/conv[02])/w$", ours) is not None


def _to_ours(ours: str, x: np.ndarray) -> np.ndarray:
    """Our layout of an official array."""
    if ours == CONST:
        return x.transpose(1, 2, 0)
    return common.to_ours(x[:, :, 0, 0] if _is_matrix(ours) else x)


def _to_official(ours: str, x: np.ndarray) -> np.ndarray:
    """The inverse of `_to_ours`."""
    if ours == CONST:
        return x.transpose(2, 0, 1)
    x = common.to_official(x)
    return x[:, :, None, None] if _is_matrix(ours) else x

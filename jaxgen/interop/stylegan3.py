"""StyleGAN3's published networks, by the names and keywords of the official release.

G = load_generator(arrays, z_dim=512, c_dim=0, w_dim=512, img_resolution=256, img_channels=3,
                   conv_kernel=1, use_radial_filters=True, channel_base=65536, channel_max=1024)
images = G(z, truncation_psi=0.7)
turned = G.synthesis(G.mapping(z), transform=matrix)
D = load_discriminator(arrays, c_dim=0, img_resolution=256, img_channels=3)
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.interop import common, stylegan2
from jaxgen.interop.layout import Layout
from jaxgen.networks import stylegan3

MAPPING = {"num_layers": 2, "lr_multiplier": 0.01, "w_avg_beta": 0.998}
SYNTHESIS = {
    "channel_base": 32768,
    "channel_max": 512,
    "num_layers": 14,
    "num_critical": 2,
    "first_cutoff": 2,
    "first_stopband": 2**2.1,
    "last_stopband_rel": 2**0.3,
    "margin_size": 10,
    "output_scale": 0.25,
    "num_fp16_res": 4,
    "conv_kernel": 3,
    "filter_size": 6,
    "lrelu_upsampling": 2,
    "use_radial_filters": False,
    "conv_clamp": 256,
    "magnitude_ema_beta": 0.999,  # of a batch: 0.5 ** (batch / 20_000), our magnitude_halflife
}
OURS = {  # names of fields that are not the official ones
    "last_stopband_rel": "last_stopband",
    "margin_size": "margin",
    "num_fp16_res": "low_precision",
    "conv_kernel": "kernel",
    "use_radial_filters": "radial",
    "conv_clamp": "clamp",
}
GENERATOR = {
    "z_dim": ...,
    "c_dim": ...,
    "w_dim": ...,
    "img_resolution": ...,
    "img_channels": ...,
    "mapping_kwargs": {},
    **SYNTHESIS,
}
TRANSFORM = "synthesis.input.transform"


@dataclasses.dataclass(frozen=True, eq=False)
class ImportedGenerator(stylegan2.ImportedGenerator):
    """A published generator; fields as StyleGAN2's, and among the buffers the input's transform.

    There is no noise: a call's `noise` changes nothing.
    """

    module: stylegan3.Generator

    def synthesis(
        self, w: jax.Array, noise: str | jax.Array = "const", transform: jax.Array | None = None
    ) -> jax.Array:
        """Images (b, h, w, c) of styles: one for all layers (b, w_dim), or (b, num_ws, w_dim).

        Args:
          noise: not read. transform: (3, 3) or (b, 3, 3), what networks.stylegan3 takes; None for
            that of the file, which is the identity unless somebody changed it.
        Raises:
          ValueError: another shape.
        """
        del noise
        move = jnp.asarray(self.buffers[TRANSFORM] if transform is None else transform, jnp.float32)
        if move.shape not in ((3, 3), (np.shape(w)[0], 3, 3)):
            raise ValueError(
                f"transform must have shape (3, 3) or ({np.shape(w)[0]}, 3, 3), got {move.shape}"
            )
        return _synthesis(self.module, self.variables, jnp.asarray(w, jnp.float32), move)


@functools.partial(jax.jit, static_argnums=0)
def _synthesis(module: stylegan3.Generator, variables: Any, ws: Any, move: jax.Array) -> jax.Array:
    return module.apply(variables, ws, transform=move, method="synthesis")


@common.explained
def load_generator(arrays: common.Arrays, **init: Any) -> ImportedGenerator:
    """The generator of official arrays.

    Args:
      arrays: official parameter and buffer names -> numbers. init: keywords of the official
        constructor; those of the synthesis may stand in `synthesis_kwargs`.
    Raises:
      ValueError: unknown or missing keywords; one error for all unknown, missing and wrongly shaped
      arrays; NaN or infinity; filters that are not those of `init`.
    """
    init = complete(init)
    module = generator(init)
    z = jax.ShapeDtypeStruct((1, init["z_dim"]), jnp.float32)
    of = layout(module)
    names, expected = of.expected(module, z, init["c_dim"])
    expected |= {stylegan2.W_AVG: (init["w_dim"],), TRANSFORM: (3, 3)}
    constants = filters(module)
    params, found = of.take(arrays, names, expected, constants, "stylegan3.load_generator")
    return ImportedGenerator(
        module=module,
        variables={"params": params},
        w_avg=jnp.asarray(found[stylegan2.W_AVG]),
        init=init,
        buffers={name: found[name] for name in (*constants, TRANSFORM)},
    )


def dump_generator(imported: ImportedGenerator) -> dict[str, np.ndarray]:
    """The official arrays of `load_generator`, float32."""
    arrays = layout(imported.module).official(imported.variables["params"], imported.buffers)
    return arrays | {stylegan2.W_AVG: np.array(imported.w_avg)}


@common.explained
def load_discriminator(arrays: common.Arrays, **init: Any) -> stylegan2.ImportedDiscriminator:
    """The discriminator: StyleGAN2's, with the defaults of this release."""
    return stylegan2.load_discriminator(arrays, **{"num_fp16_res": 4, "conv_clamp": 256, **init})


dump_discriminator = stylegan2.dump_discriminator


def complete(init: Mapping[str, Any]) -> dict[str, Any]:
    """All keywords of a generator, those of `synthesis_kwargs` among them.

    Raises:
      ValueError: listing the unknown and the missing ones; what no published network has.
    """
    what = "stylegan3.load_generator"
    init = {**init.get("synthesis_kwargs", {}), **init}
    init.pop("synthesis_kwargs", None)
    init = common.complete(init, GENERATOR, what)
    mapping = common.complete(init["mapping_kwargs"], MAPPING, f"{what}, mapping_kwargs")
    if init["lrelu_upsampling"] != 2:
        raise ValueError(
            f"{what}: lrelu_upsampling must be 2, as in all published networks, got "
            f"{init['lrelu_upsampling']}"
        )
    return init | {"mapping_kwargs": mapping}


def generator(init: Mapping[str, Any]) -> stylegan3.Generator:
    """The generator of complete keywords."""
    unused = ("lrelu_upsampling", "magnitude_ema_beta")
    return stylegan3.Generator(
        resolution=init["img_resolution"],
        channels=init["img_channels"],
        label_dim=init["c_dim"],
        z_dim=init["z_dim"],
        w_dim=init["w_dim"],
        mapping_layers=init["mapping_kwargs"]["num_layers"],
        mapping_lr_multiplier=init["mapping_kwargs"]["lr_multiplier"],
        dtype=common.compute_dtype(init["num_fp16_res"] > 0),
        **{OURS.get(k, k): init[k] for k in SYNTHESIS if k not in unused},
    )


def layout(module: stylegan3.Generator) -> Layout:
    """Names and layouts; official layers are called by number, size and channels."""
    numbered = (
        (rf"^synthesis/L{i}/", f"synthesis/L{i}_{spec.out_size}_{spec.out_channels}/")
        for i, spec in enumerate(module.table())
    )
    return Layout(
        rules=(
            *numbered,
            (r"/affine_(w|b)$", r"/affine/\1"),
            (r"/magnitude$", "/magnitude_ema"),
            (r"/w$", ".weight"),
            (r"/b$", ".bias"),
            (r"/", "."),
        ),
        to_ours=lambda name, x: x if name.endswith(".freqs") else common.to_ours(x),
        to_official=lambda name, x: x if name.endswith(".freqs") else common.to_official(x),
    )


def filters(module: stylegan3.Generator) -> dict[str, np.ndarray]:
    """The layers' filters, by official name; those of one tap are not in files."""
    found = {}
    for i, spec in enumerate(module.table()):
        name = f"synthesis.L{i}_{spec.out_size}_{spec.out_channels}"
        for kind, f in zip(("up", "down"), spec.filters()):
            if f.size > 1:
                found[f"{name}.{kind}_filter"] = f.astype(np.float32)
    return found

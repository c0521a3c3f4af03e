"""The keywords of StyleGAN2's official constructors, and our modules of them.

The keywords of the synthesis may stand among the generator's own, as StyleGAN3's release has them;
its defaults are other ones (`num_fp16_res` 4, `conv_clamp` 256) and have to be given.
"""

from collections.abc import Mapping
from typing import Any

from jaxgen.interop import common
from jaxgen.networks import stylegan2

# The official constructors' keywords and defaults; `...` has none.
TAPS = (1, 3, 3, 1)
MAPPING = {
    "num_layers": 8,
    "embed_features": None,
    "layer_features": None,
    "activation": "lrelu",
    "lr_multiplier": 0.01,
}
MEMORY = {"fp16_channels_last": False}  # how arrays lie in memory: nothing here
SYNTHESIS = {
    "channel_base": 32768,
    "channel_max": 512,
    "num_fp16_res": 0,
    "architecture": "skip",
    "resample_filter": TAPS,
    "conv_clamp": None,
    "use_noise": True,
    "activation": "lrelu",
    "fused_modconv_default": True,  # two ways to one result
    **MEMORY,
}
GENERATOR = {
    "z_dim": ...,
    "c_dim": ...,
    "w_dim": ...,
    "img_resolution": ...,
    "img_channels": ...,
    "mapping_kwargs": {},
    "synthesis_kwargs": {},
}
BLOCK = {"activation": "lrelu", "resample_filter": TAPS, "freeze_layers": 0, **MEMORY}
EPILOGUE = {"mbstd_group_size": 4, "mbstd_num_channels": 1, "activation": "lrelu"}
DISCRIMINATOR = {
    "c_dim": ...,
    "img_resolution": ...,
    "img_channels": ...,
    "architecture": "resnet",
    "channel_base": 32768,
    "channel_max": 512,
    "num_fp16_res": 0,
    "conv_clamp": None,
    "cmap_dim": None,
    "block_kwargs": {},
    "mapping_kwargs": {},
    "epilogue_kwargs": {},
}


def complete_generator(init: Mapping[str, Any]) -> dict[str, Any]:
    """All keywords of a generator, those of the synthesis in `synthesis_kwargs`.

    Raises:
      ValueError: listing the unknown and the missing ones.
    """
    what = "stylegan2.load_generator"
    own = {k: v for k, v in init.items() if k not in SYNTHESIS}
    synthesis = {k: v for k, v in init.items() if k in SYNTHESIS}
    init = common.complete(own, GENERATOR, what)
    mapping, synthesis = init["mapping_kwargs"], synthesis | init["synthesis_kwargs"]
    return init | {
        "mapping_kwargs": _nested(
            mapping, {**MAPPING, "w_avg_beta": 0.995}, f"{what}, mapping_kwargs"
        ),
        "synthesis_kwargs": _nested(synthesis, SYNTHESIS, f"{what}, synthesis_kwargs"),
    }


def complete_discriminator(init: Mapping[str, Any]) -> dict[str, Any]:
    """All keywords of a discriminator.

    Raises:
      ValueError: listing the unknown and the missing ones; two activations.
    """
    what = "stylegan2.load_discriminator"
    init = common.complete(init, DISCRIMINATOR, what)
    nested = {"block_kwargs": BLOCK, "mapping_kwargs": MAPPING, "epilogue_kwargs": EPILOGUE}
    init |= {k: _nested(init[k], defaults, f"{what}, {k}") for k, defaults in nested.items()}
    used = {init[name]["activation"] for name in ("block_kwargs", "epilogue_kwargs")}
    if len(used) > 1:
        raise ValueError(
            f"{what}: one activation for block_kwargs and epilogue_kwargs, got {sorted(used)}; no "
            "published network uses two"
        )
    return init


def generator(init: Mapping[str, Any]) -> stylegan2.Generator:
    """The generator of complete keywords."""
    synthesis = init["synthesis_kwargs"]
    return stylegan2.Generator(
        channels=init["img_channels"],
        z_dim=init["z_dim"],
        w_dim=init["w_dim"],
        use_noise=synthesis["use_noise"],
        **_fields(init, synthesis),
    )


def discriminator(init: Mapping[str, Any]) -> stylegan2.Discriminator:
    """The discriminator of complete keywords."""
    epilogue = init["epilogue_kwargs"]
    channels = epilogue["mbstd_num_channels"]
    return stylegan2.Discriminator(
        group_size=epilogue["mbstd_group_size"] if channels else 0,
        std_channels=channels,
        cmap_dim=init["cmap_dim"],
        **_fields(init, init | init["block_kwargs"]),
    )


def _fields(init: Mapping[str, Any], blocks: Mapping[str, Any]) -> dict[str, Any]:
    """What both networks take, by our names; `blocks` holds the keywords of blocks and widths."""
    mapping = init["mapping_kwargs"]
    return {
        "resolution": init["img_resolution"],
        "label_dim": init["c_dim"],
        "mapping_layers": mapping["num_layers"],
        "mapping_lr_multiplier": mapping["lr_multiplier"],
        "mapping_features": mapping["layer_features"],
        "embed_features": mapping["embed_features"],
        "mapping_activation": mapping["activation"],
        "channel_base": blocks["channel_base"],
        "channel_max": blocks["channel_max"],
        "architecture": blocks["architecture"],
        "activation": blocks["activation"],
        "taps": blocks["resample_filter"],
        "clamp": blocks["conv_clamp"],
        "half_blocks": blocks["num_fp16_res"],
        "dtype": common.compute_dtype(blocks["num_fp16_res"] > 0),
    }


def _nested(given: Mapping[str, Any], defaults: Mapping[str, Any], what: str) -> dict[str, Any]:
    found = common.complete(given, defaults, what)
    return {k: tuple(v) if isinstance(v, list) else v for k, v in found.items()}

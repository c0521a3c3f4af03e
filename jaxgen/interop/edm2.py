"""EDM2's published networks, by the names and keywords of the official release.

    D = load(arrays, img_resolution=64, img_channels=4, label_dim=1000, model_channels=192)
    x0 = D(x, sigma, labels)

The file of a network holds the U-Net (`unet.`) and the head of the training loss (`logvar_`).
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import trees
from jaxgen.interop import common
from jaxgen.networks import edm2
from jaxgen.noise.precondition import EDM

# The official constructor's keywords and defaults; `...` has none.
KEYWORDS = {
    "img_resolution": ...,
    "img_channels": ...,
    "label_dim": 0,
    "use_fp16": True,
    "sigma_data": 0.5,
    "logvar_channels": 128,
    "model_channels": 192,
    "channel_mult": (1, 2, 3, 4),
    "channel_mult_noise": None,
    "channel_mult_emb": None,
    "num_blocks": 3,
    "attn_resolutions": (16, 8),
    "label_balance": 0.5,
    "concat_balance": 0.5,
    "resample_filter": (1, 1),
    "channels_per_head": 64,
    "dropout": 0.0,
    "res_balance": 0.3,
    "attn_balance": 0.3,
    "clip_act": 256.0,
}
# Keywords of the network under another name; `None` is not the network's.
FIELDS = {
    "img_resolution": None,
    "img_channels": "channels",
    "use_fp16": None,
    "sigma_data": None,
    "logvar_channels": None,
    "res_balance": "balance",
    "attn_balance": "attention_balance",
    "clip_act": "clip",
}
NAMES = (  # ours to official, in order
    (r"^(enc|dec)_(\d+)_", r"\1.\2x\2_"),
    (r"/conv(\d)/w$", r".conv_res\1.weight"),
    (r"/skip/w$", ".conv_skip.weight"),
    (r"/emb/w$", ".emb_linear.weight"),
    (r"/attention/(qkv|proj)/w$", r".attn_\1.weight"),
    (r"(^|/)(emb_gain|out_gain)/gain$", r"\1\2"),
    (r"/w$", ".weight"),
    (r"/", "."),
)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImportedEDM2(common.Imported):
    """An EDM2 network as a denoiser, with `head`, the log-variance of its training loss."""

    head: edm2.Uncertainty
    head_variables: Mapping[str, Any]

    def logvar(self, sigma: jax.Array | float) -> jax.Array:
        """u(sigma) (b,) for noise levels (b,), or (1,) for one level (arXiv:2312.02696, Eq. 14)."""
        sigma = self.levels(sigma, np.size(sigma))
        return self.head.apply(self.head_variables, self.family.scaling(sigma).c_noise)


def official_names(names: Iterable[str], prefix: str = "") -> dict[str, str]:
    """{our name: official name}, `prefix` before the latter."""
    table = {}
    for ours in names:
        name = ours
        for pattern, to in NAMES:
            name = re.sub(pattern, to, name)
        table[ours] = prefix + name
    return table


def fields(init: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `networks.edm2.EDM2`, but for dtype, from complete official keywords."""
    named = {FIELDS.get(k, k): _tuple(v) for k, v in init.items()}
    named.pop(None)
    return named


@common.explained
def load(arrays: common.Arrays, **init: Any) -> ImportedEDM2:
    """The denoiser of official arrays.

    Args:
      arrays: official parameter and buffer names -> numbers, with or without `unet.` before those
      of the U-Net. init: keywords of the official constructor, see KEYWORDS.
    Raises:
      ValueError: unknown or missing keywords; one error for all unknown, missing and wrongly shaped
      arrays; NaN or infinity.
    """
    init = {k: _tuple(v) for k, v in common.complete(init, KEYWORDS, "edm2.load").items()}
    size, c = init["img_resolution"], init["img_channels"]
    module = edm2.EDM2(**fields(init), dtype=common.compute_dtype(init["use_fp16"]))
    head = edm2.Uncertainty(init["logvar_channels"])
    level = jax.ShapeDtypeStruct((1,), jnp.float32)
    image = jax.ShapeDtypeStruct((1, size, size, c), jnp.float32)
    shapes = common.shapes(module, image, level), common.shapes(head, level)
    names = official_names(shapes[0]), official_names(shapes[1], "logvar_")
    expected = {
        official: common.official_shape(shape[ours])
        for shape, table in zip(shapes, names, strict=True)
        for ours, official in table.items()
    }
    stripped, prefix = common.strip(arrays, ("unet.",))
    found = common.take(stripped, expected, "edm2.load")
    params, head_params = (common.params(found, table) for table in names)
    return ImportedEDM2(
        module=module,
        variables={"params": params},
        family=EDM(init["sigma_data"]),
        init=init,
        shape=(size, size, c),
        label_dim=init["label_dim"],
        prefix=prefix,
        head=head,
        head_variables={"params": head_params},
    )


def dump(imported: ImportedEDM2) -> dict[str, np.ndarray]:
    """The official arrays of `load`, float32, with the prefix that they came with."""
    unet, head = imported.variables["params"], imported.head_variables["params"]
    return {
        **common.official(unet, official_names(trees.leaves(unet), imported.prefix)),
        **common.official(head, official_names(trees.leaves(head), "logvar_")),
    }


def _tuple(v: Any) -> Any:
    return tuple(v) if isinstance(v, (list, tuple)) else v

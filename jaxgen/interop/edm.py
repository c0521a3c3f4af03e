"""EDM's published networks, by the names and keywords of the official release.

    D = load(arrays, precond="EDMPrecond", model_type="SongUNet", img_resolution=32,
             img_channels=3, label_dim=10, augment_dim=9, channel_mult=[2, 2, 2], ...)
    x0 = D(x, sigma, labels)

DDPM++ and NCSN++ are a "SongUNet" there, ADM a "DhariwalUNet".
"""

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import trees
from jaxgen.interop import common
from jaxgen.networks import adm, ddpmpp
from jaxgen.nn import unet
from jaxgen.noise import precondition

# The official constructors' keywords and defaults; `...` has none.
IMAGES = {"img_resolution": ..., "img_channels": ..., "label_dim": 0, "use_fp16": False}
PRECONDS = {
    "edm": {
        "sigma_min": 0.0,
        "sigma_max": float("inf"),
        "sigma_data": 0.5,
        "model_type": "DhariwalUNet",
    },
    "vp": {
        "beta_d": 19.9,
        "beta_min": 0.1,
        "M": 1000,
        "epsilon_t": 1e-5,
        "model_type": "SongUNet",
    },
    "ve": {"sigma_min": 0.02, "sigma_max": 100.0, "model_type": "SongUNet"},
    "iddpm": {"C_1": 0.001, "C_2": 0.008, "M": 1000, "model_type": "DhariwalUNet"},
}
SHARED = {"augment_dim": 0, "channel_mult_emb": 4, "dropout": 0.1, "label_dropout": 0.0}
MODELS = {
    "SongUNet": {
        **SHARED,
        "model_channels": 128,
        "channel_mult": (1, 2, 2, 2),
        "num_blocks": 4,
        "attn_resolutions": (16,),
        "embedding_type": "positional",
        "channel_mult_noise": 1,
        "encoder_type": "standard",
        "decoder_type": "standard",
        "resample_filter": (1, 1),
    },
    "DhariwalUNet": {
        **SHARED,
        "model_channels": 192,
        "channel_mult": (1, 2, 3, 4),
        "num_blocks": 3,
        "attn_resolutions": (32, 16, 8),
    },
}
NAMES = (  # ours to official, in order
    (r"^(enc|dec)_(\d+)_", r"\1.\2x\2_"),
    (r"_pyramid/", "_aux_residual/"),
    (r"^emb_fourier/", "map_noise/"),
    (r"^emb_", "map_"),
    (r"/attention/norm/", "/norm2/"),
    (r"/attention/", "/"),
    (r"/emb/", "/affine/"),
    (r"/w$", "/weight"),
    (r"/b$", "/bias"),
    (r"/", "."),
)
ONE_BY_ONE = re.compile(r"\.(skip|qkv|proj)\.weight$")  # convolutions there, matrices here
HEAD = 64  # channels of a head of the DhariwalUNet


@dataclasses.dataclass(frozen=True)
class EDM(precondition.EDM):
    """EDM's preconditioning with the range that the file gives."""

    sigma_min: float = 0.0
    sigma_max: float = float("inf")


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ImportedEDM(common.Imported):
    """An EDM network as a denoiser. buffers: the constants of the file, by official name."""

    buffers: Mapping[str, np.ndarray]


def complete(init: Mapping[str, Any]) -> dict[str, Any]:
    """All keywords of the constructors, `precond` being "edm", "vp", "ve" or "iddpm".

    Raises:
      ValueError: for keywords and values that are unknown, and for the options that no published
        network uses.
    """
    init = {k: tuple(v) if isinstance(v, (list, tuple)) else v for k, v in init.items()}
    precond = str(init.pop("precond", "edm")).removesuffix("Precond").lower()
    if precond not in PRECONDS:
        raise ValueError(f"edm.load: precond is one of {', '.join(PRECONDS)}, got {precond!r}")
    model = init.get("model_type", PRECONDS[precond]["model_type"])
    if model not in MODELS:
        raise ValueError(f"edm.load: model_type is one of {', '.join(MODELS)}, got {model!r}")
    init = common.complete(init, IMAGES | PRECONDS[precond] | MODELS[model], "edm.load")
    allowed = {
        "embedding_type": ("positional", "fourier"),
        "encoder_type": ("standard", "residual"),
        "decoder_type": ("standard",),
    }
    for name, values in allowed.items():
        if init.get(name, values[0]) not in values:
            raise ValueError(
                f"edm.load: {name}={init[name]!r} is not supported, only {' and '.join(values)}; "
                "no published network uses another"
            )
    return {"precond": precond, **init}


def network(init: Mapping[str, Any]) -> nn.Module:
    """The network of complete keywords."""
    same = ("label_dim", "augment_dim", "model_channels", "channel_mult", "channel_mult_emb")
    same += ("num_blocks", "attn_resolutions", "dropout", "label_dropout")
    fields = {k: init[k] for k in same}
    c = init["img_channels"]
    fields |= {"channels": c, "dtype": common.compute_dtype(init["use_fp16"])}
    if init["precond"] == "iddpm":
        fields["out_channels"] = 2 * c
    if init["model_type"] == "SongUNet":
        return ddpmpp.UNet(
            **fields,
            embedding=init["embedding_type"],
            encoder=init["encoder_type"],
            taps=init["resample_filter"],
            channel_mult_noise=init["channel_mult_noise"],
        )
    # The official number of heads is channels // 64: narrower blocks have none, without a word.
    widths = [init["model_channels"] * m for m in init["channel_mult"]]
    narrow = {init["img_resolution"] >> i for i, w in enumerate(widths) if w < HEAD}
    fields["attn_resolutions"] = tuple(r for r in fields["attn_resolutions"] if r not in narrow)
    return adm.ADM(**fields, middle_attention=widths[-1] >= HEAD, channels_per_head=HEAD)


def family(init: Mapping[str, Any]) -> precondition.Family:
    """The preconditioning of complete keywords."""
    options = {k: init[k] for k in PRECONDS[init["precond"]] if k != "model_type"}
    if init["precond"] == "edm":
        return EDM(**options)
    return precondition.family(init["precond"], **options)


@common.explained
def load(arrays: common.Arrays, **init: Any) -> ImportedEDM:
    """The denoiser of official arrays.

    Args:
      arrays: official parameter and buffer names -> numbers, with or without `model.` before them.
      init: keywords of the official constructors of preconditioning and network, see PRECONDS and
        MODELS, and `precond`, which class the former is ("EDMPrecond" or "edm", ...).
    Raises:
      ValueError: unknown or missing keywords; one error for all unknown, missing and wrongly shaped
      arrays; NaN or infinity; constants that are not those of `init`.
    """
    init = complete(init)
    module, size, c = network(init), init["img_resolution"], init["img_channels"]
    level = jax.ShapeDtypeStruct((1,), jnp.float32)
    shapes = common.shapes(module, jax.ShapeDtypeStruct((1, size, size, c), jnp.float32), level)
    names = official_names(shapes, init)
    expected = {o: _official_shape(o, shapes[ours]) for ours, o in names.items()}
    constants = filters(init)
    stripped, prefix = common.strip(arrays, ("model.",))
    if init["precond"] == "iddpm" and "u" in stripped:  # of the wrapper: not in files of networks
        constants["u"] = family(init).table
    expected |= {name: value.shape for name, value in constants.items()}
    found = common.take(stripped, expected, "edm.load")
    for name, value in constants.items():
        if not np.allclose(found[name], value, rtol=1e-3, atol=1e-6):
            raise ValueError(
                f"edm.load: the constant {name} is not what init makes it: expected "
                f"{value.ravel()[:4]} ..., got {found[name].ravel()[:4]} ...; correct init"
            )
    tree = trees.nest({n: jnp.asarray(_to_ours(o, found[o])) for n, o in names.items()})
    return ImportedEDM(
        module=module,
        variables={"params": tree},
        family=family(init),
        init=init,
        shape=(size, size, c),
        label_dim=init["label_dim"],
        augment_dim=init["augment_dim"],
        prefix=prefix,
        buffers={name: found[name] for name in constants},
    )


def dump(imported: ImportedEDM) -> dict[str, np.ndarray]:
    """The official arrays of `load`, float32, with the prefix that they came with."""
    flat = trees.leaves(imported.variables["params"])
    names = official_names(flat, imported.init)
    arrays = {o: _to_official(o, np.asarray(flat[ours])) for ours, o in names.items()}
    arrays |= {name: value.copy() for name, value in imported.buffers.items()}
    return {("" if n == "u" else imported.prefix) + n: x for n, x in arrays.items()}


def official_names(names: Iterable[str], init: Mapping[str, Any]) -> dict[str, str]:
    """{our name: official name}."""
    size, table = init["img_resolution"], {}
    for ours in names:
        name = ours
        for pattern, to in NAMES:
            name = re.sub(pattern, to, name)
        if init["model_type"] == "SongUNet":
            name = re.sub(r"^out_", f"dec.{size}x{size}_aux_", name)
        table[ours] = name
    return table


def filters(init: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The resampling filters that the official layers hold: outer(f, f) / sum(f)^2."""
    f = np.asarray(init.get("resample_filter", (1, 1)), np.float64)
    kernel = (np.outer(f, f) / f.sum() ** 2).astype(np.float32)[None, None]
    plan = init["img_resolution"], [1] * len(init["channel_mult"]), init["num_blocks"]
    down = [p.name for p in unet.encoder(plan[0], 1, *plan[1:]) if p.role == "down"]
    up = [p.name for p in unet.decoder(*plan) if p.role == "up"]
    layers = [f"{name}/{layer}/" for name in down + up for layer in ("conv0", "skip")]
    if init.get("encoder_type") == "residual":
        layers += [name.replace("_down", "_pyramid/") for name in down]
    return {f"{n}resample_filter": kernel for n in official_names(layers, init).values()}


def _to_ours(name: str, w: np.ndarray) -> np.ndarray:
    """Our layout of an official array; attention's outputs go from (c, qkv) to (qkv, c)."""
    if ".qkv." in name:
        w = np.moveaxis(w.reshape(-1, 3, *w.shape[1:]), 1, 0).reshape(w.shape)
    return w[:, :, 0, 0].T if ONE_BY_ONE.search(name) else common.to_ours(w)


def _to_official(name: str, w: np.ndarray) -> np.ndarray:
    """The inverse of `_to_ours`."""
    w = common.to_official(w)
    if ".qkv." in name:
        w = np.moveaxis(w.reshape(3, -1, *w.shape[1:]), 0, 1).reshape(w.shape)
    return np.array(w[:, :, None, None] if ONE_BY_ONE.search(name) else w, order="C")


def _official_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    return common.official_shape(shape) + (1, 1) * bool(ONE_BY_ONE.search(name))

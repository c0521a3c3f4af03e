"""Importing GANs (StyleGAN2-ADA, StyleGAN3, R3GAN): a run that is drawn from and trained on."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgen.cli import common
from jaxgen.cli.importing import FIELDS_OF_DATA, MACHINE, NO_DATA, Entry, Prepared, shapes

AVERAGE, HALFLIFE = "halflife_10000", "10k"  # at batch 32; the authors' for all but small images
TRAINING = {  # batch, and by section what the papers train with; R1's weight is set below
    "stylegan2": (32, {"optimizer": {"g_lr": 0.002, "d_lr": 0.002},
                       "loss": {"r1_every": 16, "path_every": 4, "style_mixing": 0.9}}),
    "stylegan3": (32, {"optimizer": {"g_lr": 0.0025, "d_lr": 0.002},
                       "loss": {"r1_every": 16, "w_avg_decay": 0.998}}),
    "r3gan": (256, {"optimizer": {"g_lr": 5e-5, "d_lr": 5e-5},
                    "loss": {"name": "relativistic", "r1_every": 1}}),
}  # fmt: skip
R1 = {"stylegan2": 2e-4, "stylegan3": 1e-3}  # gamma = this x resolution^2 / batch
R3GAN_R1 = {32: 0.05, 64: 0.2, 256: 15.0}  # at the end of the authors' schedules


def prepare(
    networks: Mapping[str, Any],
    family: str,
    found: list[Entry],
    args: argparse.Namespace,
    given: Mapping[str, Any],
) -> Prepared:
    """What `jaxgen import` writes for the networks "G", "D" and "G_ema" of a file.

    Raises:
      ValueError: several files; one error for all that is wrong with the networks.
    """
    if len(found) > 1 or found[0].length is not None:
        raise ValueError(
            "the average of a GAN has a half-life, and no length that others could be rebuilt "
            "from: import one file, without --length"
        )
    path = found[0].path
    if strange := sorted(set(given) - {"G", "D"}):
        raise ValueError(f'--init of a GAN is {{"G": {{...}}, "D": {{...}}}}, got {strange}')
    loaded = load(path, networks, family, given)
    config = run_config(loaded, family, found[0].nimg, args.data)
    module = loaded["G_ema"].module
    size, channels = module.resolution, getattr(module, "channels", 3)

    def save(folder: Path, run: common.Run) -> None:
        write(folder, run, path, loaded)

    return Prepared(config, (size, size, channels), module.label_dim, save)


def load(
    path: Path, networks: Mapping[str, Any], family: str, given: Mapping[str, Any]
) -> dict[str, Any]:
    """The imported networks by "G", "D" and "G_ema".

    Raises:
      ValueError: one, of all networks that cannot be used; networks that do not fit each other.
    """
    from jaxgen.interop import r3gan, stylegan2, stylegan3

    source = {"stylegan2": stylegan2, "stylegan3": stylegan3, "r3gan": r3gan}[family]
    loaded, errors = {}, []
    for name, weights in networks.items():
        make = source.load_discriminator if name == "D" else source.load_generator
        try:
            loaded[name] = make(weights.arrays, **{**weights.init, **given.get(name[0], {})})
        except ValueError as e:
            errors.append(f"{name}: {e}")
    if errors:
        raise ValueError(f"{path}: " + "\n".join(errors))
    g, d, average = (loaded[n].module for n in ("G", "D", "G_ema"))
    if g != average:
        raise ValueError(f"{path}: G and G_ema are different networks: {g} and {average}")
    if (d.resolution, d.label_dim) != (g.resolution, g.label_dim):
        raise ValueError(
            f"{path}: G makes images of {g.resolution} with {g.label_dim} classes, and D judges "
            f"images of {d.resolution} with {d.label_dim}"
        )
    return loaded


def run_config(
    loaded: Mapping[str, Any], family: str, nimg: int, data: str | None
) -> dict[str, Any]:
    """The config of a run of these networks.

    What the weights do not tell is the papers'. R1's weight is a guess from the resolution, to be
    set by --config.loss.r1_gamma when the training goes on.
    """
    batch, settings = TRAINING[family]
    size = loaded["G"].module.resolution
    gamma = R1.get(family, 0.0) * size**2 / batch
    if family == "r3gan":
        gamma = R3GAN_R1.get(size, 0.2 * (size / 64) ** 2)
    config: dict[str, Any] = {
        "recipe": "gan",
        "seed": 0,
        "dtype": "auto",
        "images": str(nimg - nimg % batch),
        "batch": batch,
        "microbatches": 1,
        "log_every": "50k",
        "checkpoint_every": "1M",
        "snapshot_every": "1M",
        "sample_every": "0",
        "keep_checkpoints": 2,
        "snapshot_dtype": "float32",
        "max_skips": 20,
        "data": {"source": data or NO_DATA, "labels": bool(loaded["G"].module.label_dim)},
        **MACHINE,
        "averages": {"power": (), "halflife": HALFLIFE, "rampup": 0.05},
        "average": AVERAGE,
        "features": "auto",
        "generator": network_config(loaded["G"].module, family),
        "discriminator": network_config(loaded["D"].module, family),
        "loss": {
            "name": "nonsaturating",
            "d_steps": 1,
            "r1_gamma": gamma,
            "r2_gamma": gamma if family == "r3gan" else 0.0,
            "r1_every": 0,
            "gp_weight": 0.0,
            "epsilon_drift": 0.0,
            "path_weight": 2.0,
            "path_decay": 0.01,
            "path_every": 0,
            "path_batch_shrink": 2,
            "style_mixing": 0.0,
            "w_avg_decay": 0.995,
            "orthogonal_weight": 0.0,
            "blur_sigma": 0.0,
            "blur_images": "200k",
        },
        "augment": {
            "kind": "none",
            "p": 0.0,
            "target": 0.0,
            "images": "500k",
            "recipe": "bgc",
            "multipliers": {},
            "policy": ("color", "translation", "cutout"),
        },
        "growing": {"first": 0, "fade": "800k", "stable": "800k", "keep_optimizer": True},
        "optimizer": {"g_lr": 0.0, "d_lr": 0.0, "b1": 0.0, "b2": 0.99, "eps": 1e-8},
        "cosine": {"images": "0", "g_lr": 0.0, "d_lr": 0.0, "b2": 0.99, "p": 0.0},
        "sampler": {"psi": 1.0, "cutoff": 0, "z_max": 0.0},
    }
    config["data"] |= {"latents": False, "limit": 0, "hflip": False}
    config["cosine"] |= {"r1_gamma": 0.0, "r2_gamma": 0.0}
    for section, values in settings.items():
        config[section] |= values
    return config


def network_config(module: Any, family: str) -> dict[str, Any]:
    """The section of a config that makes this module."""
    fields = {f.name: getattr(module, f.name) for f in dataclasses.fields(module)}
    word = type(module).__module__.rpartition(".")[2].removesuffix("_discriminator")
    if word not in ("stylegan2", "stylegan3", "r3gan"):
        raise ValueError(f"no word for the network {type(module)} of {family!r}")
    return {"network": word, **{n: x for n, x in fields.items() if n not in FIELDS_OF_DATA}}


def write(folder: Path, run: common.Run, path: Path, loaded: Mapping[str, Any]) -> None:
    """A snapshot of the averages, and a checkpoint with fresh optimizers.

    Raises:
      ValueError: the recipe builds other networks.
    """
    import jax
    import numpy as np

    from jaxgen.train import snapshot, state
    from jaxgen.train.store import Store

    g, d, average = (loaded[n].variables["params"] for n in ("G", "D", "G_ema"))
    params = {"generator": g, "discriminator": d}
    target = state.abstract(run.plan, run.mesh)
    if shapes(params) != shapes(target.params):
        raise ValueError(f"{path}: recipe {run.config.recipe!r} builds another network")
    nimg = int(run.config.images)
    places = jax.tree.map(lambda x: x.sharding, target)
    # Fresh optimizers and statistics; the rest is given its values below.
    fresh = jax.jit(lambda p: state.from_params(run.plan, p), out_shardings=places)(params)
    stats = dict(fresh.stats)
    if (w_avg := getattr(loaded["G"], "w_avg", None)) is not None:
        stats["w_avg"] = w_avg
    begin = dataclasses.replace(
        fresh,
        step=np.int32(nimg // run.config.batch),
        stats=stats,
        averages={AVERAGE: {"generator": average, "discriminator": d}},
    )
    begin = jax.device_put(begin, places)
    meta = {"imported": True, "stage": 0, "batch": run.config.batch, "seed": run.config.seed}
    with Store(folder / "snapshots") as store:
        snapshot.save(store, run.plan, begin, nimg, "float32", meta)
    with Store(folder / "checkpoints") as store:
        store.save(nimg, {"state": begin}, {**meta, "nimg": nimg})

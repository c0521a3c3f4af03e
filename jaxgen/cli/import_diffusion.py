"""Importing score networks (EDM, EDM2): their configs, and a set of EMA snapshots."""

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgen.cli import common
from jaxgen.cli.importing import FIELDS_OF_DATA, MACHINE, NO_DATA, SINGLE, Entry, Prepared, shapes

AUGMENTED = {0: 0.0, 9: 0.12}  # width of EDM's augmentation labels -> a probability that has them


def prepare(
    weights: Any,
    family: str,
    found: list[Entry],
    args: argparse.Namespace,
    given: Mapping[str, Any],
) -> Prepared:
    """What `jaxgen import` writes for files of one network, of which `weights` is the first."""
    first = load(found[0].path, weights, family, given)

    def save(folder: Path, run: common.Run) -> None:
        write(folder, run, found, first, family, given)

    config = run_config(first, found, args.data)
    return Prepared(config, tuple(first.shape), first.label_dim, save)


def load(path: Path, weights: Any, family: str, given: Mapping[str, Any]) -> Any:
    """The imported network of a file (interop.common.Imported).

    Raises:
      ValueError: naming the file.
    """
    from jaxgen.interop import edm, edm2

    init = {**weights.init, **given}
    name = weights.class_name or ""
    if family == "edm" and name.endswith("Precond"):
        init.setdefault("precond", name)
    try:
        return (edm2 if family == "edm2" else edm).load(weights.arrays, **init)
    except ValueError as e:
        hint = "" if init else "\nThe file holds no keywords of its network: give them by --init"
        raise ValueError(f"{path}: {e}{hint}") from e


def run_config(imported: Any, found: list[Entry], data: str | None) -> dict[str, Any]:
    """The config of a run with this network.

    What the weights do not tell (batch, learning rate, training levels, sampler) are the papers'
    values.
    """
    module, family = imported.module, imported.family
    model = {
        f.name: getattr(module, f.name)
        for f in dataclasses.fields(module)
        if f.name not in FIELDS_OF_DATA
    }
    second = hasattr(imported, "head")
    lengths = sorted({e.length for e in found if e.length is not None})
    sampler = {
        "solver": "heun",
        "grid": "edm",
        "steps": 32 if second else 18,
        "sigma_min": max(0.002, family.sigma_min),
        "sigma_max": min(80.0, family.sigma_max),
        "rho": 7.0,
        **{"S_churn": 0.0, "S_min": 0.0, "S_max": 1e9, "S_noise": 1.0, "eta": 0.0},
    }
    config = {
        "recipe": "edm2" if second else "edm",
        "seed": 0,
        "dtype": "auto" if imported.init["use_fp16"] else "float32",
        "images": str(found[-1].nimg),
        "batch": 2048 if second else 512,
        "microbatches": 1,
        "log_every": "50k",
        "checkpoint_every": "5M",
        "snapshot_every": "8Mi",
        "sample_every": "0",
        "keep_checkpoints": 2,
        "snapshot_dtype": "float32",
        "max_skips": 20,
        "data": {"source": data or NO_DATA, "labels": bool(imported.label_dim)},
        **MACHINE,
        "averages": {"power": lengths, "halflife": "0"},
        "average": str(lengths[-1]) if lengths else SINGLE,
        "features": "auto",
        "model": model,
        "sampler": sampler,
    }
    config["data"] |= {"latents": False, "limit": 0, "hflip": False}
    if second:
        model["uncertainty_features"] = imported.head.features
        config["loss"] = {
            "P_mean": -0.4,
            "P_std": 1.0,
            "label_dropout": 0.0,
            "sigma_data": family.sigma_data,
        }
        config["optimizer"] = {
            "ref_lr": 0.01,
            "ref_images": "140M",
            "rampup_images": "10M",
            "b1": 0.9,
            "b2": 0.99,
        }
        return config
    return config | _edm(imported, model)


def _edm(imported: Any, model: dict[str, Any]) -> dict[str, Any]:
    """The entries that only the recipe "edm" has."""
    family = imported.family
    if "embedding" in model:
        model["network"] = "ncsnpp" if model["embedding"] == "fourier" else "ddpmpp"
    else:
        model["network"] = "adm"
    if imported.augment_dim not in AUGMENTED:
        raise ValueError(
            f"augment_dim is {imported.augment_dim}; runs know EDM's own augmentation, of "
            f"{sorted(AUGMENTED)[1]} labels, or none"
        )
    precond = dataclasses.asdict(family)
    loss: dict[str, Any] = {"levels": family.name, "weight": "noise", "label_dropout": 0.0}
    if family.name == "edm":
        precond = {"sigma_data": family.sigma_data}
        loss |= {"levels": "lognormal", "weight": "edm", "sigma_data": family.sigma_data}
        loss |= {"P_mean": -1.2, "P_std": 1.2}
    return {
        "precond": {"name": family.name, **precond},
        "loss": loss,
        "augment": {"p": AUGMENTED[imported.augment_dim]},
        "optimizer": {
            "lr": 1e-3,
            "rampup_images": "10M",
            "b1": 0.9,
            "b2": 0.999,
            "eps": 1e-8,
        },
    }


def write(
    folder: Path,
    run: common.Run,
    found: list[Entry],
    first: Any,
    family: str,
    given: Mapping[str, Any],
) -> None:
    """Snapshots of a run, one a number of images, one file in memory at a time.

    Raises:
      ValueError: one, of all files that cannot be used.
    """
    from jaxgen.interop import families, reader
    from jaxgen.train import snapshot, state
    from jaxgen.train.store import Store

    want = shapes(state.abstract(run.plan, run.mesh).params)
    errors = []
    with Store(folder / "snapshots") as store:
        for nimg in sorted({e.nimg for e in found}):
            averages: dict[str, Any] = {}
            for e in (e for e in found if e.nimg == nimg):
                try:
                    if e is found[0]:
                        imported = first
                    else:
                        weights = reader.read(e.path)
                        families.check(weights.arrays, family, str(e.path))
                        imported = load(e.path, weights, family, given)
                    if differ := _differences(first.init, imported.init):
                        raise ValueError(
                            f"{e.path}: another network than {found[0].path}: {differ}"
                        )
                except ValueError as error:
                    errors.append(str(error))
                    continue
                profile = SINGLE if e.length is None else f"power_{e.length:.3f}"
                averages[profile] = _players(imported)
                if shapes(averages[profile]) != want:
                    raise ValueError(
                        f"{e.path}: recipe {run.config.recipe!r} builds another network"
                    )
            if not errors:
                end = state.TrainState(None, {}, {}, {}, averages, {})
                snapshot.save(store, run.plan, end, nimg, "float32", {"imported": True})
    if errors:
        raise ValueError("\n".join(errors))


def _players(imported: Any) -> dict[str, Any]:
    players = {"network": imported.variables["params"]}
    if hasattr(imported, "head"):
        players["uncertainty"] = imported.head_variables["params"]
    return players


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {a.get(k)} -> {b.get(k)}" for k in {**a, **b} if a.get(k) != b.get(k))

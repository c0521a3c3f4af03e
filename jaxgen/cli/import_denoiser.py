"""Importing denoisers (DnCNN): a run that restores photos and is scored."""

import argparse
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxgen.cli import common
from jaxgen.cli.importing import MACHINE, NO_DATA, SINGLE, Entry, Prepared, shapes

PATCH = 40  # pixels of the crops that the paper trains on
SIGMA = re.compile(r"(?:_|sigma)(\d+)$")  # the noise level at the end of the authors' file names
PLAYER = "restorer"


def prepare(
    weights: Any, found: list[Entry], args: argparse.Namespace, given: Mapping[str, Any]
) -> Prepared:
    """What `jaxgen import` writes for a DnCNN.

    Raises:
      ValueError: several files, arrays of no DnCNN, a noise level that nothing tells.
    """
    from jaxgen.interop import dncnn

    path = found[0].path
    if len(found) > 1 or found[0].length is not None:
        raise ValueError("a DnCNN is one file, without --length: there are no averages of it")
    if strange := sorted(set(given) - {"sigma"}):
        raise ValueError(f'--init of a DnCNN is {{"sigma": 25}}, got {strange}')
    try:
        imported = dncnn.load(weights.arrays)
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    config = run_config(imported, found[0].nimg, args.data, level_of(path, given))

    def save(folder: Path, run: common.Run) -> None:
        write(folder, run, path, found[0].nimg, imported)

    return Prepared(config, (PATCH, PATCH, imported.channels), 0, save, any_size=True)


def level_of(path: Path, given: Mapping[str, Any]) -> float | tuple[float, float]:
    """Sigma in grey levels that the network was trained for, or the ends of a range."""
    sigma = given.get("sigma")
    if sigma is None:
        name = SIGMA.search(path.stem)
        if not name:
            raise ValueError(
                f"{path}: neither name nor file tells the noise level that the network is for: "
                "give --init '{\"sigma\": 25}', or of a blind one '{\"sigma\": [0, 55]}'"
            )
        return float(name[1])
    return tuple(map(float, sigma)) if isinstance(sigma, list) else float(sigma)


def run_config(
    imported: Any, nimg: int, data: str | None, sigma: float | tuple[float, float]
) -> dict[str, Any]:
    """The config of a run with this network; batch, rate and loss are the paper's."""
    middle = sum(sigma) / 2 if isinstance(sigma, tuple) else sigma
    return {
        "recipe": "denoise",
        "seed": 0,
        "dtype": "float32",
        "images": str(nimg),
        "batch": 128,
        "microbatches": 1,
        "log_every": "50k",
        "checkpoint_every": "1M",
        "snapshot_every": "1M",
        "sample_every": "0",
        "keep_checkpoints": 2,
        "snapshot_dtype": "float32",
        "max_skips": 20,
        "data": {
            "source": data or NO_DATA,
            "labels": False,
            "latents": False,
            "limit": 0,
            "hflip": False,
            "crop": 0,
        },
        **MACHINE,
        "averages": {"power": (), "halflife": "0"},
        "average": SINGLE,
        "features": "auto",
        "model": {
            "network": "dncnn",
            "depth": imported.module.depth,
            "features": imported.module.features,
        },
        "noise": {"name": "gaussian", "sigma": sigma, "level_eval": middle},
        "loss": {
            "method": "noise2clean",
            "norm": "l2",
            "tonemap": False,
            "pairs": False,
            "box": 8,
            "radius": 2,
            "grid": 4,
            "invariant": False,
            "covariance": "full",
            "parameter": "known",
            "reflect": True,
        },
        "optimizer": {
            "lr": 1e-3,
            "noise_lr": 1.0,
            "rampup": 0.0,
            "rampdown": 0.3,
            "b1": 0.9,
            "b2": 0.999,
        },
    }


def write(folder: Path, run: common.Run, path: Path, nimg: int, imported: Any) -> None:
    """A snapshot of the weights.

    Raises:
      ValueError: the recipe builds another network.
    """
    from jaxgen.train import snapshot, state
    from jaxgen.train.store import Store

    players = {PLAYER: imported.variables["params"]}
    if shapes(players) != shapes(state.abstract(run.plan, run.mesh).params):
        raise ValueError(f"{path}: recipe {run.config.recipe!r} builds another network")
    end = state.TrainState(None, {}, {}, {}, {SINGLE: players}, {})
    with Store(folder / "snapshots") as store:
        snapshot.save(store, run.plan, end, nimg, "float32", {"imported": True})

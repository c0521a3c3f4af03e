"""`jaxgen import`: published weights become a run that the other commands open."""

import argparse
import dataclasses
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from jaxgen.cli import common

NAMED = re.compile(r"-(\d{4,})-(0\.\d+)$")  # thousands of images and EMA length, as EDM2's files
SINGLE = "ema"  # profile of a file that says no length
NOT_MODEL = ("channels", "out_channels", "label_dim", "augment_dim", "dtype", "parent", "name")
AUGMENTED = {0: 0.0, 9: 0.12}  # width of EDM's augmentation labels -> a probability that has them
NO_DATA = "none (imported without --data)"


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "import",
        "Make a run of published weights (EDM, EDM2), to be sampled, averaged and evaluated.\n"
        "Files are .npz, .safetensors or the authors' .pkl, of which nothing is run.\n"
        "Several, named NAME-KIMG-LENGTH, make a set that other EMA lengths are rebuilt from.",
        "jaxgen import edm2-img64-s-1073741-0.075.pkl --out runs/imported",
    )
    p.add_argument("files", nargs="+", metavar="FILE", help="weights; a set: all of one network")
    p.add_argument("--out", required=True, help="folder of the run, new or empty")
    p.add_argument("--family", choices=("edm", "edm2"), help="default: by the names in the file")
    p.add_argument(
        "--init",
        metavar="JSON",
        help="the official constructor's keywords, as text or a file, over those in the weights' "
        'file; of EDM also "precond"',
    )
    p.add_argument("--data", metavar="SOURCE", help="data set to evaluate against, such as cifar10")
    p.add_argument("--nimg", help="images it was trained on, such as 200M (default: by its name)")
    p.add_argument("--length", type=float, help="EMA length (default: by its name, else unknown)")
    return p


class Entry(NamedTuple):
    """A file and what it is an average of: `length` None is an unknown one."""

    path: Path
    nimg: int
    length: float | None


def entries(args: argparse.Namespace) -> list[Entry]:
    """The files in order of images and length.

    Raises:
      ValueError: several files without names that say which they are; repeated or missing ones.
    """
    from jaxgen.common import units

    found = []
    for path in map(Path, args.files):
        name = NAMED.search(path.stem)
        nimg = int(name[1]) * 1000 if name else 0
        length = float(name[2]) if name else None
        found.append(Entry(path, nimg, length))
    if args.nimg is not None or args.length is not None:
        if len(found) > 1:
            raise ValueError("--nimg and --length say it of one file; several are told by names")
        nimg = found[0].nimg if args.nimg is None else units.images(args.nimg)
        found = [Entry(found[0].path, nimg, args.length or found[0].length)]
    if len(found) == 1:
        return found
    if bare := [str(e.path) for e in found if e.length is None]:
        raise ValueError(
            f"several files are a set of EMA snapshots, named NAME-KIMG-LENGTH like "
            f"edm2-img512-s-2147483-0.130.pkl; these are not: {', '.join(bare)}"
        )
    times, lengths = {e.nimg for e in found}, {e.length for e in found}
    have = sorted((e.nimg, e.length) for e in found)
    missing = sorted({(t, s) for t in times for s in lengths} - set(have))
    twice = sorted({h for h in have if have.count(h) > 1})
    if missing or twice:
        text = lambda pairs: ", ".join(f"{t // 1000}-{s:.3f}" for t, s in pairs) or "none"
        raise ValueError(
            "a set has every EMA length at every number of images, once; missing (KIMG-LENGTH): "
            f"{text(missing)}; repeated: {text(twice)}"
        )
    return sorted(found, key=lambda e: (e.nimg, e.length))


def read(path: Path, args: argparse.Namespace, given: Mapping[str, Any]) -> Any:
    """The imported network of a file (interop.common.Imported).

    Raises:
      ValueError: naming the file.
    """
    from jaxgen.interop import edm, edm2, reader

    weights = reader.read(path)
    init = {**weights.init, **given}
    name = weights.class_name or ""
    second = name == "Precond" or any(n.startswith("logvar_") for n in weights.arrays)
    family = args.family or ("edm2" if second else "edm")
    if family == "edm" and name.endswith("Precond"):
        init.setdefault("precond", name)
    try:
        return (edm2 if family == "edm2" else edm).load(weights.arrays, **init)
    except ValueError as e:
        hint = "" if init else "\nThe file holds no keywords of its network: give them by --init"
        raise ValueError(f"{path}: {e}{hint}") from e


def given_init(text: str | None) -> dict[str, Any]:
    """The keywords of --init, JSON text or a file of it."""
    from jaxgen.interop import reader

    if text is None:
        return {}
    if not text.lstrip().startswith("{"):
        if not Path(text).is_file():
            raise ValueError(f"--init is JSON text like '{{...}}' or a file, and {text} is neither")
        text = Path(text).read_text()
    return reader.parse_json(text, "--init")


def run_config(imported: Any, found: list[Entry], data: str | None) -> dict[str, Any]:
    """The config of a run with this network.

    What the weights do not tell (batch, learning rate, training levels, sampler) are the papers'
    values.
    """
    module, family = imported.module, imported.family
    model = {
        f.name: getattr(module, f.name)
        for f in dataclasses.fields(module)
        if f.name not in NOT_MODEL
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
        "mesh": {"data": -1, "fsdp": 1},
        "averages": {"power": lengths, "halflife": "0"},
        "average": str(lengths[-1]) if lengths else SINGLE,
        "features": "auto",
        "model": model,
        "sampler": sampler,
    }
    config["data"] |= {"latents": False, "hflip": False}
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


def data_facts(imported: Any, config: dict[str, Any], data: str | None) -> dict[str, Any]:
    """The facts of the data that recipes need; with a source, its own, checked.

    Raises:
      ValueError: a source of other images or classes than the network's.
    """
    shape, labels = tuple(imported.shape), imported.label_dim
    facts = {
        "name": "imported",
        "shape": shape,
        "label_kind": "class" if labels else "none",
        "label_dim": labels,
        "length": 0,
        "class_names": None,
    }
    if data is None:
        return facts
    from ml_collections import ConfigDict

    from jaxgen.data import sources

    found = common.source_facts(sources.load(data, "train"), ConfigDict(config))
    h, w, c = shape
    config["data"]["latents"] = config["recipe"] == "edm2" and found["shape"] == (h, w, 2 * c)
    if found["shape"] != shape and not config["data"]["latents"]:
        raise ValueError(f"--data {data} has images {found['shape']}, the network makes {shape}")
    if found["label_dim"] != labels:
        raise ValueError(
            f"--data {data} has {found['label_dim']} classes, the network {labels}; leave --data "
            "out to sample only"
        )
    return found


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    out = Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there already; name a new or empty folder")
    found, given = entries(args), given_init(args.init)
    common.setup_jax()
    first = read(found[0].path, args, given)
    config = run_config(first, found, args.data)
    facts = data_facts(first, config, args.data)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=out.parent))
    try:
        write(part, found, first, args, given, config, facts)
        part.chmod(0o755)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    print(f"{len(found)} averages of a network for recipe {config['recipe']!r} in {out}")
    return 0


def write(
    folder: Path,
    found: list[Entry],
    first: Any,
    args: argparse.Namespace,
    given: Mapping[str, Any],
    config: dict[str, Any],
    facts: dict[str, Any],
) -> None:
    """Config and snapshots of a run, one a number of images, one file in memory at a time.

    Raises:
      ValueError: one, of all files that cannot be used.
    """
    from jaxgen.common import provenance
    from jaxgen.train import snapshot, state
    from jaxgen.train.store import Store, write_json

    saved = {"config": config, "facts": facts, "command": {"import": [e.path.name for e in found]}}
    write_json(folder / "config.json", {**saved, "history": [], **provenance.facts()})
    run = common.Run.open(folder)
    want = _shapes(state.abstract(run.plan, run.mesh).params)
    errors = []
    with Store(folder / "snapshots") as store:
        for nimg in sorted({e.nimg for e in found}):
            averages: dict[str, Any] = {}
            for e in (e for e in found if e.nimg == nimg):
                try:
                    imported = first if e is found[0] else read(e.path, args, given)
                    if differ := _differences(first.init, imported.init):
                        raise ValueError(
                            f"{e.path}: another network than {found[0].path}: {differ}"
                        )
                except ValueError as error:
                    errors.append(str(error))
                    continue
                profile = SINGLE if e.length is None else f"power_{e.length:.3f}"
                averages[profile] = _players(imported)
                if _shapes(averages[profile]) != want:
                    raise ValueError(
                        f"{e.path}: recipe {config['recipe']!r} builds another network"
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


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    from jaxgen.common import trees

    return {name: tuple(x.shape) for name, x in trees.leaves(tree).items()}


def _differences(a: Mapping[str, Any], b: Mapping[str, Any]) -> str:
    return ", ".join(f"{k} {a.get(k)} -> {b.get(k)}" for k in {**a, **b} if a.get(k) != b.get(k))

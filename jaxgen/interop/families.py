"""Families: whose published networks the names of a file's arrays are."""

import re
from collections.abc import Iterable

# family -> a name that all of its networks have, and those of the other families have not.
SIGNS = {
    "edm2": r"(^|\.)out_gain$",
    "edm": r"(^|\.)map_layer0\.weight$",
    "stylegan3": r"^synthesis\.input\.weight$",
    "stylegan2": r"^(synthesis\.b4\.const|b4\.out\.weight)$",
    "r3gan": r"^(Model\.)?MainLayers\.0\.Layers\.\d+\.",
    "dncnn": r"^(module\.)?model\.0\.weight$",
}
GANS = ("stylegan2", "stylegan3", "r3gan")


def looks_like(names: Iterable[str]) -> str | None:
    """The family whose names these are; None for those of no family that is read.

    The discriminators of StyleGAN3 are StyleGAN2's.
    """
    names = list(names)
    for family, sign in SIGNS.items():
        if any(re.search(sign, name) for name in names):
            return family
    return None


def check(names: Iterable[str], family: str, what: str) -> None:
    """Raises ValueError when the names look like another family's; `what` begins the message."""
    if (found := looks_like(names)) not in (None, family):
        raise ValueError(f"{what}: not of the family {family!r}, its names look like {found!r}")

"""DnCNN's published networks, by the names of the authors' PyTorch release (KAIR).

    D = load(arrays)
    x0 = D.module.apply(D.variables, x)

A stack of layers `model.0`, `model.2`, ...: the odd ones are ReLUs. Depth, width and channels are
those of the arrays; batch normalisation is merged already.
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
from jaxgen.networks.dncnn import DnCNN

FIRST = "model.0.weight"
LAYER = re.compile(r"^model\.(\d+)\.weight$")
KINDS = {"w": "weight", "b": "bias"}


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
    """A published DnCNN. channels: of its images. prefix: what stood before the names ("")."""

    module: DnCNN
    variables: Mapping[str, Any]
    channels: int
    prefix: str = ""


def official_names(ours: Iterable[str]) -> dict[str, str]:
    """{our name: official name}: conv3/w is model.6.weight."""
    table = {}
    for name in ours:
        layer, kind = name.removeprefix("conv").split("/")
        table[name] = f"model.{2 * int(layer)}.{KINDS[kind]}"
    return table


def load(arrays: common.Arrays) -> Imported:
    """The network of official arrays.

    Raises:
      ValueError: names of another network, such as one whose batch normalisation is not merged; one
      error for all missing and wrongly shaped arrays; NaN or infinity.
    """
    found, prefix = common.strip(arrays, ("module.",))
    if FIRST not in found or np.ndim(found[FIRST]) != 4:
        raise ValueError(
            f"dncnn.load: expected {FIRST} of shape (features, channels, 3, 3), model.2.weight, "
            f"..., got {', '.join(sorted(found)[:4])}, ..."
        )
    features, channels = np.shape(found[FIRST])[:2]
    last = max(int(m[1]) for name in found if (m := LAYER.match(name)))
    if last % 2 or last < 2:
        raise ValueError(
            f"dncnn.load: the last layer is model.{last}, and of a DnCNN with merged batch "
            "normalisation it is an even one, after a ReLU; merge the normalisation first"
        )
    module = DnCNN(depth=last // 2 + 1, features=int(features))
    shapes = common.shapes(module, jax.ShapeDtypeStruct((1, 8, 8, int(channels)), jnp.float32))
    names = official_names(shapes)
    expected = {o: common.official_shape(shapes[ours]) for ours, o in names.items()}
    taken = common.take(found, expected, "dncnn.load")
    return Imported(module, {"params": common.params(taken, names)}, int(channels), prefix)


def dump(imported: Imported) -> dict[str, np.ndarray]:
    """The official arrays of `load`, float32, with the prefix that they came with."""
    tree = imported.variables["params"]
    arrays = common.official(tree, official_names(trees.leaves(tree)))
    return {imported.prefix + name: x for name, x in arrays.items()}

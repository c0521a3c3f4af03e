"""Names and layouts of a family: official arrays to parameter trees and back, checked."""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import trees
from jaxgen.interop import common

Turn = Callable[[str, np.ndarray], np.ndarray]


class Layout(NamedTuple):
    """How a family names and lays out what we keep by other names.

    rules: (regular expression, replacement), from our names to official ones, in order. to_ours,
    to_official: (official name, array) -> the array in our layout and back.
    """

    rules: tuple[tuple[str, str], ...]
    to_ours: Turn
    to_official: Turn

    def names(self, ours: Iterable[str]) -> dict[str, str]:
        """{our name: official name}."""
        table = {}
        for name in ours:
            official = name
            for pattern, to in self.rules:
                official = re.sub(pattern, to, official)
            table[name] = official
        return table

    def expected(
        self, module: nn.Module, x: jax.ShapeDtypeStruct, c_dim: int
    ) -> tuple[dict[str, str], dict[str, tuple[int, ...]]]:
        """{our name: official name} and {official name: shape} of a module's parameters.

        Args:
          module: called with x and, where there are labels (c_dim > 0), their condition.
        """
        cond = {"label": jax.ShapeDtypeStruct((1, c_dim), jnp.float32)} if c_dim else None
        shapes = common.shapes(module, x, cond)
        names = self.names(shapes)
        blank = {ours: np.broadcast_to(np.float32(0), shape) for ours, shape in shapes.items()}
        return names, {o: self.to_official(o, blank[ours]).shape for ours, o in names.items()}

    def take(
        self,
        arrays: common.Arrays,
        names: Mapping[str, str],
        expected: Mapping[str, tuple[int, ...]],
        constants: Mapping[str, np.ndarray],
        what: str,
    ) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """The parameter tree and all official arrays.

        Args:
          names, expected: as `expected` gives them, with what is kept beside the params. constants:
            what init makes of buffers, by official name. what: of the errors' first words.
        Raises:
          ValueError: as common.take; a constant that is another.
        """
        found = common.take(
            arrays, {**expected, **{n: x.shape for n, x in constants.items()}}, what
        )
        for name, value in constants.items():
            if not np.allclose(found[name], value, rtol=1e-3, atol=1e-6):
                raise ValueError(
                    f"{what}: the constant {name} is not what init makes it: expected "
                    f"{value.ravel()[:4]} ..., got {found[name].ravel()[:4]} ...; correct init"
                )
        flat = {ours: jnp.asarray(self.to_ours(o, found[o])) for ours, o in names.items()}
        return trees.nest(flat), found

    def official(self, tree: Any, buffers: common.Arrays) -> dict[str, np.ndarray]:
        """The official arrays of a parameter tree, and copies of the buffers."""
        flat = trees.leaves(tree)
        arrays = {
            o: np.array(self.to_official(o, np.asarray(flat[ours])), order="C")
            for ours, o in self.names(flat).items()
        }
        return arrays | {name: value.copy() for name, value in buffers.items()}

"""Ordered rules for where parameters lie: (regex, value), the first that is found in a name counts.

Values, for layouts with the output channels last and the input channels before them:

    "fsdp"         the input channels over fsdp, or else the output channels
    "tensor_out"   the output channels over tensor, the input channels over fsdp
    "tensor_in"    the input channels over tensor, the output channels over fsdp
    "replicated"   the whole leaf on every device
    tuple          an axis, a tuple of axes or None for each dimension

The first three keep vectors and leaves of fewer than MIN_SIZE elements whole: gains, biases, norms.
They look at the last two dimensions only, so neither a window nor a stack of layers is cut.
A leaf that no rule matches, or that its rule cannot split, is an error.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen.common import trees
from jaxgen.common.mesh import AXES, AnyMesh, in_words

Rules = Sequence[tuple[str, Any]]
DEFAULT: Rules = ((r"", "fsdp"),)
SHAPED = {"fsdp": None, "tensor_out": -1, "tensor_in": -2}
MIN_SIZE = 2**12


def small(x: Any) -> bool:
    """Whether the shape rules keep x whole: a vector, under MIN_SIZE elements, or no floats."""
    vector = x.size == max(x.shape, default=1)
    return vector or x.size < MIN_SIZE or not jnp.issubdtype(x.dtype, jnp.floating)


def _shaped(x: Any, sizes: Mapping[str, int], tensor: int | None) -> list | None:
    """Axes for each dimension of x, `tensor` being the one split over tensor; None: impossible."""
    axes: list[Any] = [None] * x.ndim
    left = {d: x.shape[d] for d in (x.ndim - 2, x.ndim - 1)}
    if tensor is not None and sizes["tensor"] > 1:
        d = x.ndim + tensor
        if left[d] % sizes["tensor"]:
            return None
        axes[d] = "tensor"
        left[d] //= sizes["tensor"]
    if sizes["fsdp"] > 1:
        # A dimension that tensor cuts is only cut again when the other one does not divide.
        found = [
            d
            for d in sorted(left, key=lambda d: axes[d] is not None)
            if left[d] % sizes["fsdp"] == 0
        ]
        if not found:
            return None
        d = found[0]
        axes[d] = ("tensor", "fsdp") if axes[d] else "fsdp"
    return axes


def spec(name: str, x: Any, rules: Rules, mesh: AnyMesh) -> P:
    """Where the leaf x, an array or ShapeDtypeStruct, lies.

    Axes of one device are left out.

    Raises:
      ValueError: no rule matches, or the leaf cannot be split as its rule says.
    """
    value = trees.match(rules, name, "sharding rule")
    if value == "replicated":
        return P()
    if isinstance(value, str):
        if value not in SHAPED:
            raise ValueError(
                f"the sharding rule of {name!r} is {value!r}, expected one of "
                f"{[*SHAPED, 'replicated']} or a tuple of axes, one a dimension"
            )
        axes = [None] * x.ndim if small(x) else _shaped(x, mesh.shape, SHAPED[value])
    else:
        axes = _explicit(name, x, value, mesh)
    if axes is None:
        shown = in_words({a: n for a, n in mesh.shape.items() if a != "data"})
        raise ValueError(
            f"the leaf {name!r} {tuple(x.shape)} cannot be split by its sharding rule {value!r} "
            f"over {shown}: its last two dimensions do not divide; change mesh.fsdp or "
            "mesh.tensor, or put a rule in front, such as "
            f"--config.mesh.rules=\"(('{name}$', 'replicated'),)\""
        )
    while axes and axes[-1] is None:
        axes.pop()
    return P(*axes)


def _explicit(name: str, x: Any, value: Any, mesh: AnyMesh) -> list:
    """The axes of a rule that gives them, without those of one device."""
    value = tuple(value)
    if len(value) != x.ndim:
        raise ValueError(
            f"the sharding rule {value} of the leaf {name!r} has {len(value)} entries for "
            f"{x.ndim} dimensions, shape {tuple(x.shape)}; give an axis or None for each"
        )
    axes: list[Any] = []
    for size, entry in zip(x.shape, value):
        entry = () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)
        unknown = sorted(set(entry) - set(AXES))
        if unknown:
            raise ValueError(
                f"the sharding rule {value} of the leaf {name!r} names {unknown}; the axes of a "
                f"mesh are {list(AXES)}"
            )
        entry = tuple(a for a in entry if mesh.shape[a] > 1)
        if size % math.prod(mesh.shape[a] for a in entry):
            raise ValueError(
                f"the leaf {name!r} {tuple(x.shape)} cannot be split by its sharding rule {value}: "
                f"{size} is not a multiple of {' x '.join(f'{a} {mesh.shape[a]}' for a in entry)}; "
                "change the rule or the mesh"
            )
        axes.append(entry[0] if len(entry) == 1 else entry or None)
    return axes


def shape_spec(x: Any, mesh: AnyMesh) -> P:
    """The "fsdp" rule for arrays that are nobody's parameters; whole when nothing divides."""
    axes = None if small(x) else _shaped(x, mesh.shape, None)
    return P(*(axes or ()))


def shardings(tree: Any, mesh: AnyMesh, rules: Rules = DEFAULT, prefix: str = "") -> Any:
    """NamedShardings for a tree of arrays or ShapeDtypeStructs; rules see prefix + leaf's name."""
    return trees.map_named(
        lambda name, x: NamedSharding(mesh, spec(prefix + name, x, rules, mesh)), tree
    )


def by_shape(tree: Any, mesh: AnyMesh) -> Any:
    """NamedShardings by `shape_spec`."""
    return jax.tree.map(lambda x: NamedSharding(mesh, shape_spec(x, mesh)), tree)


def following(tree: Any, params: Any, specs: Any, mesh: AnyMesh) -> Any:
    """NamedShardings of an optimizer's state: leaves that mirror a parameter lie like it.

    A leaf mirrors the parameter whose name is part of its own (`0/mu/enc/w`, the longest counts) if
    the shapes agree too. Others, factored moments, say, go by shape.
    """
    known = trees.leaves(params)
    lies = trees.leaves(specs)

    def one(name: str, x: Any) -> NamedSharding:
        parts = name.split("/")
        for length in range(len(parts), 0, -1):
            for i in range(len(parts) - length + 1):
                owner = "/".join(parts[i : i + length])
                if owner in known and known[owner].shape == x.shape:
                    return lies[owner]
        return NamedSharding(mesh, shape_spec(x, mesh))

    return trees.map_named(one, tree)


def layout(tree: Any) -> list[tuple[str, tuple[int, ...], str, int]]:
    """(name, shape, spec, bytes a device) of each leaf of a tree of arrays with shardings."""
    rows = []
    for name, x in trees.leaves(tree).items():
        part = jax.ShapeDtypeStruct(x.sharding.shard_shape(x.shape), x.dtype)
        lies = ", ".join(
            "x".join(a) if isinstance(a, tuple) else str(a or "-") for a in x.sharding.spec
        )
        rows.append((name, tuple(x.shape), lies or "whole", trees.nbytes(part)))
    return rows

"""Floating-point operations of a traced program, loops and branches included."""

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax


def bodies(eqn: Any) -> list[Any]:
    """The jaxprs that an equation runs: bodies of loops and branches, called functions."""
    values = eqn.params.values()
    flat = [v for x in values for v in (x if isinstance(x, (tuple, list)) else [x])]
    return [b for v in flat if hasattr(b := getattr(v, "jaxpr", v), "eqns")]


def expanded(eqn: Any) -> Any | None:
    """The jaxpr of a primitive that a jitted function defines, as those of nn/convolution.py.

    None for any other.
    """
    impl = getattr(eqn.primitive, "impl", None)
    if not hasattr(impl, "trace") or bodies(eqn):
        return None
    like = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in eqn.invars]
    return jax.make_jaxpr(partial(impl, **eqn.params))(*like).jaxpr


def shape_of(variable: Any) -> tuple[int, ...]:
    """Its shape as traced."""
    return variable.aval.shape


def of_product(eqn: Any, shape: Callable[[Any], tuple[int, ...]] = shape_of) -> float:
    """Of one dot_general or conv_general_dilated: twice the multiplications.

    Convolutions count every tap, also on padding, but no zeros inserted by dilating the input.

    Args:
      eqn: the equation. shape: of its variables.
    """
    p, (left, right), out = eqn.params, map(shape, eqn.invars), shape(eqn.outvars[0])
    if eqn.primitive.name == "dot_general":
        contracted = p["dimension_numbers"][0][0]
        return 2.0 * math.prod(out) * math.prod(left[d] for d in contracted)
    depth = math.prod(right) / right[p["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(out) / math.prod(p["lhs_dilation"]) * depth


def sides(eqn: Any, shape: Callable[[Any], tuple[int, ...]] = shape_of) -> tuple[int, int, int]:
    """(rows, depth, columns) of the matrix product that one such equation amounts to."""
    p, (left, right), out = eqn.params, map(shape, eqn.invars), shape(eqn.outvars[0])
    if eqn.primitive.name == "dot_general":
        (contracted, _), (batch, _) = p["dimension_numbers"]
        depth = math.prod(left[d] for d in contracted)
        rows = math.prod(left) // max(depth * math.prod(left[d] for d in batch), 1)
        return rows, depth, math.prod(right[d] for d in _free(right, p["dimension_numbers"]))
    names, groups = p["dimension_numbers"], p["feature_group_count"] * p["batch_group_count"]
    columns = right[names.rhs_spec[0]]
    rows = math.prod(out) // max(out[names.out_spec[1]], 1)
    return rows, math.prod(right) // max(columns, 1), max(columns // groups, 1)


def _free(right: tuple[int, ...], numbers: Any) -> list[int]:
    (_, contracted), (_, batch) = numbers
    return [d for d in range(len(right)) if d not in contracted and d not in batch]


def products(jaxpr: Any) -> Mapping[str, float]:
    """FLOPs of matrix products and convolutions by dtype of their operands, devices together.

    A `scan` counts its body `length` times, a `cond` its dearest branch, what remat computes again
    is counted again. A `while` counts once, since its length is not in the program: see
    `unbounded`.
    """
    total: dict[str, float] = {}

    def add(found: Mapping[str, float], times: float = 1.0) -> None:
        for name, n in found.items():
            total[name] = total.get(name, 0.0) + times * n

    for eqn in jaxpr.eqns:
        name = eqn.primitive.name
        if name in ("dot_general", "conv_general_dilated"):
            add({eqn.invars[0].aval.dtype.name: of_product(eqn)})
        elif (body := expanded(eqn)) is not None:
            add(products(body))
        elif name == "cond":
            add(max(map(products, bodies(eqn)), key=lambda c: sum(c.values())))
        else:
            for body in bodies(eqn):
                add(products(body), eqn.params.get("length", 1) if name == "scan" else 1)
    return total


def matmul_flops(jaxpr: Any) -> float:
    """`products` of all dtypes together."""
    return sum(products(jaxpr).values(), 0.0)


def unbounded(jaxpr: Any) -> list[str]:
    """Where `while` loops with products in them stand: their FLOPs are counted for one turn."""
    found = []
    for eqn in jaxpr.eqns:
        inner = bodies(eqn)
        if eqn.primitive.name == "while" and any(matmul_flops(b) for b in inner):
            found.append(str(eqn.source_info.name_stack) or "while")
        else:
            found += [name for b in inner for name in unbounded(b)]
    return found

"""Floating-point operations of a traced program, loops and branches included."""

import math
from collections.abc import Mapping
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


def of_product(eqn: Any) -> float:
    """Of one dot_general or conv_general_dilated: twice the multiplications.

    Convolutions count every tap, also on padding, but no zeros inserted by dilating the input.
    """
    p = eqn.params
    if eqn.primitive.name == "dot_general":
        contracted = p["dimension_numbers"][0][0]
        shape = eqn.invars[0].aval.shape
        depth = math.prod(shape[d] for d in contracted)
        return 2.0 * math.prod(eqn.outvars[0].aval.shape) * depth
    kernel = eqn.invars[1].aval.shape
    depth = math.prod(kernel) / kernel[p["dimension_numbers"].rhs_spec[0]]
    return 2.0 * math.prod(eqn.outvars[0].aval.shape) / math.prod(p["lhs_dilation"]) * depth


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

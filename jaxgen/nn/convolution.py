"""Convolution with fast derivatives of any order, for penalties on gradients (arXiv:1801.04406).

    T(x, w, y) = sum over output pixels of y conv(x, w)

is linear in each of image x, kernel w and output gradient y. A convolution and its two gradients
are the three maps that T leaves open, and each map's derivatives are the other two. They are
primitives here, since jax differentiates the second one to a convolution with a reversed window,
for which XLA's CPU backend takes 20 times longer than for the weight gradient that it equals.
`jax.jvp`, `jax.vjp` and `jax.vmap` work in any order.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxgen.common.mesh import rows

NHWC = ("NHWC", "HWIO", "NHWC")
Pad = tuple[int, int]
Padding = str | tuple[Pad, Pad]


def conv(x: jax.Array, w: jax.Array, stride: int = 1, padding: Padding = "SAME") -> jax.Array:
    """Convolution as deep learning has it (a correlation).

    Args:
      x: (b, h, w, c). w: (kh, kw, c, o), used in x's dtype. padding: "SAME", "VALID" or zeros
        before and after, for each axis.
    Returns:
      (b, h', w', o).
    """
    if isinstance(padding, str):
        strides = (stride, stride)
        padding = tuple(jax.lax.padtype_to_pads(x.shape[1:3], w.shape[:2], strides, padding))
    padding = tuple((int(lo), int(hi)) for lo, hi in padding)
    how = {"stride": stride, "padding": padding, "size": x.shape[1:3], "kernel": w.shape[:2]}
    return rows(OUTPUT.bind(rows(x), w.astype(x.dtype), **how))


def output(x: jax.Array, w: jax.Array, *, stride: int, padding: Any, **_: Any) -> jax.Array:
    """The convolution; the arguments of all three maps by name are those that `conv` gives."""
    return jax.lax.conv_general_dilated(x, w, (stride, stride), padding, dimension_numbers=NHWC)


def image_gradient(y: jax.Array, w: jax.Array, *, size: Pad, **how: Any) -> jax.Array:
    """Of T with respect to x (b, *size, c)."""
    x = jax.ShapeDtypeStruct((y.shape[0], *size, w.shape[2]), y.dtype)
    return jax.linear_transpose(lambda x: output(x, w, **how), x)(y)[0]


def kernel_gradient(
    x: jax.Array, y: jax.Array, *, stride: int, padding: Any, kernel: Pad, **_: Any
) -> jax.Array:
    """Of T with respect to w (*kernel, c, o).

    Padded first: where padding is the kernel's size less 1, XLA's CPU backend else takes 40 times
    longer, and twice as long for many others.
    """
    edges = [(0, 0, 0), *((lo, hi, 0) for lo, hi in padding), (0, 0, 0)]
    x = jax.lax.pad(x, jnp.zeros((), x.dtype), edges)
    w = jax.ShapeDtypeStruct((*kernel, x.shape[-1], y.shape[-1]), x.dtype)
    run = lambda w: output(x, w, stride=stride, padding="VALID")
    return jax.linear_transpose(run, w)(y)[0]


def _primitive(fn: Callable[..., jax.Array]) -> Primitive:
    """One of the maps, under its name, without derivatives."""
    made = Primitive(f"conv_{fn.__name__}")

    def shape(a: Any, b: Any, **how: Any) -> Any:
        like = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (a, b)]
        out = jax.eval_shape(partial(fn, **how), *like)
        return a.update(shape=out.shape, dtype=out.dtype, weak_type=False)

    def batched(args: Any, axes: Any, **how: Any) -> tuple[jax.Array, int]:
        return jax.vmap(partial(fn, **how), axes)(*args), 0

    made.def_impl(jax.jit(fn, static_argnames=("stride", "padding", "size", "kernel")))
    made.def_abstract_eval(shape)
    batching.primitive_batchers[made] = batched
    mlir.register_lowering(made, mlir.lower_fun(fn, multiple_results=False))
    return made


OUTPUT, IMAGE, KERNEL = (_primitive(fn) for fn in (output, image_gradient, kernel_gradient))
MAPS = {OUTPUT.name: output, IMAGE.name: image_gradient, KERNEL.name: kernel_gradient}

# What a map's two arguments get of the gradient g of its value.
ad.defbilinear(
    OUTPUT,
    lambda g, x, w, **how: IMAGE.bind(g, w, **how),
    lambda g, x, w, **how: KERNEL.bind(x, g, **how),
)
ad.defbilinear(
    IMAGE,
    lambda g, y, w, **how: OUTPUT.bind(g, w, **how),
    lambda g, y, w, **how: KERNEL.bind(g, y, **how),
)
ad.defbilinear(
    KERNEL,
    lambda g, x, y, **how: IMAGE.bind(y, g, **how),
    lambda g, x, y, **how: OUTPUT.bind(x, g, **how),
)

"""Augmentations that do not leak: the network is told what was done to an image (arXiv:2206.00364).

App. F.2: each transform has a gate that opens with probability p; a closed one leaves its parameter
at 0, which changes nothing. A denoiser is conditioned on the labels and samples without them, that
is with zeros. `ada` has the transforms that a discriminator's images go through.

    x, labels = augment(keys, x, p)          # or in parts, for any transforms of OPS:
    w = draw(keys, p, ("yflip", "scale"))    # {"yflip": (b, 1), "scale": (b, 1)}
    x, labels = apply(x, w), label(w, size)

Whatever the order of names, transforms are composed and labelled in the order of OPS.
"""

import math
import numbers
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.objectives import augment_ops as ops

Parameters = Mapping[str, jax.Array]
Size = tuple[int, int]
REACH = 0.125  # of the size: the largest whole shift, the standard deviation of a fractional one


class Draw(NamedTuple):
    """Where the parameters w (b, n) of a transform come from, 0 being no change.

    `parameter`: uniform draws (b, uniforms) and normal ones (b, normals) -> w.
    `label`: w and the size (h, w) -> (b, labels). gates: 1, or n, one a parameter.
    """

    uniforms: int
    normals: int
    parameter: Callable[[jax.Array, jax.Array], jax.Array]
    labels: int
    label: Callable[[jax.Array, Size], jax.Array] = lambda w, size: w
    gates: int = 1


class Op(NamedTuple):
    """A transform: its parameters, and what it does with them (see EXACT, GEOMETRY, COLOUR)."""

    draw: Draw
    effect: Callable[..., jax.Array]


def _angle(u: jax.Array) -> jax.Array:
    return math.pi * (2 * u - 1)


def _pixels(w: jax.Array, size: Size) -> jax.Array:
    """Whole shifts (b, 2), right and up, for w in [-1, 1]."""
    return jnp.round(w * REACH * jnp.asarray(size[::-1]))


BIT = Draw(1, 0, lambda u, z: jnp.floor(2 * u), 1)
NORMAL = Draw(0, 1, lambda u, z: z, 1)
NORMALS = Draw(0, 2, lambda u, z: z, 2)
ANGLE = Draw(
    1, 0, lambda u, z: _angle(u),
    2, lambda w, size: jnp.concatenate([jnp.cos(w) - 1, jnp.sin(w)], -1),
)  # fmt: skip
TURNS = Draw(
    1, 0, lambda u, z: jnp.floor(4 * u),
    2, lambda w, size: jnp.concatenate([(w == 1) | (w == 2), w >= 2], -1).astype(w.dtype),
)  # fmt: skip
SHIFT = Draw(
    2, 0, lambda u, z: 2 * u - 1,
    2, lambda w, size: _pixels(w, size) / (REACH * jnp.asarray(size[::-1])),
)  # fmt: skip
STRETCH = Draw(  # its logarithm and its direction, which is along x half of the time
    2, 1, lambda u, z: jnp.stack([z[:, 0], jnp.where(u[:, 1] < 0.5, _angle(u[:, 0]), 0)], -1),
    2, lambda w, size: w[:, :1] * jnp.stack([jnp.cos(w[:, 1]), jnp.sin(w[:, 1])], -1),
)  # fmt: skip


def _factor(w: jax.Array, strength: float) -> jax.Array:
    return jnp.exp2(strength * w[:, 0])


def _stretch(w: jax.Array) -> jax.Array:
    s, r = _factor(w, 0.2), w[:, 1]
    return ops.compose(ops.rotate(-r), ops.scale(s, 1 / s), ops.rotate(r))


EXACT: dict[str, Op] = {  # x, w -> x; pixels change places
    "xflip": Op(BIT, lambda x, w: ops.flip(x, w[:, 0] > 0, 2)),
    "yflip": Op(BIT, lambda x, w: ops.flip(x, w[:, 0] > 0, 1)),
    "rotate_int": Op(TURNS, lambda x, w: ops.quarter_turns(x, w[:, 0])),
    "translate_int": Op(SHIFT, lambda x, w: ops.shift(x, _pixels(w, x.shape[1:3]))),
}
GEOMETRY: dict[str, Op] = {  # w, (h, w) -> inverse (b, 3, 3)
    "scale": Op(NORMAL, lambda w, size: ops.scale(_factor(w, 0.2), _factor(w, 0.2))),
    "rotate_frac": Op(ANGLE, lambda w, size: ops.rotate(w[:, 0])),
    "aniso": Op(STRETCH, lambda w, size: _stretch(w)),
    "translate_frac": Op(
        NORMALS, lambda w, size: ops.translate(w * REACH * jnp.asarray(size[::-1]))
    ),
}
COLOUR: dict[str, Op] = {  # w -> (b, 4, 4)
    "brightness": Op(NORMAL, lambda w: ops.brighten(0.2 * w[:, 0])),
    "contrast": Op(NORMAL, lambda w: ops.about_grey(_factor(w, 0.5), _factor(w, 0.5), 0)),
    "lumaflip": Op(BIT, lambda w: ops.about_grey(1 - 2 * w[:, 0], 1, 0)),
    "hue": Op(ANGLE, lambda w: ops.about_grey(1, 1, w[:, 0])),
    "saturation": Op(NORMAL, lambda w: ops.about_grey(1, _factor(w, 1.0), 0)),
}
OPS = EXACT | GEOMETRY | COLOUR


class Recipe(NamedTuple):
    """Transforms, and those among them whose gate is open whatever p is."""

    ops: tuple[str, ...]
    always: tuple[str, ...] = ()


RECIPES = {
    "edm": Recipe(
        ("xflip", "yflip", "scale", "rotate_frac", "aniso", "translate_frac"), always=("xflip",)
    ),
}
LABELS = {name: sum(OPS[op].draw.labels for op in recipe.ops) for name, recipe in RECIPES.items()}


def augment(
    keys: jax.Array, x: jax.Array, p: float | jax.Array, recipe: str = "edm"
) -> tuple[jax.Array, jax.Array]:
    """Images changed at random, and what was done.

    Args:
      keys: (b,) typed keys. x: (b, h, w, c) in [-1, 1]; differentiable.
      p: probability of each transform: 0.12 to 0.15 in EDM; a number or a traced scalar.
      recipe: one of `RECIPES`.
    Returns:
      (x (b, h, w, c), not clipped; labels (b, LABELS[recipe])), row i from keys[i] and x[i].
    Raises:
      ValueError: for an unknown recipe, or a number p outside of [0, 1].
    """
    if recipe not in RECIPES:
        raise ValueError(f"unknown augmentation recipe {recipe!r}; known are {', '.join(RECIPES)}")
    w = draw(keys, p, *RECIPES[recipe])
    return apply(x, w), label(w, x.shape[1:3])


def draw(
    keys: jax.Array,
    p: float | jax.Array,
    names: Collection[str],
    always: Collection[str] = (),
) -> Parameters:
    """Parameters of the named transforms, zeros where a gate is closed.

    Args:
      keys: (b,) typed keys. p: probability that a gate is open. always: names of open gates.
    Returns:
      {name: w (b, n)}.
    Raises:
      ValueError: for unknown names, or a number p outside of [0, 1].
    """
    check_probability(p)
    draws = {name: OPS[name].draw for name in _ordered(names)}
    return draw_all(keys, draws, {name: 1 if name in always else p for name in draws})


def check_probability(p: float | jax.Array) -> None:
    """Raises ValueError for a number outside of [0, 1]; a traced p is not looked at."""
    if isinstance(p, numbers.Real) and not 0 <= p <= 1:
        raise ValueError(f"the probability of augmentations must be in [0, 1], got {p}")


def draw_all(
    keys: jax.Array, draws: Mapping[str, Draw], p: Mapping[str, float | jax.Array]
) -> Parameters:
    """Parameters {name: w (b, n)} of `draws`, whose gates open with probability p[name].

    p[name] is a number, or (gates,).
    """
    u, z = _numbers(
        keys,
        sum(d.uniforms + d.gates for d in draws.values()),
        sum(d.normals for d in draws.values()),
    )
    out, i, j = {}, 0, 0
    for name, d in draws.items():
        first = i + d.gates
        w = d.parameter(u[:, first : first + d.uniforms], z[:, j : j + d.normals])
        out[name] = jnp.where(u[:, i:first] < p[name], w, 0)
        i, j = first + d.uniforms, j + d.normals
    return out


def _numbers(keys: jax.Array, uniforms: int, normals: int) -> tuple[jax.Array, jax.Array]:
    """Uniform numbers (b, uniforms) and normal ones (b, normals).

    From one call of a whole multiple of 8, which XLA compiles several times faster on a CPU.
    """
    u = rng.uniform(keys, (-(-(uniforms + normals) // 8) * 8,))
    centred = jnp.maximum(2 * u[:, uniforms : uniforms + normals] - 1, -1 + 2**-24)
    return u[:, :uniforms], 2**0.5 * jax.scipy.special.erfinv(centred)


def apply(x: jax.Array, w: Parameters) -> jax.Array:
    """Images (b, h, w, c) changed by the parameters of `draw`."""
    names, size = _ordered(w), x.shape[1:3]
    for name in names:
        if name in EXACT:
            x = EXACT[name].effect(x, w[name])
    if inverse := [GEOMETRY[n].effect(w[n], size) for n in names if n in GEOMETRY]:
        x = ops.resample(x, ops.compose(*inverse))
    if colour := [COLOUR[n].effect(w[n]) for n in names if n in COLOUR]:
        x = ops.recolour(x, ops.compose(*reversed(colour)))
    return x


def label(w: Parameters, size: Size) -> jax.Array:
    """What the parameters of `draw` do to images of size (h, w): (b, labels), 0 for nothing."""
    return jnp.concatenate([OPS[name].draw.label(w[name], size) for name in _ordered(w)], -1)


def _ordered(names: Collection[str]) -> list[str]:
    if unknown := sorted(set(names) - set(OPS)):
        raise ValueError(f"unknown augmentations {unknown}; known are {', '.join(OPS)}")
    return [name for name in OPS if name in names]

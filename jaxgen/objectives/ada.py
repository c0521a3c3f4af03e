"""ADA: a discriminator sees its images changed, each with probability p (arXiv:2006.06676, App. B).

The transforms of `DRAWS` are done in that order to real and generated images alike, each with
probability p. With p < 1 that does not leak: only the distribution of the clean images looks, when
changed like that, as they do, and the generator has to find it (Sec. 3.1; in practice up to about
0.8). `ada_controller` moves p.

    x, labels = augment(keys, x, p, "bgc")           # or in parts:
    w = draw(keys, p, {"xflip": 1, "hue": 0.5})      # {"xflip": (b, 1), "hue": (b, 1)}
    x, labels = apply(x, w), label(w)
"""

import math
from collections.abc import Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.objectives import augment as gates
from jaxgen.objectives import augment_ops as ops
from jaxgen.objectives.augment import ANGLE, BIT, NORMAL, NORMALS, TURNS, Draw, Parameters

Multipliers = Mapping[str, float | Sequence[float]]

DRAWS: dict[str, Draw] = {
    "xflip": BIT,
    "rotate90": TURNS,
    "xint": Draw(2, 0, lambda u, z: 2 * u - 1, 2),  # to the right, down
    "scale": NORMAL,
    "rotate": Draw(  # before `aniso` and after it, by two gates
        2, 0, lambda u, z: math.pi * (2 * u - 1),
        4, lambda w, size: jnp.concatenate([jnp.cos(w) - 1, jnp.sin(w)], -1), gates=2,
    ),
    "aniso": NORMAL,
    "xfrac": NORMALS,
    "brightness": NORMAL,
    "contrast": NORMAL,
    "lumaflip": BIT,
    "hue": ANGLE,
    "saturation": NORMAL,
    "imgfilter": Draw(0, 4, lambda u, z: z, 4, gates=4),  # octaves, coarse to fine
    "noise": Draw(0, 1, lambda u, z: jnp.abs(z), 1),
    "cutout": Draw(  # whether, and the centre's y and x
        2, 0, lambda u, z: jnp.concatenate([jnp.ones_like(u[:, :1]), u], -1), 3
    ),
}  # fmt: skip
STRENGTHS = {
    "xint": 0.125,  # of the size, at most
    "scale": 0.2,  # standard deviation of log2
    "rotate": 1.0,  # of half a turn, at most
    "aniso": 0.2,  # of log2 of the factor along x, which is divided by along y
    "xfrac": 0.125,  # of the size, standard deviation
    "brightness": 0.2,  # standard deviation
    "contrast": 0.5,  # of log2
    "hue": 1.0,  # of half a turn, at most
    "saturation": 1.0,  # of log2
    "imgfilter": 1.0,  # of log2
    "noise": 0.1,  # standard deviation of its standard deviation
    "cutout": 0.5,  # of the size
}
BLIT = ("xflip", "rotate90", "xint")
GEOM = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
RECIPES: dict[str, tuple[str, ...]] = {
    "blit": BLIT,
    "geom": GEOM,
    "color": COLOR,
    "filter": ("imgfilter",),
    "noise": ("noise",),
    "cutout": ("cutout",),
    "bg": BLIT + GEOM,
    "bgc": BLIT + GEOM + COLOR,
    "bgcf": (*BLIT, *GEOM, *COLOR, "imgfilter"),
    "bgcfn": (*BLIT, *GEOM, *COLOR, "imgfilter", "noise"),
    "bgcfnc": (*BLIT, *GEOM, *COLOR, "imgfilter", "noise", "cutout"),
}


def _factor(w: jax.Array, s: float) -> jax.Array:
    return jnp.exp2(s * w[:, 0])


GEOMETRY = (  # w, strength, (w, h) -> inverse (b, 3, 3), in the order that they are done
    ("xflip", lambda w, s, size: ops.scale(1 - 2 * w[:, 0], 1)),
    ("rotate90", lambda w, s, size: ops.rotate(math.pi / 2 * w[:, 0])),
    ("xint", lambda w, s, size: ops.translate(jnp.round(s * w * size))),
    ("scale", lambda w, s, size: ops.scale(_factor(w, s), _factor(w, s))),
    ("rotate", lambda w, s, size: ops.rotate(s * w[:, 0])),
    ("aniso", lambda w, s, size: ops.scale(_factor(w, s), 1 / _factor(w, s))),
    ("rotate", lambda w, s, size: ops.rotate(s * w[:, 1])),
    ("xfrac", lambda w, s, size: ops.translate(s * w * size)),
)
COLOUR = (  # w, strength -> (b, 4, 4)
    ("brightness", lambda w, s: ops.brighten(s * w[:, 0])),
    ("contrast", lambda w, s: ops.about_grey(_factor(w, s), _factor(w, s), 0)),
    ("lumaflip", lambda w, s: ops.about_grey(1 - 2 * w[:, 0], 1, 0)),
    ("hue", lambda w, s: ops.about_grey(1, 1, s * w[:, 0])),
    ("saturation", lambda w, s: ops.about_grey(1, _factor(w, s), 0)),
)


def augment(
    keys: jax.Array,
    x: jax.Array,
    p: float | jax.Array,
    recipe: str | Multipliers = "bgc",
    strengths: Mapping[str, float] | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Images changed at random, and what was done.

    Args:
      keys: (b,) typed keys. x: (b, h, w, c) in [-1, 1]; differentiable twice, for R1.
      p: probability of each transform: a number in [0, 1], or a traced scalar, which may move
        without a new compilation.
      recipe: one of `RECIPES`, or {transform: multiplier of p}.
      strengths: {transform: strength} in place of `STRENGTHS`.
    Returns:
      (x (b, h, w, c), not clipped; labels (b, label_dim(recipe)), 0 for what was not done and else
      the random parameter, before its strength). Row i is of keys[i] and x[i].
    Raises:
      ValueError: for unknown names, a number p outside of [0, 1], a negative multiplier, colour
        transforms of other than 1 or 3 channels, the filter transform of 21 pixels or less.
    """
    recipe = multipliers(recipe)
    gates.check_probability(p)
    _check_names(strengths or {}, STRENGTHS, "strengths")
    draws, pixels = rng.split(keys, 2)
    w = draw(draws, p, recipe)
    noise = rng.normal(pixels, x.shape[1:]) if "noise" in w else None
    return apply(x, w, noise, strengths), label(w)


def multipliers(recipe: str | Multipliers) -> Multipliers:
    """{transform: multiplier of p} of a recipe or its name, without those that are 0."""
    if isinstance(recipe, str):
        if recipe not in RECIPES:
            raise ValueError(f"unknown ADA recipe {recipe!r}; known are {', '.join(RECIPES)}")
        return dict.fromkeys(RECIPES[recipe], 1.0)
    _check_names(recipe, DRAWS, "transforms")
    if any(np.min(m) < 0 for m in recipe.values()) or not any(map(np.any, recipe.values())):
        raise ValueError(f"ADA needs multipliers of p of 0 or more, not all 0, got {recipe}")
    return {name: m for name, m in recipe.items() if np.any(m)}


def label_dim(recipe: str | Multipliers) -> int:
    """The width of the labels of a recipe."""
    return sum(DRAWS[name].labels for name in multipliers(recipe))


def draw(keys: jax.Array, p: float | jax.Array, recipe: Multipliers) -> Parameters:
    """Parameters {name: w (b, n)} of the transforms in `recipe`, zeros where a gate is closed.

    A gate opens with probability m p, at most 1, for the transform's multiplier m: a number, or for
    `imgfilter` four, one an octave. The two of `rotate` open with 1 - sqrt(1 - m p), so that one of
    them or both do with m p.
    """
    gates.check_probability(p)
    _check_names(recipe, DRAWS, "transforms")
    chance = {name: jnp.clip(jnp.asarray(m) * p, 0, 1) for name, m in recipe.items()}
    if "rotate" in chance:
        chance["rotate"] = 1 - jnp.sqrt(1 - chance["rotate"])
    return gates.draw_all(keys, {n: d for n, d in DRAWS.items() if n in recipe}, chance)


def apply(
    x: jax.Array,
    w: Parameters,
    noise: jax.Array | None = None,
    strengths: Mapping[str, float] | None = None,
) -> jax.Array:
    """Images (b, h, w, c) changed by the parameters of `draw`, an affine map of each.

    Args:
      noise: standard normal, of the shape of x: needed with "noise" in `w`.
      strengths: see `augment`.
    """
    _check_names(strengths or {}, STRENGTHS, "strengths")
    s = dict.fromkeys(DRAWS, 1.0) | STRENGTHS | dict(strengths or {})
    size = np.asarray(x.shape[2:0:-1])
    if inverse := [f(w[n], s[n], size) for n, f in GEOMETRY if n in w]:
        x = ops.resample(x, ops.compose(*inverse))
    if colour := [f(w[n], s[n]) for n, f in COLOUR if n in w]:
        x = ops.recolour(x, ops.compose(*reversed(colour)))
    if "imgfilter" in w:
        x = ops.amplify(x, jnp.exp2(s["imgfilter"] * w["imgfilter"]))
    if "noise" in w:
        x = x + (s["noise"] * w["noise"])[..., None, None] * noise
    if "cutout" in w:
        x = ops.cut_out(x, w["cutout"][:, 1:], s["cutout"] * w["cutout"][:, :1])
    return x


def label(w: Parameters) -> jax.Array:
    """What the parameters of `draw` do: (b, labels), 0 for nothing; in the order of `DRAWS`."""
    return jnp.concatenate([d.label(w[n], (1, 1)) for n, d in DRAWS.items() if n in w], -1)


def _check_names(names: Collection[str], known: Collection[str], what: str) -> None:
    if unknown := sorted(set(names) - set(known)):
        raise ValueError(f"unknown {what} of ADA {unknown}; known are {', '.join(known)}")

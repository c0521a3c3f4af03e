"""Perceptual path length: how far images move for a small step of the latent (arXiv:1812.04948).

    PPL = E[ d(g(p(t)), g(p(t + epsilon))) / epsilon^2 ]                        (Sec. 4.1, Eq. 2, 3)

The way p between two latents is a great circle in Z, then mapped, or a straight line in W, where t
is uniform in (0, 1) ("full") or 0 ("end"). The distance d is the sum of squared differences of a
named feature net, so that for a smooth generator the limit is the squared speed of its features.
Lengths with different nets cannot be compared. Styles are not truncated.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.common import rng
from jaxgen.common.interpolate import lerp, slerp

Cond = Mapping[str, jax.Array] | None


def lengths(
    keys: jax.Array,
    latents: Callable[[jax.Array], jax.Array],
    mapping: Callable[[jax.Array, Cond], jax.Array],
    synthesis: Callable[[jax.Array, jax.Array], jax.Array],
    features: Callable[[jax.Array], jax.Array],
    cond: Cond = None,
    *,
    space: str = "w",
    full: bool = True,
    epsilon: float = 1e-4,
    crop: bool = False,
) -> jax.Array:
    """d / epsilon^2 of one pair of latents a key, (b,).

    Args:
      keys: (b,). latents: keys -> z (b, z_dim). mapping: (z, cond) -> w (b, w_dim). synthesis: (w,
        keys) -> images (b, h, w, c); both ends get the same keys, hence the same noise. features:
        images -> (b, d). cond: of both ends. space: "z" or "w". full: t uniform; else t = 0.
      crop: look at `face` only.
    Raises:
      ValueError: for another space.
    """
    if space not in ("z", "w"):
        raise ValueError(f"space must be 'z' or 'w', got {space!r}")
    one, two, place, noise = rng.split(keys, 4)
    ends = latents(one), latents(two)
    t = rng.uniform(place, (1,)) if full else jnp.zeros((len(keys), 1))
    if space == "w":
        ends = mapping(ends[0], cond), mapping(ends[1], cond)
    way = lerp if space == "w" else great_circle
    found = []
    for at in (t, t + epsilon):
        w = way(*ends, at)
        images = synthesis(w if space == "w" else mapping(w, cond), noise)
        found.append(features(face(images) if crop else images))
    return jnp.square((found[1] - found[0]) / epsilon).sum(-1)


def great_circle(a: jax.Array, b: jax.Array, t: jax.Array) -> jax.Array:
    """slerp of the directions, with the length sqrt(d) that normal latents (b, d) have."""
    return slerp(a, b, t) * a.shape[-1] ** 0.5


def face(images: jax.Array) -> jax.Array:
    """The part of aligned portraits (b, h, w, c) that holds the face: (b, h/2, w/2, c)."""
    h, w = images.shape[1:3]
    return images[:, 3 * h // 8 : 7 * h // 8, w // 4 : 3 * w // 4]


def mean(lengths: ArrayLike) -> float:
    """The mean of the lengths (n,) from their 1st to their 99th percentile, both included.

    A few pairs on either side of a jump would outweigh all the others.

    Raises:
      ValueError: when one is not finite.
    """
    x = np.asarray(lengths, np.float64)
    if bad := int(np.sum(~np.isfinite(x))):
        raise ValueError(f"{bad} of {len(x)} path lengths are not finite; look at the images")
    low = np.percentile(x, 1, method="lower")
    high = np.percentile(x, 99, method="higher")
    return float(x[(x >= low) & (x <= high)].mean())

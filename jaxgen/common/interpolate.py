"""Interpolation: points between two of them, on a line or on a great circle."""

import jax
import jax.numpy as jnp


def lerp(a: jax.Array, b: jax.Array, t: jax.Array | float) -> jax.Array:
    """a + t (b - a); t broadcasts, so (n, 1) for points (n, d)."""
    return a + t * (b - a)


def slerp(a: jax.Array, b: jax.Array, t: jax.Array | float) -> jax.Array:
    """The point at share t of the way from a to b on the unit sphere, by the shorter great circle.

    cos(t phi) a' + sin(t phi) c with a', b' the unit vectors of a, b, phi the angle between them
    and c the unit vector of b' - <a', b'> a'.

    Args:
      a, b: (..., d), of any length; opposite ones have no shorter circle, and a' is given.
      t: broadcasts, so (n, 1) for points (n, d).
    Returns:
      (..., d) of length 1.
    """
    a, b = _unit(a), _unit(b)
    along = (a * b).sum(-1, keepdims=True)
    across = b - along * a
    # The angle by its tangent: the arc cosine loses half the digits at small angles.
    phi = t * jnp.arctan2(jnp.linalg.norm(across, axis=-1, keepdims=True), along)
    return jnp.cos(phi) * a + jnp.sin(phi) * _unit(across)


def _unit(x: jax.Array) -> jax.Array:
    return x / jnp.maximum(jnp.linalg.norm(x, axis=-1, keepdims=True), 1e-30)

"""Noise2Void: masked pixels, predicted from their surroundings, make the loss (arXiv:1811.10980).

Section 3. A few pixels of a noisy image y are replaced by the values of random neighbours, and the
network is to predict what they were:

    loss = mean over masked pixels i of (f(masked y)_i - y_i)^2 .

The noise of y_i is independent of all that f sees, so that in expectation this is the supervised
loss at i plus the noise's variance; and f, which cannot know where it is masked, learns it for all
pixels. They are stratified, one a box of a grid that is placed at random. Here neighbours are never
masked themselves (else a masked value could show elsewhere): a masked pixel lies in the part of its
box that is more than `radius` away from the masked pixels of the others.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.common import rng

Restore = Callable[[jax.Array], jax.Array]


def check(box: int, radius: int) -> None:
    """Raises unless boxes are larger than the radius of neighbours."""
    if not 1 <= radius < box:
        raise ValueError(
            "noise2void masks one pixel a box, and neighbours lie within a radius of 1 to box - 1 "
            f"pixels; got box {box}, radius {radius}"
        )


def mask(
    keys: jax.Array, h: int, w: int, box: int = 8, radius: int = 2
) -> tuple[jax.Array, jax.Array]:
    """Which pixels are masked, and whose value each pixel gets.

    Args:
      keys: (b,). box: side of the boxes. radius: of the square of neighbours.
    Returns:
      masked, bool (b, h, w); source (b, h w), indices into the h w pixels, its own of a pixel that
      is not masked.
    Raises:
      ValueError: for boxes that are not larger than the radius.
    """
    check(box, radius)
    boxes = (-(-h // box) + 1, -(-w // box) + 1)
    place, within, away = rng.split(keys, 3)
    origin = jnp.floor(rng.uniform(place, (2,)) * box).astype(jnp.int32)
    inner = jnp.floor(rng.uniform(within, (*boxes, 2)) * (box - radius)).astype(jnp.int32)
    side = 2 * radius + 1
    draws = 1 + jnp.floor(rng.uniform(away, boxes) * (side * side - 1)).astype(jnp.int32)

    def one(origin: jax.Array, inner: jax.Array, draws: jax.Array) -> tuple[jax.Array, jax.Array]:
        i, j = jnp.arange(h)[:, None] + origin[0], jnp.arange(w)[None] + origin[1]
        at = inner[i // box, j // box]
        masked = (i % box == at[..., 0]) & (j % box == at[..., 1])
        # draws 1 .. side^2 - 1 count the neighbours from the centre on, around the square's end
        step = (draws[i // box, j // box] + side * side // 2) % (side * side)
        i, j = jnp.arange(h)[:, None], jnp.arange(w)[None]
        row = _inside(i, step // side - radius, h)
        column = _inside(j, step % side - radius, w)
        return masked, jnp.where(masked, row * w + column, i * w + j).reshape(-1)

    return jax.vmap(one)(origin, inner, draws)


def _inside(at: jax.Array, step: jax.Array, n: int) -> jax.Array:
    """at + step, or at - step where that lies outside of 0..n-1; within bounds if both do."""
    to = at + step
    return jnp.clip(jnp.where((to < 0) | (to >= n), at - step, to), 0, n - 1)


def loss(
    restore: Restore, y: jax.Array, keys: jax.Array, box: int = 8, radius: int = 2
) -> jax.Array:
    """The mean over the masked pixels of (f(masked y) - y)^2, (b,).

    Args:
      restore: f, images (b, h, w, c) -> images. y: noisy images, h and w more than 2 radius.
      keys: (b,) typed keys.
    Raises:
      ValueError: for images too small for the radius.
    """
    b, h, w, c = y.shape
    if min(h, w) <= 2 * radius:
        raise ValueError(
            f"noise2void: neighbours within {radius} pixels need images of more than {2 * radius}, "
            f"got {h}x{w}"
        )
    masked, source = mask(keys, h, w, box, radius)
    swapped = jnp.take_along_axis(y.reshape(b, h * w, c), source[..., None], 1).reshape(y.shape)
    error = jnp.square(restore(swapped) - y).mean(-1)
    return (error * masked).sum((1, 2)) / jnp.maximum(masked.sum((1, 2)), 1)

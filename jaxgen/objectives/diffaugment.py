"""DiffAugment: all images are augmented, differentiably (arXiv:2006.10738, Sec. 3.2).

Every image is changed every time, by all of the policy. Unlike ADA's p < 1 this can leak: what all
images of the discriminator show, the generator may show too.
"""

from collections.abc import Collection

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.objectives import augment_ops as ops

POLICIES = ("color", "translation", "cutout")


def augment(
    keys: jax.Array,
    x: jax.Array,
    policy: Collection[str] = POLICIES,
    *,
    reach: float = 0.125,
    size: float = 0.5,
) -> jax.Array:
    """Images changed at random, image i by keys[i].

    Args:
      keys: (b,) typed keys. x: (b, h, w, c) in [-1, 1]. policy: of `POLICIES`, done in that order.
      reach: of a translation, as a share of the size. size: side of the square cut out, likewise
        (StyleGAN-T has 0.2).
    Returns:
      (b, h, w, c), not clipped.
    Raises:
      ValueError: for an unknown policy.
    """
    if unknown := sorted(set(policy) - set(POLICIES)):
        raise ValueError(f"unknown policies {unknown} of DiffAugment; known are {list(POLICIES)}")
    u = rng.uniform(keys, (7,))
    if "color" in policy:
        x = color(x, u[:, 0], u[:, 1], u[:, 2])
    shape = np.asarray(x.shape[1:3])
    if "translation" in policy:
        most = np.floor(shape * reach + 0.5)
        x = translate(x, jnp.floor(u[:, 3:5] * (2 * most + 1)) - most)
    if "cutout" in policy:
        square = np.floor(shape * size + 0.5)
        x = cutout(x, jnp.floor(u[:, 5:] * (shape + 1 - square % 2)), square)
    return x


def color(
    x: jax.Array, brightness: jax.Array, saturation: jax.Array, contrast: jax.Array
) -> jax.Array:
    """Brightness, saturation and contrast of images (b, h, w, c), from draws (b,) in [0, 1).

    Adds brightness - 1/2; scales by 2 saturation about each pixel's mean over channels; scales by
    contrast + 1/2 about the image's mean.
    """
    brightness, saturation, contrast = (
        u[:, None, None, None] for u in (brightness, saturation, contrast)
    )
    x = x + (brightness - 0.5)
    grey = x.mean(3, keepdims=True)
    x = (x - grey) * (2 * saturation) + grey
    mean = x.mean((1, 2, 3), keepdims=True)
    return (x - mean) * (contrast + 0.5) + mean


def translate(x: jax.Array, by: jax.Array) -> jax.Array:
    """Images moved by whole pixels (b, 2), down and right; zeros come in.

    A product with a matrix of zeros and ones an axis: its gradient is one too, where that of an
    indexing is a scatter.
    """
    rows, cols = (
        (np.subtract.outer(np.arange(n), np.arange(n)) == by[:, k, None, None]).astype(x.dtype)
        for k, n in enumerate(x.shape[1:3])
    )
    return jnp.einsum("bih,bhwc,bjw->bijc", rows, x, cols, precision="highest")


def cutout(x: jax.Array, offset: jax.Array, size: np.ndarray) -> jax.Array:
    """Images with a box of size (2,) pixels set to 0, which starts at offset (b, 2) - size // 2."""
    shape = np.asarray(x.shape[1:3])
    centre = (offset - size // 2 + size / 2) / shape
    return ops.cut_out(x, centre, size / shape)

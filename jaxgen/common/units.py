"""Units: images in [-1, 1] inside and uint8 at the edges; durations counted in images.

Every length of time in jaxgen (schedules, EMA lengths, snapshots) is a number of training images,
so that it stays right when the batch size changes. Steps exist only inside the loop.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

_FACTORS = {"": 1, "k": 1_000, "ki": 1_024, "M": 1_000_000, "Mi": 1_048_576, "G": 1_000_000_000}


def images(duration: int | float | str) -> int:
    """A number of images from `50_000`, `"50k"`, `"1.5M"`, `"8Mi"`.

    Args:
      duration: images as a number, or a string with a suffix k, ki, M, Mi, G.
    Returns:
      Images, a Python integer (EDM2's own budget overflows int32).
    Raises:
      ValueError: when the text is not such a number, or is negative.
    """
    if isinstance(duration, str):
        match = re.fullmatch(
            r"\s*([0-9][0-9_]*\.?[0-9]*(?:e[0-9]+)?)\s*(ki|k|Mi|M|G)?\s*", duration
        )
        if not match:
            raise ValueError(
                f"a duration is a number of images such as 50000, '50k', '1.5M' or '8Mi', got "
                f"{duration!r}"
            )
        value = float(match[1].replace("_", "")) * _FACTORS[match[2] or ""]
    else:
        value = float(duration)
    if value < 0 or value != value:
        raise ValueError(f"a duration cannot be negative, got {duration!r}")
    return round(value)


def describe(n: int) -> str:
    """A short human form of a number of images: 1250000 -> '1.25M'."""
    for suffix, factor in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if n >= factor:
            return f"{n / factor:.4g}{suffix}"
    return str(n)


def from_uint8(x: jax.Array) -> jax.Array:
    """uint8 (..., c) in 0..255 to float32 in [-1, 1]: x / 127.5 - 1. Floats pass unchanged."""
    if x.dtype != jnp.uint8:
        return x.astype(jnp.float32)
    return x.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(x: jax.Array | np.ndarray) -> np.ndarray:
    """Float images in [-1, 1] to uint8 on the host: clip(round((x + 1) * 127.5), 0, 255)."""
    return np.clip(np.rint((np.asarray(x, np.float32) + 1.0) * 127.5), 0, 255).astype(np.uint8)

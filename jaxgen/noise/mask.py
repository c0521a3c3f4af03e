"""Mask: pixels that are known and pixels to be painted in (arXiv:2209.14687, 4).

A x = A^T x = m x,   m in {0, 1}, one mask for all images and channels
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise.corruption import Linear


@dataclasses.dataclass(frozen=True)
class Mask(Linear):
    """m x: a hidden box in the middle, and lost pixels around it.

    Args:
      box: sides of the hidden box, as a part of the image's sides, in [0, 1); 0 is none.
      keep: the probability that a pixel outside of the box is known, in (0, 1]. seed: of the mask.
      sigma: noise of the known pixels in units of [-1, 1].
    Raises:
      ValueError: for others.
    """

    box: float = 0.5
    keep: float = 1.0
    seed: int = 0

    def __post_init__(self):
        super().__post_init__()
        if not (0 <= self.box < 1 and 0 < self.keep <= 1):
            raise ValueError(
                f"a mask needs box in [0, 1) and keep in (0, 1], got {self.box} and {self.keep}"
            )

    def mask(self, h: int, w: int) -> np.ndarray:
        """The known pixels, bool (1, h, w, 1)."""
        hidden = [round(self.box * n) for n in (h, w)]
        outside = np.ones((h, w), bool)
        top, left = (h - hidden[0]) // 2, (w - hidden[1]) // 2
        outside[top : top + hidden[0], left : left + hidden[1]] = False
        kept = np.random.default_rng(self.seed).random((h, w)) < self.keep
        return (outside & kept)[None, ..., None]

    def measured(self, y: jax.Array) -> jax.Array:
        """The mask."""
        return jnp.asarray(self.mask(*y.shape[1:3]), y.dtype)

    def forward(self, x: jax.Array) -> jax.Array:
        """m x."""
        return self.measured(x) * x

    def adjoint(self, y: jax.Array) -> jax.Array:
        """m y."""
        return self.measured(y) * y

    def start(self, y: jax.Array) -> jax.Array:
        """The mean of an image's known pixels where nothing is known, (b, h, w, c)."""
        m = self.measured(y)
        mean = (m * y).sum((1, 2), keepdims=True) / jnp.maximum(m.sum(), 1)
        return m * y + (1 - m) * mean

"""U-Net: the order, names and sizes of blocks from fine to coarse and back (arXiv:1505.04597).

With a block between resolutions, and skips from every encoder block, as in DDPM (arXiv:2006.11239).
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax


class Part(NamedTuple):
    """One block: its name, the image size and channels it puts out, and its role.

    role: "conv" (the first convolution), "down", "up", "block", and "in0" and "in1", the two blocks
    at the bottom. last: the decoder's last block at its size. Blocks of the decoder that are
    "block" take one skip each.
    """

    name: str
    size: int
    features: int
    role: str
    last: bool = False

    @property
    def mode(self) -> str:
        """How the block resamples: "down", "up" or "keep"."""
        return self.role if self.role in ("down", "up") else "keep"


def encoder(size: int, first: int, widths: Sequence[int], num_blocks: int) -> list[Part]:
    """The parts on the way down, for images of `size`; the output of each is a skip.

    The first convolution has `first` channels, the blocks of each size those in `widths`.
    """
    parts = []
    for level, features in enumerate(widths):
        s = size >> level
        if level == 0:
            parts.append(Part(f"enc_{s}_conv", s, first, "conv"))
        else:
            parts.append(Part(f"enc_{s}_down", s, widths[level - 1], "down"))
        parts += [Part(f"enc_{s}_block{i}", s, features, "block") for i in range(num_blocks)]
    return parts


def bottom(size: int, widths: Sequence[int], prefix: str = "dec") -> list[Part]:
    """The two parts at the lowest resolution that take no skip."""
    s = size >> (len(widths) - 1)
    return [Part(f"{prefix}_{s}_in{i}", s, widths[-1], f"in{i}") for i in (0, 1)]


def decoder(size: int, widths: Sequence[int], num_blocks: int) -> list[Part]:
    """The parts on the way up: with each level one block more than in the encoder."""
    parts = []
    for level, features in reversed(list(enumerate(widths))):
        s = size >> level
        if level == len(widths) - 1:
            parts += bottom(size, widths)
        else:
            parts.append(Part(f"dec_{s}_up", s, widths[level + 1], "up"))
        parts += [
            Part(f"dec_{s}_block{i}", s, features, "block", i == num_blocks)
            for i in range(num_blocks + 1)
        ]
    return parts


def check(who: str, x: jax.Array, c_noise: jax.Array, channels: int, levels: int) -> None:
    """Raises ValueError unless x is (b, h, w, channels), halved levels - 1 times, c_noise (b,)."""
    if x.ndim != 4 or x.shape[-1] != channels:
        raise ValueError(f"{who} expects images (b, h, w, {channels}), got {x.shape}")
    multiple = 2 ** (levels - 1)
    if x.shape[1] % multiple or x.shape[2] % multiple:
        raise ValueError(
            f"{who} with {levels} resolutions needs height and width divisible by {multiple}, got "
            f"{x.shape[1]} x {x.shape[2]}; shorten channel_mult or pad the images"
        )
    if c_noise.shape != x.shape[:1]:
        raise ValueError(
            f"{who} needs one noise level an image, c_noise ({x.shape[0]},), got {c_noise.shape}"
        )

"""Text: random strings over the image, until they cover a part p of it (arXiv:1803.04189, 3.2).

Strings of random letters, places, sizes and colours are laid over each other. The last string, with
which the covered part c passes p, is laid down with probability (p - c_before) / (c - c_before):
the covered part is p in expectation. Below p = 1/2 the median over corruptions of a pixel is near
its clean value, which an absolute loss finds; the mean is drawn to grey.

The letters are a bitmap font of 5 x 7 dots that is part of this file.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise.corruption import Level, Noise

LENGTH = (3, 10)  # letters of a string, least and most
ROWS, COLUMNS = 7, 6  # of a letter, with one empty column after it
# Seven rows of a letter, five dots each, as base-32 digits of the rows' bits.
FONT = {
    "A": "EHHVHHH", "B": "UHHUHHU", "C": "EHGGGHE", "D": "UHHHHHU", "E": "VGGUGGV", "F": "VGGUGGG",
    "G": "EHGNHHE", "H": "HHHVHHH", "I": "E44444E", "J": "72222IC", "K": "HIKOKIH",
    "L": "GGGGGGV", "M": "HRLLHHH", "N": "HPLJHHH", "O": "EHHHHHE", "P": "UHHUGGG", "Q": "EHHHLID",
    "R": "UHHUKIH", "S": "EHGE1HE", "T": "V444444", "U": "HHHHHHE", "V": "HHHHHA4", "W": "HHHLLRH",
    "X": "HHA4AHH", "Y": "HHA4444", "Z": "V1248GV", "a": "00E1FHF", "b": "GGUHHHU", "e": "00EHVGE",
    "g": "0FHHF1E", "m": "00QLLLL", "n": "00UHHHH", "o": "00EHHHE", "r": "00MPGGG", "s": "00FGE1U",
    "t": "44E4446", "0": "EHJLPHE", "1": "4C4444E", "2": "EH1248V", "3": "V21E1HE", "5": "VGU11HE",
    "7": "V124888",
}  # fmt: skip


@functools.lru_cache(maxsize=1)
def glyphs() -> np.ndarray:
    """The font, bool (letters, ROWS, COLUMNS)."""
    bits = [[int(d, 32) for d in rows] for rows in FONT.values()]
    dots = np.asarray(bits)[..., None] >> np.arange(4, -1, -1) & 1
    return np.pad(dots.astype(bool), ((0, 0), (0, 0), (0, COLUMNS - 5)))


def largest(h: int, w: int) -> int:
    """The largest letters in h x w pixels: how many pixels a dot of the font is wide, 1 or more."""
    return max(1, min(h, w) // 48)


@dataclasses.dataclass(frozen=True)
class Text(Noise):
    """Strings over the image; p: the part of the pixels that they cover, in expectation."""

    p: Level = 0.25
    unit: ClassVar[str] = "the part of the pixels that text covers"
    limits: ClassVar[tuple[float, float]] = (0.0, 0.95)

    def apply(self, keys: jax.Array, x: jax.Array, level: jax.Array) -> jax.Array:
        """x with text over the part `level` of its pixels, one colour a string."""
        h, w, c = x.shape[1:]
        covered, colour = jax.vmap(functools.partial(overlay, h=h, w=w, c=c))(keys, level)
        return jnp.where(covered[..., None], colour.astype(x.dtype), x)


def string(key: jax.Array, h: int, w: int) -> jax.Array:
    """The pixels of one random string, bool (h, w); it may reach over the image's edges."""
    font = jnp.asarray(glyphs())
    size, length, place, letters = jax.random.split(key, 4)
    size = jax.random.randint(size, (), 1, largest(h, w) + 1)
    length = jax.random.randint(length, (), LENGTH[0], LENGTH[1] + 1)
    letters = jax.random.randint(letters, (LENGTH[1],), 0, len(font))
    extent = jnp.stack([ROWS * size, COLUMNS * size * length])
    room = jnp.asarray([h, w]) + extent - 1  # any place with at least one pixel of its box inside
    top, left = jnp.floor(jax.random.uniform(place, (2,)) * room).astype(int) - extent + 1
    row, column = (jnp.arange(h) - top) // size, (jnp.arange(w) - left) // size
    inside = ((row >= 0) & (row < ROWS))[:, None] & ((column >= 0) & (column < COLUMNS * length))
    letter = letters[jnp.clip(column // COLUMNS, 0, LENGTH[1] - 1)]
    dots = font[letter, :, column % COLUMNS]  # (w, ROWS): the column of dots at each pixel's column
    return dots[:, jnp.clip(row, 0, ROWS - 1)].T & inside


def overlay(key: jax.Array, p: jax.Array, *, h: int, w: int, c: int) -> tuple[jax.Array, jax.Array]:
    """The covered pixels of one image, bool (h, w), and their colours (h, w, c) in [-1, 1]."""
    last, paint = jax.random.split(key)
    accept = jax.random.uniform(last)

    def short(state: tuple) -> jax.Array:
        return ~state[3]

    def add(state: tuple) -> tuple:
        i, covered, colour, _ = state
        place, tint = jax.random.split(jax.random.fold_in(paint, i))
        new = string(place, h, w)
        before, after = covered.mean(), (covered | new).mean()
        passes = after >= p
        keep = ~passes | (accept * (after - before) < p - before)
        new &= keep
        shade = jax.random.uniform(tint, (c,), minval=-1, maxval=1)
        return i + 1, covered | new, jnp.where(new[..., None], shade, colour), passes

    begin = (jnp.int32(0), jnp.zeros((h, w), bool), jnp.zeros((h, w, c)), p <= 0)
    return jax.lax.while_loop(short, add, begin)[1:3]

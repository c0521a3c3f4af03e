"""Progressive growing: which image size is trained when, and how it fades in (arXiv:1710.10196).

The first size is trained for `stable` images. Each of the following, twice as large, fades in over
`fade` images and is then trained for `stable` images (App. A.1: 800k each); the last one to the
end:

    alpha(nimg) = clip((nimg - start) / fade, 0, 1)

weighs what the new layers do against what the old network did.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Span(NamedTuple):
    """The images [start, until) for which `size` is trained; it fades in over `fade` of them."""

    size: int
    start: int
    until: int
    fade: int

    def alpha(self, nimg: jax.Array | float) -> jax.Array:
        """The weight () of the new layers after nimg images: 0 to 1, 1 where nothing fades in."""
        if not self.fade:
            return jnp.ones(())
        return jnp.clip((jnp.asarray(nimg, jnp.float32) - self.start) / self.fade, 0, 1)


def spans(
    resolution: int, images: int, *, first: int = 4, fade: int = 800_000, stable: int = 800_000
) -> tuple[Span, ...]:
    """The spans of a run, in order: they begin at 0, leave no gap and end at `images`.

    Args:
      resolution: of the data, a power of two. images: length of the run. first: size of the first
        span, a power of two; StyleGAN has 8. fade, stable: images, see above.
    Raises:
      ValueError: for sizes that are no powers of two or not in order, a negative duration, and a
        run that is over before the last size has faded in.
    """
    for name, size in (("first", first), ("resolution", resolution)):
        if size < 1 or size & (size - 1):
            raise ValueError(f"growing: {name} must be a power of two, got {size}")
    if first > resolution:
        raise ValueError(f"growing: first is at most the resolution {resolution}, got {first}")
    if fade < 0 or stable < 0 or fade + stable == 0:
        raise ValueError(
            f"growing: fade and stable are numbers of images and not both 0, got {fade}, {stable}"
        )
    doublings = resolution.bit_length() - first.bit_length()
    starts = [0] + [stable + k * (fade + stable) for k in range(doublings)]
    ready = starts[-1] + fade if doublings else 0
    if images <= ready:
        raise ValueError(
            f"growing from {first} to {resolution} takes more than {ready} images with fade="
            f"{fade} and stable={stable}, got {images}; train longer, or shorten them"
        )
    ends = [*starts[1:], images]
    return tuple(
        Span(first << k, a, b, fade if k else 0) for k, (a, b) in enumerate(zip(starts, ends))
    )


def at(spans: Sequence[Span], nimg: int) -> tuple[int, float]:
    """(size, alpha) after nimg images; the last span has no end."""
    span = next((s for s in spans if nimg < s.until), spans[-1])
    return span.size, float(span.alpha(nimg))

"""Equivariance: how well images follow when a generator's input moves (arXiv:2106.12423, App. E).

    EQ = 10 log10(2^2 / E[(g(move w) - move g(w))^2]), in decibels,

over all images, channels and those pixels that the moved image still knows. EQ-T moves by whole
pixels and EQ-T_frac by fractions of them, both up to an eighth of the size; EQ-R turns by any
angle. A sampled image can be moved only as far as its samples tell: EQ-T_frac interpolates with a
Lanczos filter. EQ-R compares with images that hold only what is in band before and after the
rotation, and low-passes the turned ones alike, which turns nothing ("pseudo-rotation").

Positions and filters are found on the host in float64; images are moved on the device.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy import signal

A = 3  # lobes of the Lanczos windows
REACH = 6  # of the filters of rotations, in pixels
UP = 4  # images are turned at so many times their rate, bilinearly
LIMIT = 1 / 8  # of translations, of the size
METRICS = ("eq_t", "eq_t_frac", "eq_r")
Synthesis = Callable[[jax.Array, jax.Array], jax.Array]
Moved = tuple[jax.Array, np.ndarray]


class Draw(NamedTuple):
    """Numbers in [0, 1) that say how a batch moves: (x, y) of both translations, and the angle."""

    shift: np.ndarray
    fraction: np.ndarray
    turn: float


def draws(seed: int) -> Iterator[Draw]:
    """Endless, one a batch."""
    numbers = np.random.default_rng(seed)
    while True:
        u = numbers.random(5)
        yield Draw(u[:2], u[2:4], float(u[4]))


def measure(synthesis: Synthesis, styles: Iterable[jax.Array], seed: int = 0) -> dict[str, float]:
    """{"eq_t", "eq_t_frac", "eq_r"} in decibels, over all batches of styles.

    Args:
      synthesis: (ws, transform (3, 3)) -> images (b, h, w, c) in [-1, 1]. An image shows at a point
        (x, y), the image being the unit square around 0 with y downwards, what it shows without the
        transform at the transformed point. Float32; compile it.
      styles: batches of ws. All images of a batch move alike; the paper has batches of 4 and 50_000
        images.
    Raises:
      ValueError: no batch; images too small for any pixel to be known.
    """
    total = sum((errors(synthesis, ws, u) for ws, u in zip(styles, draws(seed))), np.zeros((3, 2)))
    return dict(zip(METRICS, decibels(total)))


def decibels(total: np.ndarray) -> list[float]:
    """20 log10 2 - 10 log10(error / count) of each row (error, count); inf without an error.

    Raises:
      ValueError: nothing was compared.
    """
    if not (total[:, 1] > 0).all():
        raise ValueError(
            "equivariance: no pixel was compared; give at least one batch, of images larger than "
            f"{2 * REACH} pixels"
        )
    with np.errstate(divide="ignore"):
        return [float(20 * np.log10(2) - 10 * np.log10(e / n)) for e, n in total]


def errors(synthesis: Synthesis, ws: jax.Array, u: Draw) -> np.ndarray:
    """Sums of squared errors and numbers of values compared, (3, 2) float64, of one batch."""
    still = synthesis(ws, jnp.eye(3))
    size = np.array(still.shape[2:0:-1])  # width, height
    whole = np.rint((2 * np.asarray(u.shift) - 1) * LIMIT * size)
    part = (2 * np.asarray(u.fraction) - 1) * LIMIT * size
    angle = (2 * u.turn - 1) * np.pi
    turned, known = rotate(still, angle)
    ours, known_too = pseudo_rotate(synthesis(ws, rotation(angle)), angle)
    return np.stack(
        [
            _compare(synthesis(ws, translation(whole / size)), *shift(still, whole)),
            _compare(synthesis(ws, translation(part / size)), *shift_fractional(still, part)),
            _compare(ours, turned, known & known_too),
        ]
    )


def _compare(got: jax.Array, want: jax.Array, known: np.ndarray) -> np.ndarray:
    error = (np.asarray(got, np.float64) - np.asarray(want, np.float64))[:, known]
    return np.array([np.square(error).sum(), error.size])


def translation(t: np.ndarray) -> jax.Array:
    """The transform (3, 3) of an input whose image moves by t = (x, y), in sizes of the image."""
    return jnp.asarray([[1, 0, -t[0]], [0, 1, -t[1]], [0, 0, 1]], jnp.float32)


def rotation(angle: float) -> jax.Array:
    """The transform (3, 3) of an input whose image turns by `angle` radians, as `rotate` does."""
    c, s = np.cos(angle), np.sin(angle)
    return jnp.asarray([[c, -s, 0], [s, c, 0], [0, 0, 1]], jnp.float32)


def shift(x: jax.Array, pixels: np.ndarray) -> Moved:
    """x (b, h, w, c) moved by whole pixels (x, y), 0 if unknown, and where it is known (h, w)."""
    tx, ty = (int(t) for t in pixels)
    known = _inside(x.shape[1], ty, 0, 0)[:, None] & _inside(x.shape[2], tx, 0, 0)
    return jnp.roll(x, (ty, tx), (1, 2)) * known[..., None], known


def shift_fractional(x: jax.Array, pixels: np.ndarray) -> Moved:
    """x (b, h, w, c) moved by pixels (x, y), and where it is known (h, w).

    sum_i x_i L(o - i - t), L(x) = sinc(x) sinc(x / 3) for |x| < 3, over the sum of its taps.
    """
    matrices, inside = [], []
    for n, t in ((x.shape[1], pixels[1]), (x.shape[2], pixels[0])):
        whole = int(np.floor(t))
        weights = _lanczos(np.arange(-A, A + 1) - (t - whole)).sum()
        o = np.arange(n)
        matrices.append((_lanczos(o[:, None] - o - t) / weights).astype(np.float32))
        inside.append(_inside(n, whole, A, A - 1))
    return _products(x, *matrices), inside[0][:, None] & inside[1]


def rotate(x: jax.Array, angle: float) -> Moved:
    """x (b, h, w, c) turned by `angle`, and where it is known (h, w).

    At (x, y) it shows what was at (x cos - y sin, x sin + y cos), if that is in band afterwards.
    """
    h, w = x.shape[1:3]
    at_y, at_x = (np.arange(n) - (n - 1) / 2 for n in (h, w))
    c, s = np.cos(angle), np.sin(angle)
    columns, rows = at_x * c - at_y[:, None] * s, at_x * s + at_y[:, None] * c
    known = np.ones((h, w), bool)
    at = []
    for place, n in ((rows, h), (columns, w)):
        # As published: the region that is known is centred half a fine sample off the image.
        known &= np.abs(place + 0.5 / UP) < n / 2 - REACH
        fine = np.clip((place + (n - 1) / 2) * UP, 0, n * UP - 2)
        first = np.floor(fine)
        at += [first.astype(np.int32), (fine - first).astype(np.float32)]
    f = low_pass(angle, UP).astype(np.float32)
    return _look_up(x, f, *at), known


def pseudo_rotate(x: jax.Array, angle: float) -> Moved:
    """Turned images x (b, h, w, c) without what `rotate` took from them, and where they are known.

    (h, w). As published, this is a filter at the rate of the image.
    """
    f = low_pass(-angle, 1).astype(np.float32)
    rows, columns = (_inside(n, 0, REACH - 1, REACH - 1) for n in x.shape[1:3])
    return _filter(x, f), rows[:, None] & columns


def _inside(n: int, moved: int, before: int, after: int) -> np.ndarray:
    """Where outputs o of n read inputs from o - moved - before to o - moved + after that exist."""
    o = np.arange(n) - moved
    return (o >= before) & (o + after < n)


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where(np.abs(x) < A, np.sinc(x) * np.sinc(x / A), 0.0)


def low_pass(angle: float, up: int) -> np.ndarray:
    """What is in band before and after turning the grid by `angle`, for images at `up` times it.

    The frequencies of a grid are a square. The ideal filter is the convolution of two sinc products
    in two dimensions, one turned; its window the convolution of their Lanczos windows. At up = 1,
    sampled, the first sinc is an impulse, which leaves the other.

    Returns:
      (n, n), n = 2 REACH up, around [n / 2, n / 2], with zeros in row and column 0. Each of up^2
      sets of taps that one output reads has sum up^-2.
    """
    n, reach = REACH * up, A * up
    c, s = np.cos(angle), np.sin(angle)

    def turned(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        x, y = np.meshgrid(*(np.arange(1 - k, k) / up,) * 2)
        return x, y, c * x + s * y, c * y - s * x

    window = lambda x, y: np.where(
        np.maximum(abs(x), abs(y)) < A, np.sinc(x / A) * np.sinc(y / A), 0
    )
    x, y, u, v = turned(n)
    ideal = np.sinc(u) * np.sinc(v) if up == 1 else _in_both(x, y, angle)
    of_both = signal.fftconvolve(
        window(*turned(n + reach - 1)[2:]), window(*turned(reach)[:2]), "valid"
    )
    taps = _by_phase(np.pad(ideal * of_both, ((1, 0), (1, 0))), up)
    return (taps / (up**2 * taps.sum((0, 2), keepdims=True))).reshape(2 * n, 2 * n)


def _by_phase(f: Any, up: int) -> Any:
    """(2 REACH, up, 2 REACH, up): rows by their distance and phase, then columns."""
    return f.reshape(2 * REACH, up, 2 * REACH, up)


def _in_both(x: np.ndarray, y: np.ndarray, angle: float) -> np.ndarray:
    """The inverse Fourier transform, at (x, y), of the part that two squares share.

    |k_x|, |k_y| < 1/2 of k and of k turned. For a polygon, by the divergence theorem, it is a sum
    over edges of length l, outward normal n and middle m:
    n . x l sinc(l t . x) exp(2 pi i m . x) / (2 pi i |x|^2), t along the edge; at 0 its area.
    """
    polygon = [np.array(p) / 2 for p in ((-1, -1), (1, -1), (1, 1), (-1, 1))]
    c, s = np.cos(angle), np.sin(angle)
    for normal in ((c, s), (-s, c), (-c, -s), (s, -c)):  # cut it by the sides of the other square
        cut = []
        for p, q in zip(polygon, polygon[1:] + polygon[:1]):
            past_p, past_q = (np.dot(normal, point) - 0.5 for point in (p, q))
            if past_p <= 0:
                cut.append(p)
            if past_p * past_q < 0:
                cut.append(p + (q - p) * past_p / (past_p - past_q))
        polygon = cut
    total, area = 0, 0.0
    for p, q in zip(polygon, polygon[1:] + polygon[:1]):
        (ex, ey), (mx, my) = q - p, (p + q) / 2
        wave = np.exp(2j * np.pi * (mx * x + my * y))
        total = total + (ey * x - ex * y) * np.sinc(ex * x + ey * y) * wave
        area += mx * ey - my * ex
    square = x**2 + y**2
    at_0 = square == 0
    return np.where(at_0, area / 2, (total / (2j * np.pi * np.where(at_0, 1, square))).real)


@jax.jit
def _products(x: jax.Array, rows: jax.Array, columns: jax.Array) -> jax.Array:
    highest = jax.lax.Precision.HIGHEST
    return jnp.einsum("oh,bhwc,pw->bopc", rows, x, columns, precision=highest)


@jax.jit
def _filter(x: jax.Array, f: jax.Array) -> jax.Array:
    """x (b, h, w, c) filtered, a convolution of equal size; 0 outside."""
    return jax.lax.map(lambda one: jnp.moveaxis(_upsample(one, f, 1), 0, -1), x)


@jax.jit
def _look_up(
    x: jax.Array, f: jax.Array, row: jax.Array, down: jax.Array, column: jax.Array, right: jax.Array
) -> jax.Array:
    """x (b, h, w, c) upsampled by UP, at rows row + down and columns column + right (h, w)."""

    def one(image: jax.Array) -> jax.Array:
        fine = _upsample(image, f, UP)
        at = lambda i, j: fine[:, row + i, column + j]
        upper = at(0, 0) * (1 - right) + at(0, 1) * right
        lower = at(1, 0) * (1 - right) + at(1, 1) * right
        return jnp.moveaxis(upper * (1 - down) + lower * down, 0, -1)

    return jax.lax.map(one, x)


def _upsample(x: jax.Array, f: jax.Array, up: int) -> jax.Array:
    """x (h, w, c) at `up` times the rate, (c, up h, up w), by a filter of `low_pass`."""
    h, w, c = x.shape
    kernel = up**2 * _by_phase(f, up)[::-1, :, ::-1].transpose(0, 2, 1, 3).reshape(
        2 * REACH, 2 * REACH, 1, up**2
    )
    y = jax.lax.conv_general_dilated(
        jnp.moveaxis(x, -1, 0)[..., None],
        kernel,
        (1, 1),
        ((REACH - 1, REACH),) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=jax.lax.Precision.HIGHEST,
    )
    return y.reshape(c, h, w, up, up).transpose(0, 1, 3, 2, 4).reshape(c, h * up, w * up)

"""Warps, colours, frequencies: what augmentations do, differentiably (arXiv:2006.06676, App. B).

Geometric transforms multiply into one inverse matrix an image, from output to input pixels about
the image's centre, x to the right and y down. The image is then resampled once:

    reflect-pad, up by 2 with a 12-tap wavelet low-pass, warp bilinearly, filter again, down by 2.

Padding and filters are two constant matrices of each axis, applied as products: fast on every
device. Filtering twice is the identity, since the wavelet is orthogonal. The padding is the largest
that a reflection allows, size - 1; beyond it is zero.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# Low-pass of the symlet with 6 vanishing moments (Daubechies, Ten Lectures on Wavelets, 1992).
SYM6 = np.array([
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
])  # fmt: skip
TAPS = len(SYM6)
EDGE = TAPS // 2 + 2  # rows of `_up` at either end that see the end of the padding, or are zero
WINDOWS = jax.lax.GatherDimensionNumbers((2, 3), collapsed_slice_dims=(), start_index_map=(0, 1))
# Low-pass of the symlet with 2 vanishing moments, and what natural images have in each octave.
SYM2 = np.array([1 + 3**0.5, 3 + 3**0.5, 3 - 3**0.5, 1 - 3**0.5]) / 32**0.5
POWER = np.array([10, 1, 1, 1], np.float32) / 13


def _reflect(i: np.ndarray | jax.Array, n: int) -> np.ndarray | jax.Array:
    """Indices mirrored at 0 and n - 1, without repeating the edge; for -n < i < 2n - 1."""
    return n - 1 - abs(n - 1 - abs(i))


@functools.lru_cache(maxsize=32)
def _up(n: int) -> np.ndarray:
    """Reflect-pad by n - 1, insert zeros, low-pass; a row of zeros at both ends: (6n - 2, n)."""
    pad, length = n - 1, 3 * n - 2
    m = np.zeros((2 * length + 2, n), np.float32)
    for j, f in enumerate(SYM6[::-1] * 2**0.5):  # a convolution of gain 2; SYM6 sums to sqrt 2
        k = np.arange(j % 2, 2 * length, 2)  # where tap j meets a sample and not a zero
        source = (k + j - TAPS // 2) // 2
        inside = (source >= 0) & (source < length)
        m[k[inside] + 1, _reflect(source[inside] - pad, n)] += f
    return m


@functools.lru_cache(maxsize=32)
def _up_once(n: int) -> tuple[np.ndarray, int]:
    """The different rows of `_up`, and how many were taken out of its middle.

    A reflected signal has period 2n - 2, so that the rows come again after 4n - 4. A third of them
    goes; of the products with them, which cost more than the rest of a warp, a half.
    """
    m, period = _up(n), 4 * n - 4
    out = max(len(m) - period - 2 * EDGE - 2, 0)
    start = EDGE + period + 1
    return np.delete(m, np.s_[start : start + out], 0), out


@functools.lru_cache(maxsize=32)
def _down(n: int) -> np.ndarray:
    """The mirrored low-pass of unit gain, then every second sample: (n, 2n + 10)."""
    m = np.zeros((n, 2 * n + TAPS - 2), np.float32)
    for j, f in enumerate(SYM6 / 2**0.5):
        m[np.arange(n), 2 * np.arange(n) + j] = f
    return m


def _both(rows: np.ndarray | jax.Array, x: jax.Array, cols: np.ndarray | jax.Array) -> jax.Array:
    """rows x cols^T for each image and channel of x (b, h, w, c); matrices for all, or one each."""
    one, other = ("bih", "bjw") if rows.ndim == 3 else ("ih", "jw")
    return jnp.einsum(f"{one},bhwc,{other}->bijc", rows, x, cols, precision="highest")


def resample(x: jax.Array, inverse: jax.Array) -> jax.Array:
    """Each image seen through its own affine map.

    Args:
      x: (b, h, w, c). inverse: (b, 3, 3), from output to input pixels (x, y, 1) about the centre;
        a gradient to it is zero.
    Returns:
      (b, h, w, c); x itself for the identity.
    """
    h, w = x.shape[1:3]
    m, (rows, _), (cols, _) = 2 * inverse[:, :2], _up_once(h), _up_once(w)
    # Half a pixel apart; the filter's delay puts every second sample on the centre of a pixel.
    gx, gy = ((np.arange(2 * n + TAPS - 2) - TAPS // 2 + 2 - n) / 2 for n in (w, h))
    to = lambda k, n: sum(
        _fixed(v, n)
        for v in (
            m[:, k, 0, None, None] * gx,
            m[:, k, 1, None, None] * gy[:, None],
            m[:, k, 2, None, None],
        )
    )
    sampled = _bilinear(_both(rows, x, cols), _corner(to(1, h), h), _corner(to(0, w), w))
    return _both(_down(h), sampled, _down(w))


def _point(n: int) -> int:
    """Bits after the point of positions on an axis of n pixels: 3 x 32 n fits into 31 bits."""
    return 24 - (n - 1).bit_length()


def _fixed(v: jax.Array, n: int) -> jax.Array:
    """Positions as fixed-point numbers, int32.

    Their sum is exact, and so the same wherever a compiler computes it again. Sums of products of
    floats are not: rounded once for an index and twice for the weight that belongs to it, they are
    a whole pixel apart at times.
    """
    return jnp.round(jnp.clip(v, -32 * n, 32 * n) * 2.0 ** _point(n)).astype(jnp.int32)


def _corner(to: jax.Array, n: int) -> tuple[jax.Array, jax.Array]:
    """Positions on an axis of n pixels, in half pixels from the centre, as samples of `_up_once`.

    (the sample before, int32; the weight of the one after it); clamped to the rows of zeros.
    """
    centre = 3 * n - 2  # 2 (n / 2 + padding) - 1, and 1 for the row of zeros of `_up`
    last, period, out, point = 6 * n - 3, 4 * n - 4, _up_once(n)[1], _point(n)
    to = jnp.clip(to + (centre << point), 0, (last << point) - 1)
    k, weight = to >> point, (to & ((1 << point) - 1)) * 2.0**-point
    again = jnp.where(k < last - EDGE, k - period, k - out)
    return jnp.where(k < EDGE + period, k, again), weight


def _bilinear(
    x: jax.Array, row: tuple[jax.Array, jax.Array], col: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """x (b, h, w, c) between samples k, k + 1 of an axis; row, col: (k, weight) (b, i, j) each.

    One gather of two times two neighbouring colours, whose gradient is one scatter: in all a third
    faster on a CPU than four of single colours.
    """
    (i, fi), (j, fj) = row, col
    b, h, w, c = x.shape
    take = lambda x, k: jax.lax.gather(x, k, WINDOWS, (2, 2 * c), mode="promise_in_bounds")
    near = jax.vmap(take)(x.reshape(b, h, w * c), jnp.stack([i, j * c], -1))
    fi, fj = fi[..., None], fj[..., None]
    near = (1 - fi) * near[..., 0, :] + fi * near[..., 1, :]
    return (1 - fj) * near[..., :c] + fj * near[..., c:]


def _matrix(*rows: tuple) -> jax.Array:
    """(b, n, n) from rows of (b,) arrays and numbers, of which at least one is an array."""
    entries = jnp.broadcast_arrays(*(jnp.asarray(v, jnp.float32) for row in rows for v in row))
    return jnp.stack(entries, -1).reshape(-1, len(rows), len(rows))


def scale(sx: jax.Array, sy: jax.Array) -> jax.Array:
    """Inverse (b, 3, 3) of enlarging by factors sx, sy (b,)."""
    return _matrix((1 / sx, 0, 0), (0, 1 / sy, 0), (0, 0, 1))


def rotate(theta: jax.Array) -> jax.Array:
    """Inverse (b, 3, 3) of turning by theta (b,) radians, counter-clockwise as seen."""
    c, s = jnp.cos(theta), jnp.sin(theta)
    return _matrix((c, -s, 0), (s, c, 0), (0, 0, 1))


def translate(by: jax.Array) -> jax.Array:
    """Inverse (b, 3, 3) of moving by (b, 2) pixels, right and down."""
    return _matrix((1, 0, -by[:, 0]), (0, 1, -by[:, 1]), (0, 0, 1))


def compose(*m: jax.Array) -> jax.Array:
    """The product of matrices (b, n, n), in full precision: positions depend on it."""
    return functools.reduce(functools.partial(jnp.matmul, precision="highest"), m)


def flip(x: jax.Array, on: jax.Array, axis: int) -> jax.Array:
    """Images (b, h, w, c) where on (b,) mirrored along an axis, exactly."""
    return jnp.where(on[:, None, None, None], jnp.flip(x, axis), x)


def quarter_turns(x: jax.Array, turns: jax.Array) -> jax.Array:
    """Square images turned by turns (b,), 0 to 3, times 90 degrees, exactly.

    Raises:
      ValueError: for images that are not square.
    """
    if x.shape[1] != x.shape[2]:
        raise ValueError(f"quarter turns need square images, got {x.shape[1:3]}; leave them out")
    x = flip(x, (turns == 1) | (turns == 2), 2)
    x = flip(x, turns >= 2, 1)
    return jnp.where((turns % 2 == 1)[:, None, None, None], x.swapaxes(1, 2), x)


def shift(x: jax.Array, by: jax.Array) -> jax.Array:
    """Images moved by whole pixels (b, 2), right and up, below their size; edges are reflected."""
    for axis, right in ((2, by[:, :1]), (1, -by[:, 1:])):
        n = x.shape[axis]
        source = _reflect(jnp.arange(n) - right.astype(jnp.int32), n)
        x = jax.vmap(lambda image, i, axis=axis: jnp.take(image, i, axis - 1))(x, source)
    return x


def brighten(by: jax.Array) -> jax.Array:
    """(b, 4, 4), adds by (b,) to every channel of (r, g, b, 1)."""
    return _matrix((1, 0, 0, by), (0, 1, 0, by), (0, 0, 1, by), (0, 0, 0, 1))


def about_grey(
    along: jax.Array | float, across: jax.Array | float, theta: jax.Array | float
) -> jax.Array:
    """(b, 4, 4): factors (b,) along and across the axis of greys, and a turn by theta about it.

    Contrast is equal factors, luma flip along = -1, hue theta, saturation across. Numbers may stand
    for some of them.
    """
    # For the axis v: along v v^T + across (cos theta (1 - v v^T) + sin theta [v]x), a circulant.
    a = (along - across * jnp.cos(theta)) / 3
    s = across * jnp.sin(theta) / 3**0.5
    d = a + across * jnp.cos(theta)
    return _matrix((d, a - s, a + s, 0), (a + s, d, a - s, 0), (a - s, a + s, d, 0), (0, 0, 0, 1))


def recolour(x: jax.Array, m: jax.Array) -> jax.Array:
    """Colours (r, g, b, 1) of images (b, h, w, 3) times m (b, 4, 4); grey ones keep the mean.

    Raises:
      ValueError: for other numbers of channels than 1 and 3.
    """
    c = x.shape[-1]
    if c not in (1, 3):
        raise ValueError(f"colour transforms need 1 or 3 channels, got {c}; leave them out")
    a, b = m[:, :3, :3], m[:, None, None, :3, 3]
    if c == 1:
        a, b = a.sum(2).mean(1)[:, None, None], b.mean(-1, keepdims=True)
    return jnp.einsum("bij,bhwj->bhwi", a, x, precision="highest") + b


@functools.lru_cache(maxsize=1)
def _octaves() -> np.ndarray:
    """Four filters (4, 43) of unit sum together: of what is below pi / 8, and of octaves up to pi.

    With a half-band low-pass L, the squared wavelet's, and H = 1 - L:  L(z) L(z^2) L(z^4),
    L(z) L(z^2) H(z^4), L(z) H(z^2), H(z).
    """
    low = np.convolve(SYM2, SYM2[::-1]) / 2
    high = np.eye(1, len(low), len(low) // 2)[0] - low

    def stretched(f: np.ndarray, by: int) -> np.ndarray:
        return np.kron(f, np.eye(1, by)[0])[: by * (len(f) - 1) + 1]

    bands, rest = [], np.ones(1)
    for by in (1, 2, 4):
        bands.append(np.convolve(rest, stretched(high, by)))
        rest = np.convolve(rest, stretched(low, by))
    pad = [(len(rest) - len(f)) // 2 for f in (rest, *bands[::-1])]
    return np.stack([np.pad(f, k) for f, k in zip((rest, *bands[::-1]), pad)])


@functools.lru_cache(maxsize=32)
def _octave_matrices(n: int) -> np.ndarray:
    """The filters of `_octaves` on n > 21 reflected pixels: (4, n, n)."""
    bank = _octaves()
    m = np.zeros((len(bank), n, n), np.float32)
    for j in range(bank.shape[1]):
        i = np.arange(n)
        m[:, i, _reflect(i + j - bank.shape[1] // 2, n)] += bank[:, j, None]
    return m


def amplify(x: jax.Array, factors: jax.Array) -> jax.Array:
    """Images (b, h, w, c) with octaves amplified by factors (b, 4), coarse to fine.

    One after another, each time at equal power of an image with the spectrum of natural ones. The
    gains then apply along both axes.

    Raises:
      ValueError: for images of 21 pixels or less, which the filter is too wide for.
    """
    if (reach := _octaves().shape[1] // 2) >= min(x.shape[1:3]):
        raise ValueError(
            f"the filter transform needs images of more than {reach} pixels a side, got "
            f"{x.shape[1:3]}; leave out imgfilter"
        )
    power = 1 + POWER * (jnp.square(factors) - 1)  # of an image after one factor alone
    gain = factors / jnp.sqrt(jnp.prod(power, -1, keepdims=True))
    rows, cols = (
        jnp.einsum("bk,kij->bij", gain, _octave_matrices(n), precision="highest")
        for n in x.shape[1:3]
    )
    return _both(rows, x, cols)


def cut_out(x: jax.Array, centre: jax.Array, size: jax.Array | np.ndarray) -> jax.Array:
    """Images (b, h, w, c) with a box set to 0: pixels whose centre is inside of it.

    Args:
      centre: (b, 2), y and x as shares of the image. size: sides likewise, (b, 2) or (2,).
    """
    size = jnp.broadcast_to(size, centre.shape)
    rows, cols = (
        abs((np.arange(n) + 0.5) / n - centre[:, k, None]) < size[:, k, None] / 2
        for k, n in enumerate(x.shape[1:3])
    )
    return x * ~(rows[:, :, None] & cols[:, None, :])[..., None]

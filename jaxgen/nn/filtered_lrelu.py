"""Filtered leaky ReLU: up, bend, down, without aliasing (arXiv:2106.12423, Sec. 3.2).

A pointwise nonlinearity makes frequencies that the sampling grid cannot hold. So a map is upsampled
by a low-pass filter, bent, and low-passed again before samples are dropped.

Filters are sums of shifted slices (`resample`), along one axis at a time where they are separable:
zeros of upsampling are never made, samples that are dropped never computed. On a CPU matrix
products take 3 to 9 times as long, convolutions 40 to 120 times.

XLA's derivatives of strided slices are 10 to 30 times slower there than the function. But the
transpose of a resampler is one again, with its taps reversed and `up` and `down` exchanged, so
derivatives of any order by `jax.vjp` cost the same; `jax.jvp` is not defined.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.convolution import NHWC

# XLA's loops on a CPU: of fewer slices, they compute what x is made of anew for each (4 times
# slower); of more terms, they are 2 to 5 times slower than a few loops one after the other.
SLICES, TERMS = 16, 24
Pair = tuple[int, int]
Pads = tuple[Pair, Pair]


def resample(x: jax.Array, f: np.ndarray, up: Pair, down: Pair, lo: Pair, size: Pair) -> jax.Array:
    """y_op = sum_st f_st z_(o down + s - lo, p down + t - lo), o and p from 0 to size - 1.

    x is (b, h, w, c), z is x with up - 1 zeros after each sample and 0 outside; pairs are of height
    and width. Sums are float32, the result is in x's dtype.
    """
    n = x.shape[1:3]

    def transposed(_: None, g: jax.Array) -> tuple[jax.Array]:
        mirrored = f.shape[0] - 1 - lo[0], f.shape[1] - 1 - lo[1]
        return (resample(g, f[::-1, ::-1], down, up, mirrored, n),)

    run = jax.custom_vjp(lambda x: _shift_add(x, f, up, down, lo, size))
    run.defvjp(lambda x: (run(x), None), transposed)
    return run(x)


def _shift_add(
    x: jax.Array, f: np.ndarray, up: Pair, down: Pair, lo: Pair, size: Pair
) -> jax.Array:
    """Outputs p, p + phases, p + 2 phases, ... of an axis read the same taps, at strided slices.

    There are as many phases as upsampling needs, or more to have SLICES of x.
    """
    units = [u // int(np.gcd(u, d)) for u, d in zip(up, down)]
    slices = np.prod([-(-k // u) * unit for k, u, unit in zip(f.shape, up, units)])
    more = [1, 1]
    longer = int(f.shape[1] > f.shape[0])
    more[longer] = int(max(1, min(-(-SLICES // slices), size[longer] // units[longer])))
    phases = [unit * m for unit, m in zip(units, more)]
    counts = [-(-n // p) for n, p in zip(size, phases)]
    strides = [p * d // u for p, d, u in zip(phases, down, up)]
    at, edges = [], []  # of each axis: the taps of each phase and what they read first; padding
    for a in (0, 1):
        places = [
            [(k, p * down[a] + k - lo[a]) for k in range(f.shape[a])] for p in range(phases[a])
        ]
        at.append([[(k, i // up[a]) for k, i in of if i % up[a] == 0] for of in places])
        reads = [i for of in at[a] for _, i in of]
        end = max(reads) + (counts[a] - 1) * strides[a] + 1
        edges.append((max(-min(reads), 0), max(end - x.shape[a + 1], 0), 0))
    if any(map(any, edges)):
        x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), *edges, (0, 0, 0)])
    lengths = [(n - 1) * stride + 1 for n, stride in zip(counts, strides)]

    def read(i: int, j: int) -> jax.Array:  # taps rounded to bfloat16 would let aliases through
        i, j = i + edges[0][0], j + edges[1][0]
        end = (x.shape[0], i + lengths[0], j + lengths[1], x.shape[3])
        return jax.lax.slice(x, (0, i, j, 0), end, (1, *strides, 1)).astype(jnp.float32)

    def phase(rows: list[Pair], columns: list[Pair]) -> jax.Array:
        terms = [(float(f[s, t]), i, j) for s, i in rows for t, j in columns]
        total = jnp.zeros((x.shape[0], *counts, x.shape[3]))  # if there are fewer taps than zeros
        for some in np.array_split(np.arange(len(terms)), -(-len(terms) // TERMS) or 1):
            total = sum((terms[k][0] * read(*terms[k][1:]) for k in some), start=total)
            if len(terms) > TERMS:
                total = jax.lax.optimization_barrier(total)
        return total

    y = jnp.stack([jnp.stack([phase(r, c) for c in at[1]], 3) for r in at[0]], 2)
    y = y.reshape(x.shape[0], counts[0] * phases[0], counts[1] * phases[1], x.shape[3])
    return y[:, : size[0], : size[1]].astype(x.dtype)


def _resample(
    x: jax.Array, f: np.ndarray | None, up: Pair, down: Pair, lo: Pair, size: Pair, gain: float
) -> jax.Array:
    """f convolved (its taps mirrored) and multiplied by `gain`."""
    f = np.ones((1, 1)) if f is None else np.asarray(f, np.float64)
    if f.ndim == 2:
        return resample(x, gain * f[::-1, ::-1], up, down, lo, size)
    height = (up[0], 1), (down[0], 1), (lo[0], 0), (size[0], x.shape[2])
    width = (1, up[1]), (1, down[1]), (0, lo[1]), size
    x = resample(x, gain * f[::-1, None], *height)
    return resample(x, f[None, ::-1], *width)


def _sizes(x: jax.Array, up: Pair, down: Pair, pad: Pads, taps: Sequence[Pair]) -> Pair:
    """Height and width after filters of `taps` taps along both axes; the last decimates."""
    n = [x.shape[i + 1] * up[i] + sum(pad[i]) - sum(k[i] - 1 for k in taps) for i in (0, 1)]
    if min(n) < 1:
        raise ValueError(
            f"nothing is left of images {x.shape} upsampled by {up}, padded by {pad} and filtered "
            f"with {tuple(taps)} taps; pad more"
        )
    return (n[0] - 1) // down[0] + 1, (n[1] - 1) // down[1] + 1


def _taps(f: np.ndarray | None) -> Pair:
    """The filter's taps along height and width."""
    shape = (1, 1) if f is None else np.shape(f)
    if len(shape) not in (1, 2):
        raise ValueError(f"expected a filter of one or two dimensions, got shape {shape}")
    return shape if len(shape) == 2 else shape * 2


def upfirdn(
    x: jax.Array,
    f: np.ndarray | None,
    up: Pair = (1, 1),
    down: Pair = (1, 1),
    pad: Pads = ((0, 0), (0, 0)),
    gain: float = 1.0,
) -> jax.Array:
    """Zeros inserted after each sample, padding, a filter, every down-th sample kept.

    Args:
      x: (b, h, w, c). f: (n,) taps for both axes or (n, m), convolved "valid"; None is one tap of
        1. up, down: along height and width. pad: (before, after) along each, counted after the
        zeros are in; negative numbers crop. gain: of the result.
    Returns:
      (b, h', w', c), h' = (h up + before + after - n) // down + 1.
    Raises:
      ValueError: when nothing is left, or f has more dimensions.
    """
    size = _sizes(x, up, down, pad, [_taps(f)])
    return _resample(x, f, up, down, (pad[0][0], pad[1][0]), size, gain)


def bend(
    x: jax.Array, slope: float = 0.2, gain: float = 2.0**0.5, clamp: float | None = None
) -> jax.Array:
    """Leaky ReLU times gain, kept in [-clamp, clamp].

    The derivative at 0 is the slope's, at the bound that of the inside.
    """
    x = jnp.where(x > 0, x * gain, x * (slope * gain))
    return x if clamp is None else jnp.where(x > clamp, clamp, jnp.where(x < -clamp, -clamp, x))


def filtered_lrelu(
    x: jax.Array,
    b: jax.Array | None,
    fu: np.ndarray | None,
    fd: np.ndarray | None,
    up: int = 1,
    down: int = 1,
    pad: Pads = ((0, 0), (0, 0)),
    gain: float = 2.0**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
) -> jax.Array:
    """Bias, upsampling, leaky ReLU, downsampling.

    Args:
      x: (b, h, w, c). b: (c,). fu, fd: low-pass filters (n,) or (n, n), on the host, None for none;
        fu gets the gain up^2 that makes good for the zeros. up, down: factors. pad: (before, after)
        along height and width, counted at the high rate; negative numbers crop. gain, slope: of the
        leaky ReLU. clamp: bound of what it gives.
    Returns:
      (b, h', w', c), h' = (h up + before + after - nu + 1 - nd) // down + 1, in x's dtype.
    Raises:
      ValueError: when nothing is left, or a filter has more dimensions.
    """
    nd = _taps(fd)
    size = _sizes(x, (up, up), (down, down), pad, [_taps(fu), nd])
    y = x if b is None else x + b.astype(x.dtype)
    between = tuple((s - 1) * down + n for s, n in zip(size, nd))
    y = _resample(y, fu, (up, up), (1, 1), (pad[0][0], pad[1][0]), between, float(up * up))
    y = bend(y, slope, gain, clamp)
    return _resample(y, fd, (1, 1), (down, down), (0, 0), size, 1.0)


def upfirdn_reference(
    x: jax.Array,
    f: np.ndarray | None,
    up: Pair = (1, 1),
    down: Pair = (1, 1),
    pad: Pads = ((0, 0), (0, 0)),
    gain: float = 1.0,
) -> jax.Array:
    """`upfirdn` as it is written down, with a depthwise convolution: slow, for tests."""
    c, zero = x.shape[-1], jnp.zeros((), x.dtype)
    f = np.ones((1, 1)) if f is None else np.asarray(f)
    f = np.outer(f, f) if f.ndim == 1 else f
    w = jnp.asarray(gain * np.tile(f[::-1, ::-1, None, None], (1, 1, 1, c)), x.dtype)
    x = jax.lax.pad(x, zero, [(0, 0, 0), *((0, u - 1, u - 1) for u in up), (0, 0, 0)])
    x = jax.lax.pad(x, zero, [(0, 0, 0), *((lo, hi, 0) for lo, hi in pad), (0, 0, 0)])
    y = jax.lax.conv_general_dilated(
        x, w, (1, 1), "VALID", dimension_numbers=NHWC, feature_group_count=c
    )
    return y[:, :: down[0], :: down[1]]


def reference(
    x: jax.Array,
    b: jax.Array | None,
    fu: np.ndarray | None,
    fd: np.ndarray | None,
    up: int = 1,
    down: int = 1,
    pad: Pads = ((0, 0), (0, 0)),
    gain: float = 2.0**0.5,
    slope: float = 0.2,
    clamp: float | None = None,
) -> jax.Array:
    """`filtered_lrelu` step by step: slow, for tests."""
    y = x if b is None else x + b
    y = bend(upfirdn_reference(y, fu, (up, up), pad=pad, gain=up * up), slope, gain, clamp)
    return upfirdn_reference(y, fd, down=(down, down))

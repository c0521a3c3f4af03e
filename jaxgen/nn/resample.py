"""FIR resampling by 2, alone and joined with convolutions, fast forms (arXiv:1912.04958, app. B).

A separable filter is a sum of a few shifted slices, once an axis; upsampling works on the two
output parities apart (polyphase) instead of inserting zeros. Depthwise convolutions give the same
numbers 20 to 50 times slower on a CPU; `reference` keeps that form for the tests.
Images are padded with zeros once, before everything else, so a filter's spill beyond the edge is
still seen by the convolution that follows.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.convolution import NHWC, conv

TAPS = (1, 3, 3, 1)
Pad = tuple[int, int]


def _normalised(taps: Sequence[float], gain: float) -> list[float]:
    """Taps reversed (a convolution becomes a correlation) and scaled to sum `gain`."""
    return [gain * float(t) / float(sum(taps)) for t in reversed(taps)]


def _pad(x: jax.Array, axis: int, lo: int, hi: int) -> jax.Array:
    """Zeros before and after; negative numbers crop."""
    config = [(0, 0, 0)] * x.ndim
    config[axis] = (lo, hi, 0)
    return jax.lax.pad(x, jnp.zeros((), x.dtype), config)


def fir(
    x: jax.Array,
    taps: Sequence[float] = TAPS,
    pad: Pad = (0, 0),
    gain: float = 1.0,
    stride: int = 1,
) -> jax.Array:
    """Separable filter on both image axes: pad, convolve "valid", keep every `stride`-th sample.

    Args:
      x: (b, h, w, c). taps: one-dimensional filter, normalised to sum `gain` for each axis.
      pad: samples before and after, on both axes.
    """
    f = _normalised(taps, gain)
    for axis in (1, 2):
        x = _pad(x, axis, *pad)
        n = (x.shape[axis] - len(f)) // stride + 1
        x = sum(
            t * jax.lax.slice_in_dim(x, k, k + stride * (n - 1) + 1, stride, axis)
            for k, t in enumerate(f)
        )
    return x


def blur(x: jax.Array, taps: Sequence[float] = TAPS) -> jax.Array:
    """Low-pass of equal size and unit gain."""
    return fir(x, taps, (len(taps) // 2, (len(taps) - 1) // 2))


def down2(x: jax.Array, taps: Sequence[float] = TAPS) -> jax.Array:
    """Low-pass and keep every second sample: (b, h, w, c) -> (b, h/2, w/2, c)."""
    return fir(x, taps, ((len(taps) - 1) // 2, (len(taps) - 2) // 2), stride=2)


def _interleave(even: jax.Array, odd: jax.Array, axis: int) -> jax.Array:
    shape = list(even.shape)
    shape[axis] *= 2
    return jnp.stack([even, odd], axis + 1).reshape(shape)


def up2(x: jax.Array, taps: Sequence[float] = TAPS) -> jax.Array:
    """Zero insertion and low-pass of gain 4: (b, h, w, c) -> (b, 2h, 2w, c).

    out[2m + p] = sum over k with k + p - pad even of f[k] x[m + (k + p - pad) / 2] on each axis.
    """
    f = _normalised(taps, 2.0)
    pad = (len(f) + 1) // 2
    for axis in (1, 2):
        phases = []
        for p in (0, 1):
            shifts = [(t, (p + k - pad) // 2) for k, t in enumerate(f) if (p + k - pad) % 2 == 0]
            phases.append(sum(t * _pad(x, axis, -s, s) for t, s in shifts))
        x = _interleave(*phases, axis)
    return x


def conv_down2(x: jax.Array, w: jax.Array, taps: Sequence[float] = TAPS) -> jax.Array:
    """Low-pass, convolve with w (k, k, c, o) and halve: (b, h, w, c) -> (b, h/2, w/2, o)."""
    k = w.shape[0]
    if k == 1:
        return conv(down2(x, taps), w)
    n = len(taps)
    return conv(fir(x, taps, ((n - 1) // 2 + k // 2, (n - 2) // 2 + k // 2)), w, 2, "VALID")


def up2_conv(x: jax.Array, w: jax.Array, taps: Sequence[float] = TAPS) -> jax.Array:
    """Insert zeros, convolve with w (k, k, c, o), k 1 or 3, low-pass: to (b, 2h, 2w, o).

    The 3x3 kernel is split into four small ones, one for each parity of the output position.
    Published StyleGAN2 weights mirror the kernel in these layers; here it is a correlation as
    everywhere.

    Raises:
      ValueError: for other kernel sizes.
    """
    if w.shape[0] == 1:
        return up2(conv(x, w), taps)
    if w.shape[:2] != (3, 3):
        raise ValueError(
            f"up2_conv expects a 1x1 or 3x3 kernel, got {w.shape[:2]}; use up2 and conv"
        )
    # Of the zero-inserted rows an even output sees kernel rows 0 and 2, an odd one row 1. Padding
    # first and convolving "valid" keeps XLA's weight gradient on a faster path (2 times on a CPU).
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    part = ((slice(0, 3, 2), slice(0, None)), (slice(1, 2), slice(1, None)))
    cols = []
    for kr, r in part:
        even, odd = (conv(x[:, r, c], w[kr, kc], 1, "VALID") for kc, c in part)
        cols.append(_filter_phases(even, odd, 2, taps))
    return _filter_phases(*cols, 1, taps)


def _filter_phases(even: jax.Array, odd: jax.Array, axis: int, taps: Sequence[float]) -> jax.Array:
    """Low-pass of gain 2 of the sequence even[0], odd[0], even[1], ... of length 2n + 2, to 2n.

    The same as interleaving first, but XLA would fuse that into every tap: 2 to 3 times slower.
    """
    f = _normalised(taps, 2.0)
    n, lo = even.shape[axis] - 1, (len(f) + 1) // 2 - 1

    def at(offset: int) -> jax.Array:  # element 2m + offset of the sequence for m in 0..n-1
        m, parity = divmod(offset, 2)
        part = odd if parity else even
        return _pad(part, axis, -m, n - part.shape[axis] + m)

    phases = [sum(t * at(p + k - lo) for k, t in enumerate(f)) for p in (0, 1)]
    return _interleave(*phases, axis)


def reference(
    x: jax.Array,
    taps: Sequence[float] = TAPS,
    up: int = 1,
    down: int = 1,
    pad: Pad = (0, 0),
    gain: float = 1.0,
) -> jax.Array:
    """The slow plain form: zeros after each sample, padding, depthwise filter, decimation."""
    c = x.shape[-1]
    f = np.asarray(_normalised(taps, 1.0))
    w = gain * jnp.asarray(np.tile(np.outer(f, f)[:, :, None, None], (1, 1, 1, c)), x.dtype)
    zero = jnp.zeros((), x.dtype)
    x = jax.lax.pad(x, zero, [(0, 0, 0), (0, up - 1, up - 1), (0, up - 1, up - 1), (0, 0, 0)])
    x = jax.lax.pad(x, zero, [(0, 0, 0), (*pad, 0), (*pad, 0), (0, 0, 0)])
    y = jax.lax.conv_general_dilated(
        x, w, (1, 1), "VALID", dimension_numbers=NHWC, feature_group_count=c
    )
    return y[:, ::down, ::down]

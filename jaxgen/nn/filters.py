"""Low-pass filters: Kaiser-windowed sinc, and jinc for rotations (arXiv:2106.12423, App. C).

Designed on the host in float64. The ideal low-pass of cutoff f_c along each axis is a sinc; the one
that treats all directions alike passes a disc of frequencies and is J1(2 pi f_c r) / (pi r), up to
a constant. Both are cut to a few taps by a Kaiser window, whose shape follows from their number and
from the width of the transition band.
"""

import numpy as np
from scipy import signal, special


def lowpass(
    numtaps: int, cutoff: float, width: float, fs: float, radial: bool = False
) -> np.ndarray:
    """Taps of a low-pass filter of unit gain for constants.

    Args:
      numtaps: along an axis; 1 gives the filter that changes nothing. cutoff: f_c, in cycles a unit
        of length, middle of the transition band. width: of that band, from its end to its end. fs:
        samples a unit of length. radial: the jinc filter.
    Returns:
      float64 (numtaps,), to be applied along each axis, or (numtaps, numtaps) with `radial`.
    Raises:
      ValueError: no taps, an empty band, or a cutoff outside of (0, fs / 2).
    """
    if numtaps < 1:
        raise ValueError(f"lowpass: numtaps must be at least 1, got {numtaps}")
    if numtaps == 1:
        return np.ones(1)
    if not 0 < cutoff < fs / 2:
        raise ValueError(
            f"lowpass: the cutoff must lie between 0 and fs / 2 = {fs / 2:g}, got {cutoff:g}; raise"
            " the sampling rate"
        )
    if width <= 0:
        raise ValueError(f"lowpass: the transition band needs a width above 0, got {width:g}")
    if not radial:
        return signal.firwin(numtaps, cutoff, width=width, fs=fs)
    x = (np.arange(numtaps) - (numtaps - 1) / 2) / fs
    r = np.hypot(x[:, None], x[None])
    with np.errstate(invalid="ignore"):
        jinc = np.where(r > 0, special.j1(2 * np.pi * cutoff * r) / (np.pi * r), cutoff)
    window = np.kaiser(numtaps, signal.kaiser_beta(signal.kaiser_atten(numtaps, width * 2 / fs)))
    f = jinc * np.outer(window, window)
    return f / f.sum()

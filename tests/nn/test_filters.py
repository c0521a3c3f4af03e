"""Low-pass filters: what they pass and stop, in which directions, and the jinc's definition."""

import numpy as np
import pytest

from jaxgen.nn.filters import lowpass

DESIGN = {"numtaps": 24, "cutoff": 8.0, "width": 8.0, "fs": 64.0}


def _response(f, fx, fy, fs):
    """|H| of a symmetric filter (n, n) at frequencies fx, fy."""
    x = (np.arange(len(f)) - (len(f) - 1) / 2) / fs
    return np.abs(np.exp(-2j * np.pi * np.outer(fx, x)) @ f @ np.exp(-2j * np.pi * np.outer(x, fy)))


def test_passes_below_and_stops_above_the_transition():
    f = lowpass(**DESIGN)
    assert f.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(f, f[::-1], atol=1e-15)
    at = lambda freqs: _response(np.outer(f, f), np.asarray(freqs), [0.0], 64.0)[:, 0]
    # Kaiser's estimate: attenuation (dB) = 2.285 (n - 1) pi width / (fs / 2) + 7.95.
    ripple = 10 ** (-(2.285 * 23 * np.pi * 8 / 32 + 7.95) / 20)
    np.testing.assert_allclose(at(np.linspace(0, 4, 9)), 1, atol=1.5 * ripple)
    assert at(np.linspace(12, 32, 41)).max() < 1.5 * ripple
    assert at([8.0])[0] == pytest.approx(0.5, abs=0.01)


def test_the_radial_filter_treats_all_directions_alike():
    angle = np.linspace(0, np.pi / 2, 7)

    def spread(f, radius):
        h = [_response(f, [radius * np.cos(a)], [radius * np.sin(a)], 64.0)[0, 0] for a in angle]
        return np.ptp(h)

    radial, axes = lowpass(**DESIGN, radial=True), lowpass(**DESIGN)
    assert radial.shape == (24, 24) and radial.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(radial, radial.T, atol=1e-15)
    np.testing.assert_allclose(radial, radial[::-1], atol=1e-15)
    assert spread(radial, 8.0) < 0.01 < 0.2 < spread(np.outer(axes, axes), 8.0)


def test_jinc_is_the_inverse_transform_of_a_disc():
    """int over |f| < f_c of cos(2 pi f x), up to a factor, once the window is divided out."""
    n, f_c, fs = 9, 3.0, 16.0
    f = lowpass(n, f_c, 6.0, fs, radial=True)
    wide = 2.285 * (n - 1) * np.pi * 6.0 / (fs / 2) + 7.95
    window = np.kaiser(n, 0.1102 * (wide - 8.7) if wide > 50 else
                       0.5842 * (wide - 21) ** 0.4 + 0.07886 * (wide - 21))  # fmt: skip
    got = f / np.outer(window, window)
    u = (np.arange(2000) + 0.5) / 2000 * 2 * f_c - f_c  # midpoints; chords of the disc
    chord = 2 * np.sqrt(f_c**2 - u**2)
    x = (np.arange(n) - 4) / fs
    along_axis = np.array([(np.cos(2 * np.pi * u * r) * chord).mean() for r in x])
    np.testing.assert_allclose(got[4] / got[4, 4], along_axis / along_axis[4], atol=1e-4)


def test_one_tap_changes_nothing():
    for radial in (False, True):
        np.testing.assert_array_equal(lowpass(1, 16.0, 7.0, 32.0, radial), np.ones(1))


@pytest.mark.parametrize(
    "change, text",
    [
        ({"numtaps": 0}, "numtaps must be at least 1, got 0"),
        ({"cutoff": 32.0}, "between 0 and fs / 2 = 32, got 32"),
        ({"width": 0.0}, "width above 0, got 0"),
    ],
)
def test_errors(change, text):
    with pytest.raises(ValueError, match=text):
        lowpass(**{**DESIGN, **change})

"""Filtered leaky ReLU equals its plain form, also its derivatives, and does not alias."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.filtered_lrelu import bend, filtered_lrelu, reference, upfirdn
from jaxgen.nn.filters import lowpass

U2, U4 = lowpass(12, 4.0, 8.0, 32.0), lowpass(24, 4.0, 8.0, 64.0)
RADIAL = lowpass(12, 5.0, 6.0, 32.0, radial=True)
ODD = np.array([0.5, 1.0, -0.25])  # not symmetric: mirroring shows
CASES = {
    "cropped": {
        "fu": U4,
        "fd": RADIAL,
        "up": 4,
        "down": 2,
        "pad": ((-3, 15), (17, -4)),
        "clamp": 2,
    },
    "odd": {"fu": ODD, "fd": np.outer(ODD, [1.0, 2.0]), "up": 3, "down": 2},
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_plain_form(case):
    """Values, gradients of x and b, and of the smaller case gradients of gradients."""
    kx, kb, kg = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(kx, (2, 7, 8, 3)), jax.random.normal(kb, (3,))

    def derivatives(f):
        def gradients(*inputs):
            y, back = jax.vjp(lambda *a: jnp.sin(f(*a, **CASES[case])), *inputs)
            return y, *back(jax.random.normal(kg, y.shape))

        if case == "cropped":
            return gradients(*inputs)
        size = lambda *inputs: sum(jnp.square(d).sum() for d in gradients(*inputs)[1:])
        return *gradients(*inputs), *jax.grad(size, (0, 1))(*inputs)

    got, want = jax.jit(lambda: (derivatives(filtered_lrelu), derivatives(reference)))()
    for a, b in zip(got, want):
        assert a.size
        np.testing.assert_allclose(a, b, atol=2e-5 * max(1, float(jnp.abs(b).max())))


def test_output_is_band_limited():
    """Of a signal seen at two grids, half a sample apart, the outputs fit one band-limited signal.

    Interleaved, they are its samples at twice the rate and have nothing above the first rate's
    Nyquist frequency. A leaky ReLU alone leaves its harmonics there.
    """
    rate, n = 32, 96
    f = lowpass(12, 8.0, 16.0, 2 * rate)
    t = (np.arange(2 * n) / 2)[None, None, :, None] / rate
    s = np.sin(2 * np.pi * 3.3 * t) + np.cos(2 * np.pi * 5.1 * t + 0.4)
    x = jnp.asarray(np.broadcast_to(s, (1, 24, 2 * n, 1)), jnp.float32)

    def above(y, start):
        y = np.asarray(y)[0, 12, start:-start, 0]
        power = np.abs(np.fft.rfft(y * np.blackman(len(y)))) ** 2
        return power[len(power) // 2 :].sum() / power.sum()

    smooth = jax.jit(lambda x: filtered_lrelu(x, None, f, f, 2, 2, ((11, 10),) * 2))
    halves = [smooth(x[:, :, k::2]) for k in (0, 1)]
    together = jnp.stack(halves, 3).reshape(1, 24, 2 * n, 1)
    assert above(together, 24) < 1e-7
    assert above(bend(x), 24) > 1e-4


def test_a_constant_keeps_its_value_inside():
    """In bfloat16, too: taps are not rounded to it."""
    x = jnp.ones((1, 24, 24, 1), jnp.bfloat16)
    of = U2, RADIAL, 2, 2, ((11, 10),) * 2, 1.0
    y = jax.jit(lambda x: filtered_lrelu(x, -3 * jnp.ones(1), *of))(x)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y[:, 9:15, 9:15].astype(jnp.float32), -0.4, rtol=2**-7)


def test_negative_padding_crops():
    x = jax.random.normal(jax.random.key(0), (1, 6, 7, 2))
    want = np.pad(np.asarray(x)[:, 1:-2, 3:], ((0, 0), (0, 0), (0, 1), (0, 0)))
    np.testing.assert_array_equal(upfirdn(x, None, pad=((-1, -2), (-3, 1))), want)


def test_derivatives_at_the_kinks():
    d = jax.vmap(jax.grad(lambda x: bend(x, slope=0.5, gain=2.0, clamp=4.0)))
    np.testing.assert_allclose(d(jnp.array([-5.0, -4.0, 0.0, 1.0, 2.0, 2.1])), [0, 1, 1, 2, 2, 0])


def test_errors():
    x = jnp.zeros((1, 4, 4, 1))
    with pytest.raises(ValueError, match=r"nothing is left of images \(1, 4, 4, 1\)"):
        filtered_lrelu(x, None, U2, U2, 2, 2)
    with pytest.raises(ValueError, match=r"one or two dimensions, got shape \(2, 2, 2\)"):
        upfirdn(x, np.ones((2, 2, 2)))

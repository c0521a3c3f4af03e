"""Fast resampling equals the plain zero-insert and depthwise form, gradients included."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn import resample


def _vjps(f, *args):
    """Output and gradients of <output, fixed noise>, compiled as one program."""

    @jax.jit
    def run(*args):
        y, back = jax.vjp(f, *args)
        return y, *back(jax.random.normal(jax.random.key(9), y.shape))

    return run(*args)


FORMS = {
    "blur": (resample.blur, lambda n: {"pad": (n // 2, (n - 1) // 2)}),
    "down2": (resample.down2, lambda n: {"down": 2, "pad": ((n - 1) // 2, (n - 2) // 2)}),
    "up2": (resample.up2, lambda n: {"up": 2, "gain": 4.0, "pad": ((n + 1) // 2, (n - 2) // 2)}),
}


@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (1, 2, 4)])
def test_fast_form_equals_reference(name, taps):
    fast, options = FORMS[name]
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    slow = lambda x: resample.reference(x, taps, **options(len(taps)))
    for a, b in zip(_vjps(lambda x: fast(x, taps), x), _vjps(slow, x)):
        np.testing.assert_allclose(a, b, atol=2e-6)


def _up_conv_reference(x, w, taps):
    """Zeros inserted, everything padded once, filter then convolution, both valid."""
    n, k = len(taps), w.shape[0] // 2
    y = resample.reference(x, taps, up=2, gain=4.0, pad=((n + 1) // 2 + k, (n - 2) // 2 + k))
    return resample.conv(y, w, 1, "VALID")


def _down_conv_reference(x, w, taps):
    n, k = len(taps), w.shape[0] // 2
    y = resample.reference(x, taps, pad=((n - 1) // 2 + k, (n - 2) // 2 + k))
    return resample.conv(y, w, 1, "VALID")[:, ::2, ::2]


@pytest.mark.parametrize("k,taps", [(1, (1, 3, 3, 1)), (3, (1, 2, 1)), (3, (1, 2, 3, 4))])
def test_joined_convolutions_equal_reference(k, taps):
    x = jax.random.normal(jax.random.key(0), (2, 8, 6, 3))
    w = jax.random.normal(jax.random.key(1), (k, k, 3, 5))
    pairs = ((resample.up2_conv, _up_conv_reference), (resample.conv_down2, _down_conv_reference))
    for fast, slow in pairs:
        got = _vjps(functools.partial(fast, taps=taps), x, w)
        for a, b in zip(got, _vjps(functools.partial(slow, taps=taps), x, w)):
            np.testing.assert_allclose(a, b, atol=3e-5)


def test_a_constant_stays_constant_inside():
    x = jnp.ones((1, 16, 16, 1))
    for y in jax.jit(lambda x: [resample.up2(x), resample.down2(x), resample.blur(x)])(x):
        np.testing.assert_allclose(y[:, 2:-2, 2:-2], 1.0, atol=1e-6)


def test_up_and_down_are_adjoint():
    x = jax.random.normal(jax.random.key(0), (1, 6, 6, 2))
    y = jax.random.normal(jax.random.key(1), (1, 12, 12, 2))
    up, down = jax.jit(resample.up2)(x), jax.jit(resample.down2)(y)
    np.testing.assert_allclose(jnp.vdot(up, y), 4 * jnp.vdot(x, down), rtol=1e-4)


def test_unknown_kernel_is_refused():
    with pytest.raises(ValueError, match="expects a 1x1 or 3x3 kernel"):
        resample.up2_conv(jnp.zeros((1, 4, 4, 1)), jnp.zeros((5, 5, 1, 1)))

"""Modulated convolution: equal to explicit kernels, unit output variance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn import modulated


def _inputs(b=2, k=3, i=4, o=5, n=6):
    keys = jax.random.split(jax.random.key(0), 3)
    return (
        jax.random.normal(keys[0], (b, n, n, i)),
        jax.random.normal(keys[1], (k, k, i, o)),
        1 + jax.random.normal(keys[2], (b, i)),
    )


@pytest.mark.parametrize("demodulate,up", [(True, True), (True, False), (False, False)])
def test_equals_one_kernel_an_image(demodulate, up):
    args = _inputs()

    def vjps(f):
        y, back = jax.vjp(lambda *a: f(*a, demodulate=demodulate, up=up), *args)
        return y, *back(jax.random.normal(jax.random.key(1), y.shape))

    got, want = jax.jit(lambda: (vjps(modulated.modulated_conv), vjps(modulated.reference)))()
    for a, b in zip(got, want):
        np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-4)


def test_demodulated_output_has_unit_variance():
    """For independent unit-variance inputs, away from the border, whatever the styles' scale."""
    x, w, s = _inputs(b=4, i=16, o=32, n=16)
    y = jax.jit(modulated.modulated_conv)(x, w, s * jnp.array([0.1, 1, 10, 100])[:, None])
    np.testing.assert_allclose(y[:, 1:-1, 1:-1].std((1, 2)).mean(-1), 1.0, atol=0.06)


def test_demodulation_removes_the_scale_of_styles_and_kernel():
    x, w, s = _inputs()
    np.testing.assert_allclose(
        modulated.modulated_conv(x, 7 * w, 3 * s), modulated.modulated_conv(x, w, s), rtol=1e-4,
        atol=1e-5,
    )  # fmt: skip

"""3D U-Net: its convolution is a 3x3x3 one, shapes, and what it sees."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params as parameters
from jaxgen.networks.unet3d import Conv3D, UNet3D


def test_the_convolution_is_three_dimensional():
    """Against XLA's own, with the kernel's planes taken apart."""
    layer = Conv3D(4)
    x = jax.random.normal(jax.random.key(0), (2, 5, 6, 7, 3))
    p = parameters.init(layer, jax.random.key(1), x)
    w = p["conv"]["w"].reshape(3, 3, 3, 3, 4).transpose(2, 0, 1, 3, 4)
    dims = ("NDHWC", "DHWIO", "NDHWC")
    want = jax.lax.conv_general_dilated(x, w, (1, 1, 1), "SAME", dimension_numbers=dims)
    got = layer.apply({"params": p}, x)
    np.testing.assert_allclose(got, want, atol=1e-5)


@pytest.fixture(scope="module")
def net():
    module = UNet3D(features=2, depth=1)
    params = parameters.init(module, jax.random.key(0), jnp.zeros((1, 4, 4, 4)))
    return params, jax.jit(lambda p, x: module.apply({"params": p}, x))


def test_shapes_of_any_size(net):
    params, run = net
    assert params["enc1a"]["conv"]["w"].shape == (3, 3, 6, 4)
    x = jax.random.normal(jax.random.key(1), (2, 5, 6, 3))
    y = run(params, x)
    assert y.shape == x.shape and y.dtype == jnp.float32
    zero = jax.tree.map(jnp.zeros_like, params)
    np.testing.assert_array_equal(run(zero, x), x)


def test_slices_see_each_other(net):
    params, run = net
    x = jnp.zeros((1, 5, 6, 3))
    moved = run(params, x.at[0, 2, 2, 0].set(1.0)) - run(params, x)
    assert all(float(jnp.abs(moved[0, ..., k]).max()) > 1e-6 for k in range(3))


def test_conditions_are_refused():
    with pytest.raises(ValueError, match=r"unet3d knows no conditions, got \['label'\]"):
        UNet3D().apply({}, jnp.zeros((1, 4, 4, 4)), {"label": jnp.zeros((1, 2))})

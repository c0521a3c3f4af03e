"""Noise2Noise's U-Net: size, any image size, translation by the pooling's period."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.networks.n2n_unet import N2NUNet, reflect_to_multiple

SMALL = N2NUNet(features=4, depth=2, last_features=(6, 4))


def test_the_papers_parameter_count():
    x = jnp.zeros((1, 32, 32, 3))
    shapes = jax.eval_shape(lambda: N2NUNet().init(jax.random.key(0), x))
    assert trees.count(shapes["params"]) == 991_203


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_any_size(size):
    x = jax.random.normal(jax.random.key(0), (2, *size, 1))
    p = params.init(SMALL, jax.random.key(1), x)
    assert SMALL.apply({"params": p}, x).shape == x.shape


def test_padding_reflects():
    x = jnp.arange(6.0).reshape(1, 6, 1, 1)
    np.testing.assert_array_equal(
        reflect_to_multiple(jnp.broadcast_to(x, (1, 6, 8, 1)), 8)[0, :, 0, 0],
        [0, 1, 2, 3, 4, 5, 4, 3],
    )


def test_moves_with_the_image_by_the_pooling_period():
    """Away from the borders, shifting the input by 2^depth shifts the output."""
    x = jnp.zeros((1, 48, 48, 1)).at[:, 20:24, 20:24].set(1.0)
    p = params.init(SMALL, jax.random.key(1), x)
    run = jax.jit(lambda x: SMALL.apply({"params": p}, x))
    a, b = run(x), run(jnp.roll(x, 4, (1, 2)))
    np.testing.assert_allclose(
        jnp.roll(a, 4, (1, 2))[:, 16:32, 16:32], b[:, 16:32, 16:32], atol=1e-5
    )


def test_conditions_are_refused():
    with pytest.raises(ValueError, match=r"no conditions, got \['label'\]"):
        SMALL.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), {"label": jnp.zeros((1, 3))})

"""SAGAN's attention: nothing at first, the same for all pixels, values from everywhere."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.sagan_attention import SaganAttention, max_pool2


def test_pixels_are_a_set():
    """Without pooling, moving pixels moves the result with them."""
    layer, x = SaganAttention(pool=False), jax.random.normal(jax.random.key(0), (2, 4, 6, 16))
    draw = lambda *s: np.random.default_rng(0).standard_normal(s).astype("float32")
    p = {k: {"w": draw(16, 2)} for k in ("theta", "phi")}
    p |= {"g": {"w": draw(16, 8)}, "out": {"w": draw(8, 16)}}
    run = jax.jit(lambda x, gamma, **more: layer.apply({"params": p | more | {"gamma": gamma}}, x))
    np.testing.assert_array_equal(run(x, 0.0), x)
    order = np.random.default_rng(0).permutation(24)
    move = lambda x: np.asarray(x).reshape(2, 24, 16)[:, order].reshape(x.shape)
    np.testing.assert_allclose(run(move(x), 0.7), move(run(x, 0.7)), atol=1e-4)
    # Where no pixel is preferred, all see the mean of the values.
    want = np.mean(x, (1, 2), keepdims=True) @ p["g"]["w"] @ p["out"]["w"]
    got = run(x, 0.7, theta={"w": jnp.zeros((16, 2))})
    np.testing.assert_allclose(got, x + 0.7 * want, atol=1e-4)


def test_pooling():
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    np.testing.assert_array_equal(max_pool2(x)[0, :, :, 0], [[5, 7], [13, 15]])


def test_too_few_channels():
    with pytest.raises(ValueError, match="8 channels or more, got 4"):
        SaganAttention().init(jax.random.key(0), jnp.zeros((1, 4, 4, 4)))

"""Attention against the explicit softmax, its symmetry, and the pooling's mean token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params
from jaxgen.networks.adm import START
from jaxgen.nn.attention import AttentionPool, SelfAttention, attend, heads


def test_attend_is_the_softmax_of_each_head():
    qkv = jax.random.normal(jax.random.key(0), (2, 7, 3 * 8))
    q, k, v = np.asarray(qkv, np.float64).reshape(2, 7, 3, 2, 4).transpose(2, 0, 3, 1, 4)
    logits = q @ k.swapaxes(-1, -2) / 2  # sqrt of 4 channels
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    want = (weights @ v).transpose(0, 2, 1, 3).reshape(2, 7, 8)
    np.testing.assert_allclose(jax.jit(attend, static_argnums=1)(qkv, 2), want, atol=1e-5)


def test_pixels_have_no_order():
    """Permuted pixels in, permuted pixels out."""
    module = SelfAttention(2, 1e-5, START._replace(last=START.w))
    x = jax.random.normal(jax.random.key(0), (1, 2, 3, 8))
    p = params.init(module, jax.random.key(1), x)
    f = jax.jit(lambda x: module.apply({"params": p}, x))
    order = np.array([3, 1, 5, 0, 2, 4])
    mixed = x.reshape(1, 6, 8)[:, order].reshape(x.shape)
    y = f(x).reshape(1, 6, 8)
    assert float(jnp.abs(y).max()) > 1e-2
    np.testing.assert_allclose(f(mixed).reshape(1, 6, 8), y[:, order], atol=1e-6)


def test_pooling_a_constant_image_is_linear():
    """Without positions all tokens are equal, whatever they attend to: proj(v(x))."""
    module = AttentionPool(5, 2, START)
    x = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (2, 1, 1, 8)), (2, 3, 3, 8))
    p = params.init(module, jax.random.key(1), x)
    assert p["position"].shape == (10, 8)
    p["position"] = 0 * p["position"]
    v = x[:, 0, 0] @ p["qkv"]["w"][:, 16:] + p["qkv"]["b"][16:]
    want = v @ p["proj"]["w"] + p["proj"]["b"]
    np.testing.assert_allclose(module.apply({"params": p}, x), want, atol=1e-5)


def test_heads():
    assert [heads(c, 64, "") for c in (64, 96, 128, 576)] == [1, 1, 2, 9]
    with pytest.raises(ValueError, match="attention in here: 32 channels cannot be split into"):
        heads(32, 64, "here")
    with pytest.raises(ValueError, match="choose one that divides the width"):
        heads(224, 64, "here")

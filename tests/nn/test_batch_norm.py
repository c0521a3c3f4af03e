"""Batch normalisation: moments of the global batch, kept moments, conditions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params
from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.nn.batch_norm import BatchNorm, ConditionalBatchNorm

LAYER = BatchNorm(eps=1e-3, momentum=0.25)
P = {"w": jnp.array([1.0, 2, 3]), "b": jnp.array([0.0, 1, -1])}
P |= {"mean": jnp.array([0.5, 0, 0]), "var": jnp.array([1.0, 2, 4])}


@jax.jit
def run(p, x):
    """Training: result, new moments and a gradient; and the result by the kept moments."""
    train = lambda x: LAYER.apply({"params": p}, x, mutable=["tracked"])
    (out, new), back = jax.vjp(train, x)
    ones = jax.tree.map(jnp.ones_like, new)
    return out, new["tracked"], back((out**2, ones))[0], LAYER.apply({"params": p}, x)


@pytest.fixture(scope="module")
def x():
    return 3 + 2 * jax.random.normal(jax.random.key(0), (8, 4, 4, 3))


def test_moments_of_the_batch_and_kept_ones(x):
    out, new, _, kept = run(P, x)
    flat = np.asarray(x, np.float64).reshape(-1, 3)
    std = np.sqrt(flat.var(0) + 1e-3)
    want = P["w"] * (x - flat.mean(0)) / std + P["b"]
    np.testing.assert_allclose(out, want, atol=1e-4)
    np.testing.assert_allclose(new["mean"], 0.75 * P["mean"] + 0.25 * flat.mean(0), rtol=1e-5)
    np.testing.assert_allclose(new["var"], 0.75 * P["var"] + 0.25 * flat.var(0, ddof=1), rtol=1e-5)
    want = P["w"] * (x - P["mean"]) / np.sqrt(P["var"] + 1e-3) + P["b"]
    np.testing.assert_allclose(kept, want, atol=1e-4)


def test_eight_devices_are_one(x):
    """Moments, and gradients through them, are those of the whole batch: one image a device."""
    sharded = run(P, jax.device_put(x, batch_sharding(make_mesh(data=-1))))
    assert len(sharded[0].sharding.device_set) == 8
    for got, want in zip(jax.tree.leaves(sharded), jax.tree.leaves(run(P, x))):
        np.testing.assert_allclose(got, want, atol=2e-5)


def test_the_gradient_sees_neither_mean_nor_scale(x):
    """Adding to all of a channel, or scaling it about its mean, changes nothing (eps apart)."""
    layer = BatchNorm(eps=0.0)
    train = lambda x: layer.apply({"params": P}, x, mutable=["tracked"])[0]
    loss = lambda x: jnp.sin(train(x)).sum()
    g = jax.jit(jax.grad(loss))(x)
    assert float(jnp.abs(g).max()) > 0.01
    np.testing.assert_allclose(g.sum((0, 1, 2)), 0, atol=1e-4)
    centred = x - x.mean((0, 1, 2))
    np.testing.assert_allclose((g * centred).sum((0, 1, 2)), 0, atol=1e-3)


def test_conditions_give_gain_and_shift(x):
    layer, y = ConditionalBatchNorm(eps=1e-3), jax.nn.one_hot(jnp.arange(8) % 2, 2)
    p = params.init(layer, jax.random.key(0), x, y)
    assert set(p) == {"gain", "shift", "mean", "var"} and p["gain"]["w"].shape == (2, 3)
    gain, shift = np.float32([[1, 0, 2], [0, 3, -1]]), np.float32([[0, 1, 2], [5, 6, 7]])
    p |= {"gain": {"w": gain}, "shift": {"w": shift}}
    got = jax.jit(lambda p: layer.apply({"params": p}, x, y))(p)
    label = np.arange(8) % 2
    want = (1 + gain[label])[:, None, None] * x / np.sqrt(1.001) + shift[label][:, None, None]
    np.testing.assert_allclose(got, want, atol=1e-4)


def test_one_value_has_no_variance():
    with pytest.raises(ValueError, match=r"more than one value a channel, got \(1, 1, 1, 3\)"):
        LAYER.apply({"params": P}, jnp.ones((1, 1, 1, 3)), mutable=["tracked"])

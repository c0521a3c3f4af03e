"""Layers: initial statistics, learning-rate multipliers, minibatch standard deviation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params
from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.nn import layers
from jaxgen.nn.minibatch_std import minibatch_std


def _std(module, shape):
    x = jax.random.normal(jax.random.key(1), shape)
    return float(module.apply({"params": params.init(module, jax.random.key(0), x)}, x).std())


def test_initial_output_scales():
    assert abs(_std(layers.Dense(256), (64, 128)) - 1) < 0.05
    assert abs(_std(layers.EqualizedDense(256), (64, 128)) - 1) < 0.05
    assert abs(_std(layers.EqualizedDense(256, lr_multiplier=0.01), (64, 128)) - 1) < 0.05
    # he_normal keeps the second moment through a ReLU: gain 2; zero padding takes a little.
    assert abs(_std(layers.Conv(64, w_init=params.he_normal(1.0)), (4, 16, 16, 32)) - 1) < 0.08
    assert abs(_std(layers.EqualizedConv(64), (4, 16, 16, 32)) - 1) < 0.08


def test_lr_multiplier_scales_the_step_of_the_effective_weight():
    """An Adam step has size lr in stored units: the output moves m times as far as with m = 1."""

    def moved(m):
        layer = layers.EqualizedDense(4, lr_multiplier=m, bias_init=1.0)
        x = jnp.ones((1, 16))
        p = params.init(layer, jax.random.key(0), x)
        y = layer.apply({"params": p}, x)
        q = jax.tree.map(lambda a: a + 1e-2, p)
        return y, layer.apply({"params": q}, x) - y

    (y1, d1), (y2, d2) = moved(1.0), moved(0.01)
    np.testing.assert_allclose(y1, y2, rtol=1e-5)
    np.testing.assert_allclose(d1, 100 * d2, rtol=1e-2)


def test_parameters_are_float32_and_outputs_have_the_compute_dtype():
    for layer in (
        layers.Dense(4),
        layers.EqualizedDense(4),
        layers.Conv(4),
        layers.EqualizedConv(4),
    ):
        layer = layer.clone(dtype=jnp.bfloat16)
        x = jnp.ones((2, 8, 8, 3))
        p = params.init(layer, jax.random.key(0), x)
        assert {a.dtype for a in jax.tree.leaves(p)} == {jnp.dtype("float32")}
        assert layer.apply({"params": p}, x).dtype == jnp.bfloat16


def test_lrelu_keeps_the_second_moment_nearly():
    x = jax.random.normal(jax.random.key(0), (10000,))
    np.testing.assert_allclose(jnp.mean(layers.lrelu(x) ** 2), 1.04, atol=0.05)
    np.testing.assert_allclose(layers.lrelu(jnp.array([-1.0, 2.0])), [-0.2 * 2**0.5, 2 * 2**0.5])


def test_minibatch_std_groups_are_strided():
    """Eight images, groups of four: images 0, 2, 4, 6 vary, images 1, 3, 5, 7 are equal."""
    values = jnp.array([0.0, 5, 2, 5, 4, 5, 6, 5])
    y = minibatch_std(jnp.broadcast_to(values[:, None, None, None], (8, 2, 2, 3)), 4)
    assert y.shape == (8, 2, 2, 4)
    np.testing.assert_allclose(y[::2, ..., -1], np.std([0, 2, 4, 6]), rtol=1e-5)
    np.testing.assert_allclose(y[1::2, ..., -1], 0, atol=2e-4)


def test_minibatch_std_is_that_of_the_global_batch():
    x = jax.random.normal(jax.random.key(0), (16, 4, 4, 6))
    f = lambda x: minibatch_std(x, 4, 2)
    mesh = make_mesh(data=-1)
    sharded = jax.jit(f)(jax.device_put(x, batch_sharding(mesh)))
    np.testing.assert_allclose(f(x), sharded, atol=1e-6)


def test_minibatch_std_errors():
    with pytest.raises(ValueError, match="multiple of group_size, got 6 and 4"):
        minibatch_std(jnp.zeros((6, 2, 2, 3)), 4)
    with pytest.raises(ValueError, match="must divide 3, got 2"):
        minibatch_std(jnp.zeros((4, 2, 2, 3)), 4, 2)


def test_layers_work_within_named_modules():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = layers.EqualizedConv(4, down=True, name="down")(x)
            return layers.Dense(2, name="out")(x.mean((1, 2)))

    p = params.init(Net(), jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    assert jax.tree.map(jnp.shape, p) == {
        "down": {"w": (3, 3, 1, 4), "b": (4,)},
        "out": {"w": (4, 2), "b": (2,)},
    }


def test_uniform_starts():
    """Xavier: variance gain^2 2 / (fan_in + fan_out); fan-in: 1 / (3 fan_in), biases too."""
    key, shape = jax.random.key(0), (3, 3, 40, 60)
    for start, variance in (
        (layers.xavier_uniform(0.5), 0.25 * 2 / (9 * 100)),
        (layers.fan_in_uniform, 1 / (3 * 9 * 40)),
    ):
        w = start(key, shape)
        assert w.shape == shape and abs(float(w.var()) / variance - 1) < 0.05
        assert float(jnp.abs(w).max()) <= (3 * variance) ** 0.5
    start = layers.Start(layers.fan_in_uniform, layers.xavier_uniform(), params.zeros, True)
    p = params.init(start.dense(500, name="x"), key, jnp.ones((1, 16)))
    assert abs(float(p["b"].std()) - (3 * 16) ** -0.5) < 0.02
    p = params.init(start.conv(5, "last", name="x"), key, jnp.ones((1, 4, 4, 3)))
    assert not any(jnp.any(x) for x in jax.tree.leaves(p))


def test_gain_multiplies_the_result():
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 3))
    for layer in (layers.Dense(5), layers.Conv(5)):
        p = params.init(layer, jax.random.key(1), x)
        p["b"] = jnp.arange(5.0)
        twice = layer.clone(gain=2.0).apply({"params": p}, x)
        np.testing.assert_allclose(twice, 2 * layer.apply({"params": p}, x), atol=1e-5)

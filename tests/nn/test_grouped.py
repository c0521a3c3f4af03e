"""Grouped convolutions: against one dense kernel, with derivatives of two orders."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.nn.convolution import conv
from jaxgen.nn.grouped import GroupedConv, by_groups, grouped_conv, whole

GROUPS = 3


def dense(x, w):
    """One ordinary convolution whose kernel is zero between groups."""
    k, _, i, o = w.shape
    full = jnp.eye(GROUPS)[:, None, :, None] * w.reshape(k, k, 1, i, GROUPS, o // GROUPS)
    return conv(x, full.reshape(k, k, i * GROUPS, o))


def test_values_and_derivatives_of_two_orders():
    numbers = np.random.default_rng(0)
    draw = lambda *s: jnp.asarray(numbers.standard_normal(s), jnp.float32)
    x, w, y = draw(2, 5, 4, 6), draw(3, 3, 2, 12), draw(2, 5, 4, 12)

    @jax.jit
    def run(x, w, y):
        def of(conv):
            loss = lambda x, w: jnp.square(jnp.tanh(0.3 * conv(x, w)) - y).sum()
            slope = lambda x, w: sum(jnp.square(g).sum() for g in jax.grad(loss, (0, 1))(x, w))
            return conv(x, w), jax.grad(loss, (0, 1))(x, w), jax.grad(slope, (0, 1))(x, w)

        return of(grouped_conv), of(dense), whole(x, y, 3, GROUPS), by_groups(x, y, 3, GROUPS)

    ours, plain, a, b = run(x, w, y)
    for got, want in zip(jax.tree.leaves(ours), jax.tree.leaves(plain)):
        np.testing.assert_allclose(got, want, atol=1e-5 * float(jnp.abs(want).max()))
    np.testing.assert_allclose(a, b, atol=1e-5)


def test_a_sharded_batch_stays_so():
    """One image a device: no activation is gathered, and the derivatives are those of the batch."""
    numbers = np.random.default_rng(0)
    x, w = np.float32(numbers.standard_normal((8, 4, 4, 6))), np.ones((3, 3, 2, 6), np.float32)
    slope = lambda x, w: jax.grad(lambda x: jnp.sin(grouped_conv(x, w)).sum())(x)
    run = jax.jit(jax.value_and_grad(lambda x, w: jnp.square(slope(x, w)).sum(), (0, 1)))
    sharded = jax.device_put(x, batch_sharding(make_mesh(data=-1)))
    assert "all-gather" not in run.lower(sharded, w).compile().as_text()
    for got, want in zip(jax.tree.leaves(run(sharded, w)), jax.tree.leaves(run(x, w))):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4 * float(jnp.abs(want).max()))


def test_the_layer():
    layer, zero = GroupedConv(6, GROUPS), np.zeros((1, 4, 4, 6), np.float32)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), zero))["params"]
    assert shapes["w"].shape == (3, 3, 2, 6)
    p = {"w": jnp.ones((3, 3, 2, 6)), "b": jnp.arange(6.0)}
    run = jax.jit(lambda x: layer.apply({"params": p}, x))
    np.testing.assert_array_equal(run(zero), np.broadcast_to(np.arange(6), zero.shape))
    zero[..., 0] = 1
    moved = run(zero) - np.arange(6)
    assert not moved[..., 2:].any() and moved[..., :2].all()  # channel 0 is seen by its group only


@pytest.mark.parametrize("features, groups, kernel", [(6, 4, 3), (4, 3, 3), (6, 3, 2)])
def test_groups_that_do_not_divide(features, groups, kernel):
    layer = GroupedConv(features, groups, kernel)
    with pytest.raises(ValueError, match=rf"odd kernel and groups .* got kernel {kernel} and"):
        jax.eval_shape(lambda: layer.init(jax.random.key(0), jnp.zeros((1, 4, 4, 6))))

"""FLOPs of traced programs against closed forms."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen.nn import convolution
from jaxgen.planning import flops as counting


def flops(f, *shapes):
    return counting.matmul_flops(jax.make_jaxpr(f)(*map(jnp.zeros, shapes)).jaxpr)


def conv(x, w, stride=1):
    names = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, w, (stride, stride), "SAME", dimension_numbers=names)


def test_products_and_loops():
    one = 2 * 3 * 4 * 5
    assert flops(jnp.matmul, (3, 4), (4, 5)) == one
    assert flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), (7, 3, 4), (7, 4, 5)) == 7 * one

    def loop(x, w):
        return jax.lax.scan(lambda x, _: (jnp.tanh(x @ w), None), x, None, length=6)[0]

    assert flops(jax.jit(loop), (3, 4), (4, 4)) == 6 * 2 * 3 * 4 * 4
    assert flops(jax.grad(lambda w: (jnp.ones((3, 4)) @ w).sum()), (4, 5)) == 2 * one  # y and dw
    either = lambda x, w: jax.lax.cond(x.sum() > 0, lambda: x @ w, lambda: x)
    assert flops(either, (3, 4), (4, 4)) == 2 * 3 * 4 * 4


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("conv", [conv, convolution.conv])
def test_a_convolution_and_its_two_gradients_are_equal(conv, stride):
    x, w, n = (2, 8, 8, 3), (3, 3, 3, 5), 2 * 2 * (8 // stride) ** 2 * 5 * 3 * 3 * 3
    assert flops(lambda x, w: conv(x, w, stride), x, w) == n
    both = jax.grad(lambda x, w: (conv(x, w, stride) ** 2).sum(), argnums=(0, 1))
    assert flops(both, x, w) == 3 * n


def chain(x, w, remat=False):
    """Two layers, each of them computed again in the backward pass if asked to."""
    layer = lambda x, w: jnp.tanh(x @ w)
    layer = jax.checkpoint(layer) if remat else layer
    return layer(layer(x, w), w).sum()


def test_remat_counts_again():
    one = 2 * 3 * 4 * 4
    grad = lambda remat: lambda x, w: jax.grad(chain, 1)(x, w, remat)
    assert flops(grad(False), (3, 4), (4, 4)) == (2 + 2 + 1) * one  # no gradient of the first x
    assert flops(grad(True), (3, 4), (4, 4)) == (2 + 2 + 2 + 1) * one


def test_dtypes_are_apart():
    def both(a, b):
        return a @ b + (a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)).astype(jnp.float32)

    jaxpr = jax.make_jaxpr(both)(jnp.zeros((3, 4)), jnp.zeros((4, 5))).jaxpr
    assert counting.products(jaxpr) == {"float32": 120.0, "bfloat16": 120.0}


def test_a_while_loop_counts_once_and_is_named():
    def loop(x, w):
        with jax.named_scope("solver"):
            return jax.lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ w, x)

    jaxpr = jax.make_jaxpr(loop)(jnp.zeros((3, 4)), jnp.zeros((4, 4))).jaxpr
    assert counting.matmul_flops(jaxpr) == 2 * 3 * 4 * 4
    assert counting.unbounded(jaxpr) == ["solver"]
    plain = jax.make_jaxpr(lambda x, w: x @ w)(jnp.zeros((3, 4)), jnp.zeros((4, 4))).jaxpr
    assert counting.unbounded(plain) == []

"""Convolution: all its derivatives, to the second order, are those of XLA's convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import mesh as meshes
from jaxgen.nn.convolution import NHWC, conv


@pytest.mark.parametrize(
    "shape, kernel, stride, padding",
    [
        ((6, 9), 3, 1, "SAME"),
        ((9, 6), 3, 2, "VALID"),
        ((8, 8), 2, 1, "VALID"),
        ((3, 12), 3, 2, ((0, 2), (1, 0))),
    ],
)
def test_every_derivative_is_that_of_the_plain_convolution(shape, kernel, stride, padding):
    """Backward, forward, backward twice as in R1, forward over backward, of each of a batch."""
    x = jax.random.normal(jax.random.key(0), (2, *shape, 3))
    w = jax.random.normal(jax.random.key(1), (kernel, kernel, 3, 4))

    def derivatives(conv):
        y, dy = jax.jvp(conv, (x, w), (0.3 * x, jnp.sin(w)))
        _, back = jax.vjp(conv, x, w)
        found = [y, dy, *back(jnp.cos(y))]
        for wrt in (0, 1):
            gradient = jax.grad(lambda x, w: jnp.sum(jnp.tanh(conv(x, w))), wrt)
            slope = lambda x, w, gradient=gradient: jnp.sum(gradient(x, w) ** 2)
            found += [*jax.grad(slope, (0, 1))(x, w), jax.jvp(slope, (x, w), (x, jnp.sin(w)))[1]]
        each = jax.vmap(lambda x, w: conv(x[None], w), (0, None))
        return [*found, each(x, w), jax.grad(lambda w: jnp.sum(each(x, w) ** 2))(w)]

    plain = lambda x, w: jax.lax.conv_general_dilated(
        x, w, (stride, stride), padding, dimension_numbers=NHWC
    )
    ours = jax.jit(lambda: derivatives(lambda x, w: conv(x, w, stride, padding)))()
    for a, b in zip(ours, jax.jit(lambda: derivatives(plain))(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


def test_half_precision_keeps_its_type():
    x, w = jnp.ones((1, 4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 2))
    y, back = jax.vjp(lambda x, w: conv(x, w), x, w)
    grads = back(y)
    assert (y.dtype, grads[0].dtype, grads[1].dtype) == (jnp.bfloat16, jnp.bfloat16, jnp.float32)


def test_a_sharded_batch_stays_where_it_is():
    mesh = meshes.make_mesh(devices=jax.devices())
    x = jax.device_put(jnp.ones((8, 8, 8, 4)), meshes.batch_sharding(mesh))
    w = jax.device_put(jnp.ones((3, 3, 4, 4)), meshes.replicated(mesh))
    run = jax.jit(jax.grad(lambda w, x: jnp.sum(conv(x, w, 2) ** 2)))
    assert "all-gather" not in run.lower(w, x).compile().as_text()

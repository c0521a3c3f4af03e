"""Self-attention of SAGAN: each pixel adds what it finds at others (arXiv:1805.08318, Eq. 1-3).

    y = x + gamma W_o sum_i softmax_i(theta(x)_j . phi(x)_i) g(x)_i,    gamma = 0 at first

theta, phi, g and W_o are 1x1 convolutions without bias. Products are not divided by the root of
their length. In BigGAN's form phi and g are max-pooled to half the size, which makes it 4 times
cheaper.
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.common.mesh import whole_rows
from jaxgen.common.params import param, zeros
from jaxgen.nn.layers import Dense


def max_pool2(x: jax.Array) -> jax.Array:
    """The largest of every 2x2 pixels: (b, h, w, c) -> (b, h/2, w/2, c).

    Written out: the gradients of reductions and windows take several times longer on a CPU.
    """
    b, h, w, c = x.shape
    x = x.reshape(b, h // 2, 2, w // 2, 2, c)
    upper = jnp.maximum(x[:, :, 0, :, 0], x[:, :, 0, :, 1])
    return jnp.maximum(upper, jnp.maximum(x[:, :, 1, :, 0], x[:, :, 1, :, 1]))


class SaganAttention(nn.Module):
    """Self-attention over the pixels of (b, h, w, c).

    Args:
      dense: makes the linear maps, of `features`, `use_bias=False` and `name`. values: g has
        c / values channels; theta and phi have c / 8. pool: BigGAN's form; even sizes only.
    """

    dense: Callable[..., nn.Module] = Dense
    values: int = 2
    pool: bool = True

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, h, w, c = x.shape
        if c < 8:
            raise ValueError(f"attention needs 8 channels or more, got {c}; place it elsewhere")
        widths = {"theta": c // 8, "phi": c // 8, "g": c // self.values}
        theta, phi, g = (self.dense(n, use_bias=False, name=k)(x) for k, n in widths.items())
        if self.pool:
            phi, g = max_pool2(phi), max_pool2(g)
        theta, phi, g = (t.reshape(b, -1, t.shape[-1]) for t in (theta, phi, g))
        scores = jnp.einsum("bjc,bic->bji", theta, phi).astype(jnp.float32)
        y = jnp.einsum("bji,bic->bjc", jax.nn.softmax(scores).astype(g.dtype), g)
        y = whole_rows(self.dense(c, use_bias=False, name="out")(y.reshape(b, h, w, -1)))
        return x + param(self, "gamma", zeros, ()).astype(x.dtype) * y

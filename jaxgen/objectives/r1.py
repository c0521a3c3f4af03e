"""R1: a zero-centred gradient penalty on real images (arXiv:1801.04406, Eq. 9).

R1 = gamma / 2 |grad_x D(x)|^2
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def penalty(
    discriminate: Callable[[jax.Array], jax.Array], x: jax.Array, gamma: float = 10.0
) -> jax.Array:
    """The penalty of each image (b,): the sum (not mean) over pixels and channels.

    Args:
      discriminate: images (b, ...) -> logits (b,). Where it couples images (minibatch standard
        deviation), the gradient is that of the batch's summed logits, as is customary.
      x: real images (b, ...). gamma: weight; a lazy phase multiplies the result by its interval.
    """
    g = jax.grad(lambda x: discriminate(x).sum())(x)
    return 0.5 * gamma * jnp.square(g).sum(tuple(range(1, x.ndim)))

"""R1 and R2: zero-centred gradient penalties on real, on fake images (arXiv:1801.04406, Eq. 9).

    R1 = gamma / 2 |grad_x D(x)|^2 for real x,    R2 the same for generated ones

Without one of them the training of a GAN need not converge, even close to its solution.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Discriminate = Callable[[jax.Array], jax.Array]


def penalty(discriminate: Discriminate, x: jax.Array, gamma: float | jax.Array = 10.0) -> jax.Array:
    """The penalty of each image (b,): the sum (not mean) over pixels and channels.

    Args:
      discriminate: images (b, ...) -> logits (b,). Where it couples images (minibatch standard
        deviation), the gradient is that of the batch's summed logits, as is customary. Where it
        augments them, the gradient goes through the augmentation to the image before it.
      x: images (b, ...), real ones for R1 and generated ones for R2. gamma: weight, a number or a
        traced scalar; a lazy phase multiplies the result by its interval.
    """
    return 0.5 * gamma * square_gradient(discriminate, x)


def square_gradient(discriminate: Discriminate, x: jax.Array) -> jax.Array:
    """|grad_x D(x)|^2 of each image (b,), in float32."""
    g = jax.grad(lambda x: discriminate(x).sum())(x).astype(jnp.float32)
    return jnp.square(g).sum(tuple(range(1, x.ndim)))


def auto_gamma(resolution: int, batch: int) -> float:
    """ADA's rule of thumb for gamma (arXiv:2006.06676, App. C): 0.0002 resolution^2 / batch."""
    return 0.0002 * resolution**2 / batch

"""Gradient penalty of WGAN-GP: slope 1 between real and generated images (arXiv:1704.00028, Eq. 3).

    L = lambda (|grad D(x_hat)| - 1)^2,   x_hat = epsilon x + (1 - epsilon) G(z),  epsilon ~ U(0, 1)

The best critic has slope 1 almost everywhere on the lines between coupled pairs. Centred on 0 the
penalty is `r1.penalty` of `interpolates`.
"""

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.objectives import r1


def interpolates(keys: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """x_hat (b, ...) for keys (b,): one point an image on the line from fake to real (b, ...)."""
    return interpolates_at(rng.uniform(keys), real, fake)


def interpolates_at(epsilon: jax.Array, real: jax.Array, fake: jax.Array) -> jax.Array:
    """`interpolates` for given epsilon (b,) in [0, 1], the share of the real image."""
    epsilon = epsilon.reshape(-1, *(1,) * (real.ndim - 1))
    return epsilon * real + (1 - epsilon) * fake


def penalty(
    discriminate: r1.Discriminate, x_hat: jax.Array, weight: float | jax.Array = 10.0
) -> jax.Array:
    """The penalty of each image (b,).

    Args:
      discriminate: images (b, ...) -> logits (b,), each of its own image: no batch statistics.
      x_hat: see `interpolates`. weight: lambda of the paper.
    Returns:
      (b,), with gradient 0 and not NaN where D is flat.
    """
    square = r1.square_gradient(discriminate, x_hat)
    flat = square == 0
    slope = jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, square)))
    return weight * jnp.square(slope - 1)

"""Lipschitz penalty of WGAN-LP: slopes of at most 1 are let alone (arXiv:1709.08894).

    L = lambda max(0, |grad D(x_hat)| - 1)^2

The best critic is 1-Lipschitz, but its slope need not be 1 as `gradient_penalty` has it.
"""

import jax
import jax.numpy as jnp

from jaxgen.objectives import r1


def penalty(
    discriminate: r1.Discriminate, x_hat: jax.Array, weight: float | jax.Array = 10.0
) -> jax.Array:
    """The penalty of each image (b,); arguments as those of `gradient_penalty.penalty`."""
    square = r1.square_gradient(discriminate, x_hat)
    steep = square > 1
    slope = jnp.sqrt(jnp.where(steep, square, 1.0))
    return weight * jnp.square(slope - 1)

"""Minimax GAN losses: one game of two players that sums to zero (arXiv:1406.2661, Eq. 1).

    L_D = softplus(D(G(z))) + softplus(-D(x)),    L_G = -softplus(D(G(z)))

Against the best discriminator the generator minimises the Jensen-Shannon divergence. Its gradient
vanishes where the discriminator is sure, D(G(z)) << 0; `nonsaturating` is the cure.
"""

import jax

from jaxgen.objectives.nonsaturating import discriminator

__all__ = ["discriminator", "generator"]


def generator(fake_logits: jax.Array) -> jax.Array:
    """L_G (b,), negative, of logits of generated images (b,)."""
    return -jax.nn.softplus(fake_logits)

"""Hinge GAN losses: logits past the margin are let alone (arXiv:1705.02894; arXiv:1805.08318).

L_D = max(0, 1 - D(x)) + max(0, 1 + D(G(z))),    L_G = -D(G(z))
"""

import jax


def generator(fake_logits: jax.Array) -> jax.Array:
    """L_G (b,) of logits of generated images (b,)."""
    return -fake_logits


def discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """L_D (b,) of logits of real and of generated images, (b,) each."""
    return jax.nn.relu(1 - real_logits) + jax.nn.relu(1 + fake_logits)

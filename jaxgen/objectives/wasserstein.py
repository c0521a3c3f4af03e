"""Wasserstein GAN: the critic's mean difference is a distance (arXiv:1701.07875, Eq. 2).

    L_D = D(G(z)) - D(x) + epsilon_drift D(x)^2,    L_G = -D(G(z))

for a critic D that is 1-Lipschitz, which `gradient_penalty` sees to. A constant added to D changes
nothing; the drift term of progressive GANs (arXiv:1710.10196, App. A.1: 0.001) keeps it near 0.
"""

import jax
import jax.numpy as jnp


def generator(fake_logits: jax.Array) -> jax.Array:
    """L_G (b,) of logits of generated images (b,)."""
    return -fake_logits


def discriminator(
    real_logits: jax.Array, fake_logits: jax.Array, *, epsilon_drift: float = 0.0
) -> jax.Array:
    """L_D (b,) of logits of real and of generated images, (b,) each; epsilon_drift: see above."""
    return fake_logits - real_logits + epsilon_drift * jnp.square(real_logits)

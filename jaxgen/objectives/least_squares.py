"""Least squares GAN: logits are regressed to labels of real and fake (arXiv:1611.04076, Eq. 2).

    L_D = ((D(x) - b)^2 + (D(G(z)) - a)^2) / 2,    L_G = (D(G(z)) - c)^2 / 2

a = 0, b = c = 1 are the paper's labels (Eq. 9); a = -1, b = 1, c = 0 make L_G the Pearson chi^2
divergence of p_data + p_G from 2 p_G (Eq. 8). The best discriminator is (b p_data + a p_G) /
(p_data + p_G).
"""

import jax
import jax.numpy as jnp


def generator(fake_logits: jax.Array, *, c: float = 1.0) -> jax.Array:
    """L_G (b,) of logits of generated images (b,); c: what they should be taken for."""
    return 0.5 * jnp.square(fake_logits - c)


def discriminator(
    real_logits: jax.Array, fake_logits: jax.Array, *, a: float = 0.0, b: float = 1.0
) -> jax.Array:
    """L_D (b,) of logits of real and of generated images, (b,) each; a, b: labels of fake, real."""
    return 0.5 * (jnp.square(real_logits - b) + jnp.square(fake_logits - a))

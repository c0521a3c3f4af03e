"""Non-saturating GAN losses: logistic, the generator's sign flipped (arXiv:1406.2661, sec. 3).

    L_D = softplus(D(G(z))) + softplus(-D(x)),    L_G = softplus(-D(G(z)))

The optimal discriminator is D = log(p_data / p_G); p_G = p_data gives D = 0, L_D = 2 log 2,
L_G = log 2.
"""

import jax


def generator(fake_logits: jax.Array) -> jax.Array:
    """L_G (b,) of logits of generated images (b,)."""
    return jax.nn.softplus(-fake_logits)


def discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """L_D (b,) of logits of real and of generated images, (b,) each."""
    return jax.nn.softplus(fake_logits) + jax.nn.softplus(-real_logits)

"""Relativistic GANs: logits of real and fake are compared (arXiv:1807.00734; arXiv:2501.05441).

Pairing (RpGAN): logits are compared image by image, whose pairs share their label,

    L_D = softplus(-(D(x) - D(G(z)))),    L_G = softplus(-(D(G(z)) - D(x))).

Every real image pulls the boundary, so no mode of the data may be left behind it: unlike in the
plain game, gradient descent does not meet bad local minima (arXiv:2011.04926). With R1 and R2
(`r1`) it is the loss of R3GAN.
"""

import jax


def generator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """L_G (b,) of logits of real and of generated images, (b,) each.

    The real logits carry no gradient to the generator, but say where on the curve it is.
    """
    return jax.nn.softplus(real_logits - fake_logits)


def discriminator(real_logits: jax.Array, fake_logits: jax.Array) -> jax.Array:
    """L_D (b,) of logits of real and of generated images, (b,) each."""
    return jax.nn.softplus(fake_logits - real_logits)


def averaged(real_logits: jax.Array, fake_logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both logits (b,) relative to the other side's mean: RaGAN (arXiv:1807.00734).

    Any loss of a discriminator applies to them, and with the sides exchanged it is the generator's:
    hinge.discriminator(*averaged(real, fake)), hinge.discriminator(*averaged(fake, real)).
    """
    return real_logits - fake_logits.mean(), fake_logits - real_logits.mean()

"""LeCam regularisation: logits stay near the other side's average (arXiv:2104.03310).

    R = relu(D(x) - a_fake)^2 + relu(a_real - D(G(z)))^2

with running means a of the logits: where data are few, a discriminator learns them by heart and the
gap between the sides grows without end. The paper's theorem has the squares without relu.
"""

import jax
import jax.numpy as jnp


def penalty(
    real_logits: jax.Array, fake_logits: jax.Array, a_real: jax.Array, a_fake: jax.Array
) -> jax.Array:
    """R (b,), to be weighted, of logits of real and of generated images, (b,) each.

    Args:
      a_real, a_fake: () of `track`, constants to the gradient.
    """
    a_real, a_fake = jax.lax.stop_gradient((a_real, a_fake))
    of_real, of_fake = real_logits - a_fake, a_real - fake_logits
    return jnp.square(jax.nn.relu(of_real)) + jnp.square(jax.nn.relu(of_fake))


def track(a: jax.Array, logits: jax.Array, decay: float = 0.99) -> jax.Array:
    """The running mean () after a batch of logits (b,)."""
    return decay * a + (1 - decay) * logits.mean()

"""Projection: a discriminator's logit is a product with its class vector (arXiv:1802.05637).

logit = psi . phi(x) + b + V[y] . phi(x), phi(x) the sum over pixels of relu(features).
"""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nn.layers import Dense


class ProjectionHead(nn.Module):
    """Features (b, h, w, c) and label (b, k) or None -> logits (b,), float32.

    Args:
      dense: makes the linear maps, of `features` and `name`, that of V also of `use_bias=False`.
    """

    dense: Callable[..., nn.Module] = Dense

    @nn.compact
    def __call__(self, x: jax.Array, label: jax.Array | None) -> jax.Array:
        phi = jax.nn.relu(x.astype(jnp.float32)).sum((1, 2))
        logits = self.dense(1, name="out")(phi)[:, 0]
        if label is None:
            return logits
        embedded = self.dense(phi.shape[-1], use_bias=False, name="embed")(label)
        return logits + (embedded * phi).sum(-1)

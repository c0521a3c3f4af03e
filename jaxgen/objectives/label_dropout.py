"""Label dropout: one network learns with and without labels, to guide itself (arXiv:2207.12598)."""

import jax
import jax.numpy as jnp

from jaxgen.common import rng


def drop(keys: jax.Array, label: jax.Array, p: float) -> jax.Array:
    """Each row of label (b, k) replaced by zeros, which mean "no label", with probability p.

    Args:
      keys: (b,) typed keys. label: one-hot or vectors. p: p_uncond of Alg. 1, 0.1 or 0.2.
    Returns:
      (b, k), row i depending on keys[i] and label[i] only.
    """
    return jnp.where((rng.uniform(keys) < p)[:, None], 0, label)

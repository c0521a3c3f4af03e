"""Dropout that draws 16 random bits an element instead of 64 (arXiv:1207.0580).

On a CPU random bits cost more than what they switch off.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp


def dropout(module: nn.Module, x: jax.Array, rate: float, train: bool) -> jax.Array:
    """Training: elements of x become 0 with probability `rate`, the others x / (1 - rate).

    The rate is rounded to a multiple of 2^-16. The rng is the module's stream "dropout".
    """
    threshold = round(rate * 2**16)
    if not (threshold and train):
        return x
    n = x.shape[-1]
    words = jax.random.bits(module.make_rng("dropout"), (*x.shape[:-1], -(-n // 2)), jnp.uint32)
    draws = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(*x.shape[:-1], -1)[..., :n]
    scale = 1 / (1 - threshold / 2**16)
    return jnp.where(draws >= threshold, x * jnp.asarray(scale, x.dtype), 0)

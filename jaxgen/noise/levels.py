"""Noise levels drawn in training: ln sigma ~ N(P_mean, P_std^2) (arXiv:2206.00364, Table 1)."""

import jax
import jax.numpy as jnp


def lognormal(keys: jax.Array, P_mean: float, P_std: float) -> jax.Array:
    """sigma (b,), one an image, from keys (b,). EDM: (-1.2, 1.2); EDM2 latents: (-0.4, 1.0)."""
    z = jax.vmap(jax.random.normal)(keys)
    return jnp.exp(P_mean + P_std * z)


def edm_weight(sigma: jax.Array, sigma_data: float) -> jax.Array:
    """lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2: unit loss at initialisation."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2

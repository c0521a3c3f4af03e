"""Transmission: photon counts behind an object and their logarithm (arXiv:2001.11801, V-A).

Of I_0 photons that enter a ray with line integral p, I ~ Poisson(I_0 exp(-p)) leave it, and the
scan gives p' = -log(I / I_0). With lambda = I_0 exp(-p) photons expected,

    E p' = p + 1 / (2 lambda) + O(lambda^-2) ,   Var p' = 1 / lambda + O(lambda^-2) ,

so the noise is independent from ray to ray and its mean is zero as far as counts are large.
"""

import jax
import jax.numpy as jnp


def counts(keys: jax.Array, p: jax.Array, photons: float) -> jax.Array:
    """Photons I (b, ...) behind line integrals p (b, ...) >= 0, by keys (b,); float32 integers.

    Raises:
      ValueError: when photons, those that enter each ray, are not positive.
    """
    if not photons > 0:
        raise ValueError(f"photons that enter a ray must be > 0, got {photons!r}")
    rate = photons * jnp.exp(-p)
    return jax.vmap(jax.random.poisson)(keys, rate).astype(jnp.float32)


def log_ratio(count: jax.Array, photons: float) -> jax.Array:
    """Line integrals -log(I / I_0); a ray without a photon counts as one with a single photon."""
    return -jnp.log(jnp.maximum(count, 1.0) / photons)


def scan(keys: jax.Array, p: jax.Array, photons: float) -> jax.Array:
    """Noisy line integrals (b, ...) of a scan with `photons` entering each ray."""
    return log_ratio(counts(keys, p, photons), photons)

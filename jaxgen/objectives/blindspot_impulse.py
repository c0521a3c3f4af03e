"""Blind-spot posterior of impulse noise: a pixel is its own or a random colour (arXiv:1901.10277).

Section 3, the last case, with the prior N(mu, Sx) of `blindspot.py`. With probability alpha the
noisy value y is uniform in [0, 1]^c, else it is the clean value x itself. Hence

    E[x | y, surroundings] = (alpha mu + (1 - alpha) g y) / (alpha + (1 - alpha) g),
    g = N(y; mu, Sx)

and the moments of y, of which a Gaussian makes the loss,

    mu_y = alpha / 2 + (1 - alpha) mu ,
    S_y = alpha (1/4 11^T + I / 12) + (1 - alpha) (Sx + mu mu^T) - mu_y mu_y^T ,
    loss = (y - mu_y)^T S_y^-1 (y - mu_y) + log det S_y .

alpha = 0 says that y is exact. Sx is raised by 1e-6 I, determinants to 1e-9.
"""

import math

import jax
import jax.numpy as jnp

from jaxgen.objectives.blindspot import Prior, factor, log_det, whiten

RAISED = 1e-6
LEAST_DET = 1e-9


def _raised(prior: Prior) -> jax.Array:
    sx = prior.covariance
    return sx + RAISED * jnp.eye(sx.shape[-1], dtype=sx.dtype)


def moments(prior: Prior, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
    """mu_y (b, h, w, c) and S_y (b, h, w, c, c) for alpha (b,)."""
    alpha, c = alpha[:, None, None, None], prior.mean.shape[-1]
    outer = lambda v: v[..., :, None] * v[..., None, :]
    mean = 0.5 * alpha + (1.0 - alpha) * prior.mean
    random = 0.25 + jnp.eye(c, dtype=prior.mean.dtype) / 12.0
    a = alpha[..., None]
    second = a * random + (1.0 - a) * (_raised(prior) + outer(prior.mean))
    return mean, second - outer(mean)


def loss(prior: Prior, y: jax.Array, alpha: jax.Array) -> jax.Array:
    """The loss of each pixel, (b, h, w).

    Args:
      prior: of the network. y: noisy images (b, h, w, c) in [0, 1]. alpha: (b,).
    """
    mean, s = moments(prior, alpha)
    rows = factor(s)
    square = jnp.square(whiten(rows, y - mean)).sum(-1)
    return square + jnp.maximum(log_det(rows), math.log(LEAST_DET))


def posterior_mean(prior: Prior, y: jax.Array, alpha: jax.Array) -> jax.Array:
    """E[x | y, surroundings] (b, h, w, c), with the arguments of `loss`."""
    rows, c = factor(_raised(prior)), y.shape[-1]
    square = jnp.square(whiten(rows, y - prior.mean)).sum(-1)
    log_scale = jnp.maximum(log_det(rows), math.log(LEAST_DET)) + c * math.log(2.0 * math.pi)
    log_g = -0.5 * (square + log_scale)[..., None]
    alpha = alpha[:, None, None, None]
    weight = jax.nn.sigmoid(jnp.log1p(-alpha) + log_g - jnp.log(alpha))  # of y; 1 at alpha = 0
    return prior.mean + weight * (y - prior.mean)

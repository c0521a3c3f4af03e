"""Noise levels drawn in training, and weights of the loss at a level (arXiv:2206.00364, Table 1).

`<name>(keys, ...) -> sigma (b,)`, one level an image. The arguments of vp, ve and iddpm are among
those of the preconditioning of that name, and so is the range that the levels come from.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise import iddpm as iddpm_noise
from jaxgen.noise import vp as vp_noise

Draw = Callable[[jax.Array], jax.Array]
Weight = Callable[[jax.Array], jax.Array]


def lognormal(keys: jax.Array, P_mean: float = -1.2, P_std: float = 1.2) -> jax.Array:
    """ln sigma ~ N(P_mean, P_std^2). EDM: (-1.2, 1.2); EDM2 latents: (-0.4, 1.0)."""
    return jnp.exp(P_mean + P_std * rng.normal(keys, ()))


def vp(
    keys: jax.Array,
    beta_d: float = vp_noise.BETA_D,
    beta_min: float = vp_noise.BETA_MIN,
    epsilon_t: float = 1e-5,
) -> jax.Array:
    """sigma(t), t uniform in [epsilon_t, 1]."""
    t = 1 + rng.uniform(keys) * (epsilon_t - 1)
    return vp_noise.sigma(t, beta_d, beta_min)


def ve(keys: jax.Array, sigma_min: float = 0.02, sigma_max: float = 100.0) -> jax.Array:
    """ln sigma uniform between the two ends."""
    return sigma_min * (sigma_max / sigma_min) ** rng.uniform(keys)


def iddpm(keys: jax.Array, C_1: float = 0.001, C_2: float = 0.008, M: int = 1000) -> jax.Array:
    """u_j, j uniform in {0, ..., M - 1}: every level of the table but the last, which is 0."""
    j = jax.vmap(lambda k: jax.random.randint(k, (), 0, M))(keys)
    return jnp.asarray(iddpm_noise.table(M, C_1, C_2), jnp.float32)[j]


def edm_weight(sigma: jax.Array, sigma_data: float = 0.5) -> jax.Array:
    """lambda = (sigma^2 + sigma_data^2) / (sigma sigma_data)^2: unit loss at initialisation."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def noise_weight(sigma: jax.Array) -> jax.Array:
    """lambda = 1 / sigma^2: the error of the noise that VP, VE and iDDPM predict."""
    return 1 / sigma**2


DRAWS: dict[str, Callable[..., jax.Array]] = {f.__name__: f for f in (lognormal, vp, ve, iddpm)}
WEIGHTS: dict[str, Callable[..., jax.Array]] = {"edm": edm_weight, "noise": noise_weight}


def training(
    name: str, weight: str = "edm", sigma_data: float = 0.5, **kwargs: Any
) -> tuple[Draw, Weight]:
    """A distribution and a weight by name: (keys (b,) -> sigma (b,), sigma (b,) -> lambda (b,)).

    Args:
      name: one of `DRAWS`; `kwargs` are its arguments. weight: one of `WEIGHTS`.
      sigma_data: standard deviation of the data, for the weight "edm".
    Raises:
      ValueError: for a name that is unknown.
    """
    for what, table, given in (("training levels", DRAWS, name), ("weight", WEIGHTS, weight)):
        if given not in table:
            raise ValueError(f"unknown {what} {given!r}; known are {', '.join(table)}")
    of = {"sigma_data": sigma_data} if weight == "edm" else {}
    return functools.partial(DRAWS[name], **kwargs), functools.partial(WEIGHTS[weight], **of)

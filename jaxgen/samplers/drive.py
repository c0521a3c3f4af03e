"""The sampling loop: any step over any grid in one `lax.scan` (arXiv:2206.00364, Alg. 1).

Every image has a key of its own, from which its initial noise and any later noise are drawn: image
17 is image 17 whatever the batch, the order and the number of devices.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.noise.precondition import Cond, Denoise
from jaxgen.samplers.steps import Step


def sample(
    step: Step,
    denoise: Denoise,
    keys: jax.Array,
    shape: tuple[int, ...],
    sigmas: np.ndarray,
    cond: Cond = None,
) -> jax.Array:
    """Images (b, *shape) from keys (b,): noise at sigmas[0], then `step` from level to level."""
    start, later = rng.split(keys, 2)
    x = rng.normal(start, shape) * float(sigmas[0])
    return run(step, denoise, x, sigmas, cond, later)


def run(
    step: Step,
    denoise: Denoise,
    x: jax.Array,
    sigmas: np.ndarray,
    cond: Cond = None,
    keys: jax.Array | None = None,
) -> jax.Array:
    """`step` along sigmas (n + 1,) from x at sigmas[0]; keys (b,) for steps that need noise."""
    sigmas = jnp.asarray(sigmas, x.dtype)

    def body(x: jax.Array, levels: tuple[jax.Array, jax.Array, jax.Array]):
        sigma, sigma_next, i = levels
        fresh = None if keys is None else jax.vmap(lambda k: jax.random.fold_in(k, i))(keys)
        return step(denoise, x, sigma, sigma_next, cond, fresh), None

    n = len(sigmas) - 1
    return jax.lax.scan(body, x, (sigmas[:-1], sigmas[1:], jnp.arange(n)))[0]

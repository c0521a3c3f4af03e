"""Steps of the ODE dx/dsigma = (x - D(x; sigma)) / sigma: Euler, Heun (arXiv:2206.00364, Alg. 1).

A step takes x (b, ...) from level `sigma` to `sigma_next`, both () floats, with keys (b,) for those
that add noise. `ORDER` is the order of convergence that the conformance test checks.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.noise.precondition import Cond, Denoise

Step = Callable[[Denoise, jax.Array, jax.Array, jax.Array, Cond, jax.Array], jax.Array]


def slope(denoise: Denoise, x: jax.Array, sigma: jax.Array, cond: Cond) -> jax.Array:
    """dx/dsigma at level sigma > 0."""
    return (x - denoise(x, jnp.broadcast_to(sigma, x.shape[:1]), cond)) / sigma


def euler(
    denoise: Denoise,
    x: jax.Array,
    sigma: jax.Array,
    sigma_next: jax.Array,
    cond: Cond = None,
    keys: jax.Array | None = None,
) -> jax.Array:
    """One evaluation, first order."""
    del keys
    return x + (sigma_next - sigma) * slope(denoise, x, sigma, cond)


def heun(
    denoise: Denoise,
    x: jax.Array,
    sigma: jax.Array,
    sigma_next: jax.Array,
    cond: Cond = None,
    keys: jax.Array | None = None,
) -> jax.Array:
    """Euler, then the mean of both ends' slopes; no correction when the next level is 0."""
    del keys
    h = sigma_next - sigma
    d = slope(denoise, x, sigma, cond)
    y = x + h * d

    def correct(y: jax.Array) -> jax.Array:
        return x + h * (0.5 * d + 0.5 * slope(denoise, y, sigma_next, cond))

    return jax.lax.cond(sigma_next > 0, correct, lambda y: y, y)


ORDER = {"euler": 1, "heun": 2}
STEPS: dict[str, Step] = {"euler": euler, "heun": heun}

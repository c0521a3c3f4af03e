"""Posterior sampling: a measurement steers a denoiser, three ways (arXiv:2209.14687, Eq. 11-16).

Of y = A x0 + sigma n the score of the posterior is grad ln p(x) + grad ln p(y | x), so with a
denoiser D at noise level s

    D'(x; s) = D + s^2 grad_x ln p(y | x),     p(y | x) ~ N(A D, A C A^T + sigma^2 I)
             = D + s^2 J^T A^T (A C A^T + sigma^2 I)^-1 (y - A D),     J = dD / dx

where C stands for the covariance of x0 given x:

    dps       C = 0: as if D were x0, and far too sure of it at high noise levels
    pigdm     C = r^2 I, r^2 = s^2 sigma_data^2 / (s^2 + sigma_data^2): "Pseudoinverse-guided
              diffusion models for inverse problems" (Song et al., ICLR 2023)
    tweedie   C = s^2 J, which is the covariance (arXiv:2310.06721)

The last one is exact for Gaussian data; of other data p(y | x) is no Gaussian. The error of dps in
the simplest case, data N(0, S), A = 1 and samples of the ODE:

    variance S exp(-S / sigma^2) in the place of S / (1 + S / sigma^2).

Algorithm 1 of its paper therefore takes steps of a fixed length zeta', which `zeta` does:

    D' = D + zeta (1 + s^2) J^T A^T (y - A D) / |y - A D|

is that algorithm in steps of the ODE when zeta = 2 zeta' / ln(s_i / s_(i-1)).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.noise import operators
from jaxgen.noise.corruption import Linear
from jaxgen.noise.precondition import Cond, Denoise, expand
from jaxgen.samplers.guidance import Combined

METHODS = ("dps", "pigdm", "tweedie")


def linear(name: str, **settings: Any) -> Linear:
    """The linear operator of a name.

    Raises:
      ValueError: as operators.make; for a corruption that is not linear.
    """
    made = operators.make(name, **settings)
    if not isinstance(made, Linear):
        known = [n for n, cls in operators.NAMES.items() if issubclass(cls, Linear)]
        raise ValueError(
            f"{name!r} is no linear operator, which a measurement needs; there are "
            f"{', '.join(known)}"
        )
    return made


def steer(
    denoise: Denoise,
    operator: Linear,
    y: jax.Array,
    method: str = "pigdm",
    *,
    zeta: float | None = None,
    sigma_data: float = 0.5,
    iterations: int = 10,
) -> Denoise:
    """`denoise` of the images that measurements y tell of; nests with the guidances.

    An evaluation costs one of the denoiser and its gradient; tweedie another gradient an iteration.

    Args:
      denoise: a differentiable denoiser. operator: A and sigma. y: (b, ...), one an image.
      zeta: of dps, which otherwise divides by sigma^2. sigma_data: of pigdm, the standard deviation
        of the data. iterations: of conjugate gradients, in pigdm and tweedie. Where A A^T is a
        multiple of a projection (mask, downsampling by boxes, k-space) pigdm needs two.
    Raises:
      ValueError: unknown method; dps without zeta and without noise; a setting of another method,
        or one that is not positive; when called, measurements of another shape.
    """
    if method not in METHODS:
        raise ValueError(f"unknown steering {method!r}; known are {', '.join(METHODS)}")
    if zeta is not None and method != "dps":
        raise ValueError(f"zeta is a setting of dps, got it for {method!r}")
    if method == "dps" and zeta is None and not operator.sigma:
        raise ValueError(
            "dps divides by sigma^2 of the operator, which is 0: give the measurement noise, or a "
            "zeta, or take pigdm"
        )
    if not (sigma_data > 0 and iterations >= 1 and (zeta is None or zeta > 0)):
        raise ValueError(
            "steering needs positive zeta, sigma_data and iterations, got "
            f"{zeta}, {sigma_data} and {iterations}"
        )

    def rule(parts: tuple, x: jax.Array, sigma: jax.Array, cond: Cond) -> jax.Array:
        D, pull = jax.vjp(lambda x: parts[0](x, sigma, cond), x)
        Ax = operator.forward(D)
        if Ax.shape != y.shape:
            raise ValueError(
                f"measurements of images {x.shape} by {type(operator).__name__} have shape "
                f"{Ax.shape}, got {y.shape}"
            )
        residual, v = y.astype(Ax.dtype) - Ax, expand(sigma.astype(D.dtype) ** 2, D)
        back = lambda r: pull(operator.adjoint(r).astype(D.dtype))[0]
        if method == "dps":
            if zeta is None:
                return D + v / operator.sigma**2 * back(residual)
            length = jnp.sqrt(dot(residual, residual))
            return D + zeta * (1 + v) * back(residual / jnp.maximum(length, 1e-20))

        def variance(r: jax.Array) -> jax.Array:
            if method == "tweedie":
                spread = v * back(r)
            else:
                spread = v * sigma_data**2 / (v + sigma_data**2) * operator.adjoint(r)
            return operator.forward(spread) + operator.sigma**2 * r

        return D + v * back(solve(variance, residual, iterations, operator.sigma**2))

    return Combined(rule, (denoise,))


def dot(a: jax.Array, b: jax.Array) -> jax.Array:
    """Inner products one an image, (b, 1, ..., 1)."""
    return (a * b).sum(tuple(range(1, a.ndim)), keepdims=True)


def solve(product: Callable, b: jax.Array, iterations: int, least: float = 0.0) -> jax.Array:
    """u with product(u) = b, by conjugate gradients for each image by itself.

    Args:
      product: a symmetric, positive (semi-)definite linear map of (b, ...) to itself. A right-hand
        side in the range of a singular one gives the solution of least norm.
      least: its eigenvalues are this or more. An image where they turn out not to be, as J of a
        network may have them, keeps what was found until then.
    """
    tiny = jnp.finfo(b.dtype).tiny

    def step(_: jax.Array, state: tuple) -> tuple:
        u, r, p, rr = state
        q = product(p)
        curvature = dot(p, q)
        on = (rr > stop) & (curvature > 0) & (curvature > 0.99 * least * dot(p, p))
        alpha = jnp.where(on, rr / jnp.maximum(curvature, tiny), 0)
        u, r = u + alpha * p, r - alpha * q
        new = dot(r, r)
        return u, r, jnp.where(on, r + new / jnp.maximum(rr, tiny) * p, p), new

    rr = dot(b, b)
    stop = rr * jnp.finfo(b.dtype).eps ** 2  # past rounding more steps only add noise
    return jax.lax.fori_loop(0, iterations, step, (jnp.zeros_like(b), b, b, rr))[0]

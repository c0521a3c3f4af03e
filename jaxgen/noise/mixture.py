"""Mixture: Gaussians with exact density and denoiser at every level (arXiv:2406.02507, App. C).

    p(x; sigma) = sum_k w_k N(x; mu_k, Sigma_k + sigma^2 I)
    D(x; sigma) = sum_k r_k (mu_k + Sigma_k (Sigma_k + sigma^2 I)^-1 (x - mu_k))

with r_k the posterior of component k given x, so that (D - x) / sigma^2 = grad_x ln p(x; sigma).
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import rng
from jaxgen.noise.precondition import Cond


@dataclasses.dataclass(frozen=True, eq=False)
class Mixture:
    """sum_k w_k N(mu_k, Sigma_k), computed in the type of x, constants in float64.

    Args:
      w: (K,) positive, of sum 1. mu: (K, d). cov: Sigma (K, d, d), positive semi-definite.
    Raises:
      ValueError: shapes that do not fit, weights that are no distribution.
    """

    w: np.ndarray
    mu: np.ndarray
    cov: np.ndarray

    def __post_init__(self):
        K, d = np.shape(self.mu) if np.ndim(self.mu) == 2 else (0, 0)
        shapes = [np.shape(v) for v in (self.w, self.mu, self.cov)]
        if not K or shapes != [(K,), (K, d), (K, d, d)]:
            raise ValueError(f"a mixture has w (K,), mu (K, d) and cov (K, d, d), got {shapes}")
        if np.min(self.w) <= 0 or abs(np.sum(self.w) - 1) > 1e-5:
            raise ValueError(
                f"weights of a mixture are positive and sum to 1, got a sum of {np.sum(self.w)} "
                f"and a least weight of {np.min(self.w)}"
            )

    @functools.cached_property
    def _spectra(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Variances (d K,), directions (d, d K) and means along them (d K,): first axes first."""
        variance, axes = np.linalg.eigh(np.asarray(self.cov, np.float64))
        along = np.einsum("ki,kij->jk", self.mu, axes)
        flat = axes.transpose(1, 2, 0).reshape(len(along), -1)
        return np.maximum(variance, 0).T.ravel(), flat, along.ravel()

    def _terms(self, x: jax.Array, sigma: jax.Array) -> tuple[jax.Array, jax.Array]:
        """ln (w_k N_k) (b, K); residuals along the axes, shrunk to the component (b, d K)."""
        # Wide rows of one axis after the other: twice as fast on CPU as (b, K, d).
        variance, axes, means = (jnp.asarray(v, x.dtype) for v in self._spectra)
        precision = 1 / (variance + sigma.astype(x.dtype)[:, None] ** 2)
        along = jnp.matmul(x, axes, precision="highest") - means
        square = along**2 * precision - jnp.log(precision / (2 * np.pi))
        log = jnp.asarray(np.log(self.w), x.dtype) - 0.5 * sum(jnp.split(square, len(axes), 1))
        return log, along * variance * precision

    def log_density(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        """ln p(x; sigma) (b,) in nats of points x (b, d) blurred by sigma (b,) >= 0."""
        return jax.nn.logsumexp(self._terms(x, sigma)[0], axis=-1)

    def posterior(self, x: jax.Array, sigma: jax.Array) -> jax.Array:
        """r (b, K): how likely each component is to have given x (b, d) at level sigma (b,)."""
        return jax.nn.softmax(self._terms(x, sigma)[0], -1)

    def denoise(self, x: jax.Array, sigma: jax.Array, cond: Cond = None) -> jax.Array:
        """D (b, d) = E[x0 | x] of points x (b, d) at level sigma (b,).

        Raises:
          ValueError: for conditions, which a mixture does not know.
        """
        if cond:
            raise ValueError(f"a mixture knows no conditions, got {sorted(cond)}")
        log, shrunk = self._terms(x, sigma)
        r, cast = jax.nn.softmax(log, -1), lambda v: jnp.asarray(v, x.dtype)
        product = functools.partial(jnp.matmul, precision="highest")
        offset = product(jnp.tile(r, (1, x.shape[1])) * shrunk, cast(self._spectra[1]).T)
        return product(r, cast(self.mu)) + offset

    def sample(self, keys: jax.Array) -> jax.Array:
        """Points (b, d) float32, row i from keys[i] of keys (b,)."""
        pick, noise = rng.split(keys, 2)
        edges = jnp.asarray(np.cumsum(self.w), jnp.float32)
        k = jnp.minimum(jnp.searchsorted(edges, rng.uniform(pick)), len(edges) - 1)
        variance, axes, _ = self._spectra
        roots = (axes * np.sqrt(variance)).reshape(len(axes), len(axes), -1).transpose(2, 0, 1)
        n = rng.normal(noise, self.mu.shape[1:])
        offset = jnp.sum(jnp.asarray(roots, jnp.float32)[k] * n[:, None], -1)
        return jnp.asarray(self.mu, jnp.float32)[k] + offset

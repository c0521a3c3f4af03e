"""Gaussian mixtures whose density, score and denoiser are known exactly at every noise level."""

import jax
import jax.numpy as jnp
import numpy as np


class Mixture:
    """sum_k w_k N(mu_k, Sigma_k), computed in the type of x.

    Args:
      w: (K,), normalised here. mu: (K, D). cov: standard deviations (K,) or covariances (K, D, D).
      classes: (K,) of each component, for denoisers told of a label; None has no classes.
    """

    def __init__(self, w, mu, cov, classes=None):
        w, self.mu, cov = (np.asarray(v, np.float64) for v in (w, mu, cov))
        self.w = w / w.sum()
        if cov.ndim == 1:
            cov = cov[:, None, None] ** 2 * np.eye(self.mu.shape[1])
        self.cov = cov
        self.var, self.axes = np.linalg.eigh(cov)  # (K, D), (K, D, D): columns are directions
        self.member = None if classes is None else np.eye(max(classes) + 1)[classes]

    def _terms(self, x, sigma, label):
        """ln of weighted densities (b, K), shrunk residuals (b, K, D) along the axes."""
        cast = lambda v: jnp.asarray(v, x.dtype)
        v = cast(self.var) + jnp.asarray(sigma, x.dtype)[:, None, None] ** 2
        # Sums of products compile several times faster than einsum, and nothing here is large.
        along = jnp.sum((x[:, None] - cast(self.mu))[..., None] * cast(self.axes), -2)
        log = jnp.log(cast(self.w)) - 0.5 * jnp.sum(along**2 / v + jnp.log(2 * np.pi * v), -1)
        if label is not None:
            log = jnp.where(cast(label) @ cast(self.member.T) > 0, log, -jnp.inf)
        return log, along * cast(self.var) / v

    def log_density(self, x, sigma, label=None):
        """ln p(x; sigma) (b,) of x (b, D), blurred by sigma (b,)."""
        return jax.scipy.special.logsumexp(self._terms(x, sigma, label)[0], axis=-1)

    def score(self, x, sigma, label=None):
        """grad_x ln p(x; sigma), by differentiation: not what the denoiser does."""
        return jax.grad(lambda x: self.log_density(x, sigma, label).sum())(x)

    def denoise(self, x, sigma, cond=None):
        """E[x0 | x] under the label (b, classes) of cond, if any."""
        log, shrunk = self._terms(x, sigma, (cond or {}).get("label"))
        cast = lambda v: jnp.asarray(v, x.dtype)
        mean = cast(self.mu) + jnp.sum(shrunk[:, :, None] * cast(self.axes), -1)
        return jnp.sum(jax.nn.softmax(log, -1)[..., None] * mean, 1)

    def moments(self):
        """Mean (D,) and covariance (D, D) of the data."""
        mean = self.w @ self.mu
        spread = np.einsum("k,ki,kj->ij", self.w, self.mu - mean, self.mu - mean)
        return mean, np.einsum("k,kij->ij", self.w, self.cov) + spread

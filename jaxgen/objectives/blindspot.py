"""Blind-spot posterior: the surroundings predict a pixel, its own value decides (arXiv:1901.10277).

Section 3. A network that does not see the pixel's own noisy value y gives for the clean value x

    p(x | surroundings) = N(mu, Sx),   Sx = A A^T, A upper triangular,

and with independent noise of y around x, of covariance Sn,

    p(y | surroundings) = N(mu, Sx + Sn) ,
    -log p(y | surroundings) = ((y - mu)^T (Sx + Sn)^-1 (y - mu) + log det (Sx + Sn)) / 2 + C ,
    E[x | y, surroundings] = mu + Sx (Sx + Sn)^-1 (y - mu) .

The second line trains the network without a clean image, the third restores with it. The third is
the paper's (Sx^-1 + Sn^-1)^-1 (Sx^-1 mu + Sn^-1 y) without the inverse of a prior that may be
nearly certain.

Values are in [0, 1] here, the paper's unit: sigma grey levels are sigma / 255. Poisson noise is a
Gaussian of variance mu / lambda; for impulse noise see `blindspot_impulse.py`. For one channel the
loss is twice the above, as in the authors' code. Where the parameter of the noise is learned, a
term -0.1 sigma_n decides what part of Sx + Sn is noise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

COVARIANCES = ("full", "diagonal", "none")
LEAST = 1e-3  # of standard deviations of noise, and of means that Poisson noise multiplies
REGULARISER = 0.1


class Prior(NamedTuple):
    """N(mean, A A^T) of each pixel. mean: (b, h, w, c). root: A, (b, h, w, c, c)."""

    mean: jax.Array
    root: jax.Array

    @property
    def covariance(self) -> jax.Array:
        """Sx, (b, h, w, c, c)."""
        return (self.root[..., :, None, :] * self.root[..., None, :, :]).sum(-1)

    @property
    def std(self) -> jax.Array:
        """det(Sx)^(1 / 2c), (b, h, w): the geometric mean of the deviations along its axes."""
        diagonal = jnp.diagonal(self.root, axis1=-2, axis2=-1)
        return jnp.abs(diagonal.prod(-1)) ** (1.0 / diagonal.shape[-1])


def maps(c: int, covariance: str = "full") -> int:
    """Output channels of the network: the mean, and the entries of A that `covariance` keeps.

    Raises:
      ValueError: for another word than "full", "diagonal" or "none".
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance must be one of {COVARIANCES}, got {covariance!r}")
    return c + {"full": c * (c + 1) // 2, "diagonal": c, "none": 0}[covariance]


def prior(out: jax.Array, c: int) -> Prior:
    """The prior of a network's maps (b, h, w, maps): the mean, then A by rows or its diagonal."""
    mean, rest = out[..., :c], out[..., c:]
    full = out.shape[-1] == maps(c, "full")
    kept = [(i, j) for i in range(c) for j in range(i, c if full else i + 1)]
    entry = {at: rest[..., k] for k, at in enumerate(kept)}
    zero = jnp.zeros_like(mean[..., 0])
    rows = [jnp.stack([entry.get((i, j), zero) for j in range(c)], -1) for i in range(c)]
    return Prior(mean, jnp.stack(rows, -2))


def factor(s: jax.Array) -> list[list[jax.Array]]:
    """The rows of L, s = L L^T (..., c, c), written out for few channels: no loop over pixels."""
    c, rows = s.shape[-1], []
    for i in range(c):
        row: list[jax.Array] = []
        for j in range(i + 1):
            other = rows[j] if j < i else row
            left = s[..., i, j] - sum(row[k] * other[k] for k in range(j))
            row.append(jnp.sqrt(left) if i == j else left / rows[j][j])
        rows.append(row)
    return rows


def whiten(rows: list[list[jax.Array]], d: jax.Array) -> jax.Array:
    """L^-1 d of d (..., c)."""
    out: list[jax.Array] = []
    for i, row in enumerate(rows):
        out.append((d[..., i] - sum(row[k] * out[k] for k in range(i))) / row[i])
    return jnp.stack(out, -1)


def solve(rows: list[list[jax.Array]], d: jax.Array) -> jax.Array:
    """(L L^T)^-1 d of d (..., c)."""
    z, c = whiten(rows, d), len(rows)
    out: list[jax.Array] = [z[..., 0]] * c
    for i in reversed(range(c)):
        rest = sum(rows[k][i] * out[k] for k in range(i + 1, c))
        out[i] = (z[..., i] - rest) / rows[i][i]
    return jnp.stack(out, -1)


def log_det(rows: list[list[jax.Array]]) -> jax.Array:
    """log det (L L^T), (...)."""
    return 2.0 * sum(jnp.log(row[-1]) for row in rows)


def parameter(raw: jax.Array) -> jax.Array:
    """A learned noise parameter: softplus(raw - 4) + 0.001, which is 0.019 for raw = 0."""
    return jax.nn.softplus(raw - 4.0) + 1e-3


def gaussian_std(p: jax.Array, mean: jax.Array, learned: bool) -> jax.Array:
    """sigma_n (b, 1, 1, 1) of p (b,), a learned parameter or a known sigma in [0, 1] units."""
    del mean
    return (p if learned else jnp.maximum(p, LEAST))[:, None, None, None]


def poisson_std(p: jax.Array, mean: jax.Array, learned: bool) -> jax.Array:
    """sigma_n (b, h, w, c) of p (b,), a learned parameter 1 / lambda or a known lambda.

    sigma_n^2 = mean / lambda: the prior's mean, not the noisy value, which may be 0.
    """
    rate = (p if learned else 1.0 / p)[:, None, None, None]
    return jnp.sqrt(jnp.maximum(mean, LEAST) * rate)


def _total(prior: Prior, std: jax.Array) -> tuple[list[list[jax.Array]], jax.Array]:
    """The factor of Sx + Sn, and Sx."""
    sx = prior.covariance
    variance = jnp.broadcast_to(jnp.square(std), prior.mean.shape)
    return factor(sx + variance[..., None] * jnp.eye(sx.shape[-1], dtype=sx.dtype)), sx


def loss(prior: Prior, y: jax.Array, std: jax.Array, learned: bool = False) -> jax.Array:
    """-log p(y | surroundings) of each pixel, (b, h, w), without its constant.

    Args:
      prior: of the network. y: noisy images (b, h, w, c) in [0, 1]. std: sigma_n, which broadcasts
        to y. learned: adds -0.1 sigma_n, the mean over channels.
    """
    rows, _ = _total(prior, std)
    square = jnp.square(whiten(rows, y - prior.mean)).sum(-1)
    value = (square + log_det(rows)) * (1.0 if y.shape[-1] == 1 else 0.5)
    return value - REGULARISER * std.mean(-1) if learned else value


def posterior_mean(prior: Prior, y: jax.Array, std: jax.Array) -> jax.Array:
    """E[x | y, surroundings] (b, h, w, c), with the arguments of `loss`."""
    rows, sx = _total(prior, std)
    gain = solve(rows, y - prior.mean)
    return prior.mean + (sx * gain[..., None, :]).sum(-1)

"""Sensitivity: which regions of an image a Frechet distance looks at (arXiv:2203.06026, Sec. 3).

An image with feature f is added to N generated ones of mean m and covariance C:

    m' = m + (f - m) / (N + 1),    C' = (N - 1) / N C + (f - m)(f - m)^T / (N + 1)

and the distance d to the real m_r, C_r is differentiated. With T the symmetric map that carries
the Gaussian of covariance C' to that of C_r (T C' T = C_r),

    dd/dm' = 2 (m' - m_r),   dd/dC' = 1 - T,   so   dd/df = 2 / (N + 1) (m' - m_r + (1 - T)(f - m)).

Where a net's features are the spatial mean of its last activations A, f = mean_ij A_ij, the terms
(dd/df) A_ij / (h w) of that gradient's product with f say what each place adds to it. The paper
weights channels by Grad-CAM, which takes the gradient's mean over places; here it is the same at
every place, so this is that map, with its sign: positive where the image raises the distance.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.features import FeatureNet
from jaxgen.metrics.frechet import frechet_from_moments
from jaxgen.metrics.moments import as_features

TINY = 1e-12  # eigenvalues below this share of the largest count as none


class Fit(NamedTuple):
    """A Gaussian fitted to features: mean (d,), covariance (d, d), number of samples."""

    mean: np.ndarray
    cov: np.ndarray
    count: int


def fit(features: ArrayLike) -> Fit:
    """The Gaussian of features (n, d), n >= 2; the covariance is unbiased."""
    x = as_features(features, "features")
    return Fit(x.mean(0), np.cov(x.T).reshape(x.shape[1], x.shape[1]), len(x))


def root(cov: np.ndarray) -> np.ndarray:
    """The symmetric square root of a covariance (d, d)."""
    values, vectors = np.linalg.eigh(cov)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def transport(cov: np.ndarray, real_root: np.ndarray) -> np.ndarray:
    """T (d, d), symmetric, with T cov T = real, given the root of real.

    T = S (S cov S)^(-1/2) S; directions that either covariance lacks are left out.
    """
    values, vectors = np.linalg.eigh(real_root @ cov @ real_root)
    kept = values > TINY * values[-1]
    half = real_root @ vectors[:, kept]
    return (half / np.sqrt(values[kept])) @ half.T


def gradient(features: ArrayLike, fake: Fit, real: Fit) -> np.ndarray:
    """dd/df (n, d) float64 for each of the features (n, d), added alone to the generated images.

    One eigendecomposition an image: for a few images.
    Raises:
      ValueError: widths that differ; no more generated images than dimensions, where the distance
      has no gradient.
    """
    f = np.asarray(features, np.float64)
    if f.ndim != 2 or not f.shape[1] == len(fake.mean) == len(real.mean):
        raise ValueError(
            f"features, generated and real must have one width, got {f.shape}, "
            f"({len(fake.mean)},) and ({len(real.mean)},)"
        )
    n, d = fake.count, f.shape[1]
    if n <= d:
        raise ValueError(
            f"the gradient needs more than d = {d} generated images, got {n}: with fewer the "
            "distance has a kink there; take more images or a net of fewer dimensions"
        )
    real_root, found = root(real.cov), np.empty_like(f)
    for i, off in enumerate(f - fake.mean):
        cov = (n - 1) / n * fake.cov + np.outer(off, off) / (n + 1)
        shift = fake.mean + off / (n + 1) - real.mean
        found[i] = 2 / (n + 1) * (shift + off - transport(cov, real_root) @ off)
    return found


def distance_with(feature: ArrayLike, fake: Fit, real: Fit) -> float:
    """The distance after one image with this feature (d,) is added to the generated ones."""
    off, n = np.asarray(feature, np.float64) - fake.mean, fake.count
    cov = (n - 1) / n * fake.cov + np.outer(off, off) / (n + 1)
    return frechet_from_moments(fake.mean + off / (n + 1), cov, real.mean, real.cov)


def heat(maps: ArrayLike, gradients: ArrayLike) -> np.ndarray:
    """What each place adds (n, h, w), of activations (n, h, w, d) and gradients dd/df (n, d).

    A heat map sums to (dd/df) f. In units of the distance.
    """
    maps, gradients = np.asarray(maps, np.float64), np.asarray(gradients, np.float64)
    if maps.ndim != 4 or gradients.shape != (len(maps), maps.shape[-1]):
        raise ValueError(
            f"activations (n, h, w, d) and gradients (n, d) belong together, got {maps.shape} and "
            f"{gradients.shape}"
        )
    return np.einsum("nhwd,nd->nhw", maps, gradients) / (maps.shape[1] * maps.shape[2])


def by_pixel(net: FeatureNet, images: Any, gradients: ArrayLike) -> np.ndarray:
    """|dd/dx| of each pixel (n, h, w), summed over channels, of images (n, h, w, c) in [-1, 1].

    For any net that has a gradient, also those that do not end with a spatial mean.
    """
    g = jnp.asarray(gradients, jnp.float32)
    slope = jax.grad(lambda x: (net(x) * g).sum())(jnp.asarray(images, jnp.float32))
    return np.abs(np.asarray(slope)).sum(-1)

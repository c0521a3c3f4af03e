"""The mixture's denoiser is Tweedie's formula of its density, and its samples have its moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxgen.noise.mixture import Mixture


def mixture(K=5, d=3):
    random = np.random.default_rng(0)
    root = 0.3 * random.normal(size=(K, d, d))
    w = random.uniform(1, 2, K)
    return Mixture(w / w.sum(), random.normal(size=(K, d)), root @ root.transpose(0, 2, 1))


def test_density_is_that_of_blurred_gaussians():
    m, x = mixture(), np.random.default_rng(1).normal(size=(6, 3))
    sigma = np.array([0.0, 0.01, 0.1, 0.5, 1.0, 20.0])
    want = [
        np.log(
            sum(
                w * scipy.stats.multivariate_normal(mu, cov + s**2 * np.eye(3)).pdf(p)
                for w, mu, cov in zip(m.w, m.mu, m.cov)
            )
        )
        for p, s in zip(x, sigma)
    ]
    with jax.enable_x64(True):
        got = m.log_density(jnp.asarray(x), jnp.asarray(sigma))
    np.testing.assert_allclose(got, want, rtol=1e-10)


def test_the_denoiser_is_tweedies_formula():
    m = mixture()
    with jax.enable_x64(True):
        x = jax.random.normal(jax.random.key(0), (7, 3), jnp.float64)
        sigma = jnp.logspace(-2, 1, 7)
        score = jax.grad(lambda x: m.log_density(x, sigma).sum())(x)
        tweedie = x + sigma[:, None] ** 2 * score
        np.testing.assert_allclose(m.denoise(x, sigma), tweedie, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(m.posterior(x, sigma).sum(-1), 1, rtol=1e-12)


def test_samples_have_the_moments():
    m = mixture()
    x = np.asarray(m.sample(jax.random.split(jax.random.key(0), 20_000)))
    mean = m.w @ m.mu
    cov = np.einsum("k,kij->ij", m.w, m.cov)
    cov += np.einsum("k,ki,kj->ij", m.w, m.mu - mean, m.mu - mean)
    np.testing.assert_allclose(x.mean(0), mean, atol=4 * np.sqrt(np.diag(cov) / len(x)).max())
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.03)


def test_errors_say_what_is_wrong():
    m = mixture()
    with pytest.raises(ValueError, match=r"w \(K,\), mu \(K, d\) and cov \(K, d, d\), got \[\(5,"):
        Mixture(m.w, m.mu, m.cov[:, 0])
    with pytest.raises(ValueError, match="positive and sum to 1, got a sum of 2"):
        Mixture(2 * m.w, m.mu, m.cov)
    with pytest.raises(ValueError, match=r"knows no conditions, got \['label'\]"):
        m.denoise(jnp.zeros((1, 3)), jnp.ones(1), {"label": jnp.ones((1, 2))})

"""The blind-spot posterior: closed forms, integrals, the minimiser of its loss, its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.objectives import blindspot, blindspot_impulse
from jaxgen.objectives.blindspot import Prior

RNG = np.random.default_rng(0)


def _prior(c, b=2, n=3):
    """A random prior (float64) with deviations near 0.1, and its maps."""
    out = np.concatenate(
        [RNG.uniform(0.2, 0.8, (b, n, n, c)), RNG.normal(0, 0.1, (b, n, n, c * (c + 1) // 2))], -1
    )
    return blindspot.prior(jnp.asarray(out), c), out


def _run(fn, *args):
    with jax.enable_x64(True):
        return np.asarray(jax.jit(fn)(*jax.tree.map(jnp.asarray, args)))


@pytest.fixture(autouse=True)
def float64():
    with jax.enable_x64(True):
        yield


def test_maps_become_an_upper_triangle():
    out = jnp.arange(1.0, 10.0).reshape(1, 1, 1, 9)
    prior = blindspot.prior(out, 3)
    np.testing.assert_array_equal(prior.mean[0, 0, 0], [1, 2, 3])
    np.testing.assert_array_equal(prior.root[0, 0, 0], [[4, 5, 6], [0, 7, 8], [0, 0, 9]])
    diagonal = blindspot.prior(out[..., :6], 3)
    np.testing.assert_array_equal(diagonal.root[0, 0, 0], np.diag([4, 5, 6]))
    assert [blindspot.maps(c, k) for c in (1, 3) for k in ("full", "diagonal", "none")] == [
        2, 2, 1, 9, 6, 3
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"covariance must be one of .*, got 'half'"):
        blindspot.maps(3, "half")


@pytest.mark.parametrize("c", [1, 2, 3])
def test_against_dense_linear_algebra(c):
    """Loss and posterior mean against numpy's inverses, in the paper's form."""
    prior, _ = _prior(c)
    y, std = RNG.uniform(0, 1, prior.mean.shape), RNG.uniform(0.05, 0.2, prior.mean.shape)
    sx, eye = np.asarray(prior.root) @ np.swapaxes(prior.root, -1, -2), np.eye(c)
    sn = eye * np.square(std)[..., None, :]
    d, inverse = y - np.asarray(prior.mean), np.linalg.inv(sx + sn)
    dot = lambda m, v: (m @ v[..., None])[..., 0]
    want = (d * dot(inverse, d)).sum(-1) + np.linalg.slogdet(sx + sn)[1]
    want = want * (1.0 if c == 1 else 0.5)
    np.testing.assert_allclose(_run(blindspot.loss, prior, y, std), want, atol=1e-12)
    learned = want - 0.1 * std.mean(-1)
    got = _run(lambda *a: blindspot.loss(*a, learned=True), prior, y, std)
    np.testing.assert_allclose(got, learned, atol=1e-12)
    px, pn = np.linalg.inv(sx), np.linalg.inv(sn)
    want = dot(np.linalg.inv(px + pn), dot(px, np.asarray(prior.mean)) + dot(pn, y))
    np.testing.assert_allclose(_run(blindspot.posterior_mean, prior, y, std), want, atol=1e-9)
    np.testing.assert_allclose(
        prior.std, np.linalg.det(sx) ** (0.5 / c), atol=1e-12, err_msg="the geometric mean"
    )


def test_the_posterior_mean_is_the_integral():
    """Of one channel, with the likelihood as a function of x on a fine grid."""
    x = np.linspace(-3, 4, 70_001)
    for mu, sx, y, sn in ((0.4, 0.1, 0.7, 0.2), (0.9, 0.3, 0.1, 0.05)):
        weight = np.exp(-0.5 * ((x - mu) / sx) ** 2 - 0.5 * ((y - x) / sn) ** 2)
        shape = lambda v: np.full((1, 1, 1, 1), v)
        prior = Prior(shape(mu), shape(sx)[..., None])
        got = _run(blindspot.posterior_mean, prior, shape(y), shape(sn))
        np.testing.assert_allclose(got.item(), (x * weight).sum() / weight.sum(), atol=1e-9)


def test_the_minimiser_of_the_loss_is_the_truth():
    """y ~ N(mu*, S* + Sn): the gradient of E loss is 0 at mu*, S*. Points exact to second order."""
    c = 3
    prior, out = _prior(c, 1, 1)
    std = np.full((1, 1, 1, c), 0.1)
    sx = np.asarray(prior.covariance)[0, 0, 0]
    steps = np.sqrt(c) * np.linalg.cholesky(sx + 0.01 * np.eye(c)).T
    y = np.asarray(prior.mean) + np.concatenate([steps, -steps]).reshape(-1, 1, 1, c)

    def mean_loss(out):
        many = blindspot.prior(jnp.broadcast_to(out, (len(y), *out.shape[1:])), c)
        return blindspot.loss(many, y, std).mean()

    gradient = _run(jax.grad(mean_loss), out)
    np.testing.assert_allclose(gradient, 0, atol=1e-10)
    assert np.abs(_run(jax.grad(mean_loss), out * 1.1)).max() > 0.1


def test_the_regulariser_alone_tells_noise_from_prior():
    """Of one channel the loss sees Sx + Sn only; what is moved to the noise gains 0.1 of it."""
    shape = lambda v: np.full((1, 1, 1, 1), v)
    y, total = shape(0.6), 0.05
    value = lambda sn: _run(
        lambda p, y, s: blindspot.loss(p, y, s, learned=True),
        Prior(shape(0.4), shape(np.sqrt(total - sn**2))[..., None]), y, shape(sn),
    ).item()  # fmt: skip
    np.testing.assert_allclose(value(0.1) - value(0.2), 0.1 * 0.1, atol=1e-12)


def test_certain_priors_and_exact_pixels():
    """Sx = 0 leaves the mean, a vast prior the noisy value; both finite in float32."""
    shape = lambda v: np.full((1, 1, 1, 3), v, np.float32)
    eye = np.eye(3, dtype=np.float32)
    root = lambda v: (v * eye)[None, None, None]
    for scale, want in ((0.0, 0.4), (100.0, 0.7)):
        prior = Prior(shape(0.4), root(scale))
        got = _run(blindspot.posterior_mean, prior, shape(0.7), shape(0.05))
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, want, atol=1e-5)


def test_noise_of_known_and_learned_parameters():
    mean = jnp.array([0.5, 1e-6]).reshape(1, 1, 1, 2)
    p = jnp.array([25 / 255])
    np.testing.assert_allclose(blindspot.gaussian_std(p, mean, False).item(), 25 / 255)
    np.testing.assert_allclose(blindspot.gaussian_std(0 * p, mean, False).item(), 1e-3)
    got = blindspot.poisson_std(jnp.array([30.0]), mean, False)[0, 0, 0]
    np.testing.assert_allclose(got, np.sqrt([0.5 / 30, 1e-3 / 30]))
    np.testing.assert_allclose(blindspot.poisson_std(jnp.array([1 / 30]), mean, True)[0, 0, 0], got)
    np.testing.assert_allclose(blindspot.parameter(jnp.zeros(())), 0.0191499, atol=1e-6)


def test_moments_of_impulse_noise():
    """One channel: mean and variance of the mixture, by integration of its two parts."""
    shape = lambda v: np.full((1, 1, 1, 1), v)
    mu, sx, alpha = 0.7, 0.2, 0.3
    prior = Prior(shape(mu), shape(np.sqrt(sx**2 - 1e-6))[..., None])
    mean, s = jax.tree.map(np.asarray, blindspot_impulse.moments(prior, jnp.array([alpha])))
    x = (np.arange(100_000) + 0.5) / 100_000
    want = alpha * x.mean() + (1 - alpha) * mu
    np.testing.assert_allclose(mean.item(), want, atol=1e-9)
    want = alpha * (x**2).mean() + (1 - alpha) * (mu**2 + sx**2) - want**2
    np.testing.assert_allclose(s.item(), want, atol=1e-9)


def test_the_posterior_mean_of_impulse_noise_is_the_integral():
    """The delta at x = y is a narrow Gaussian here; a random colour has density 1."""
    shape = lambda v: np.full((1, 1, 1, 1), v)
    x, narrow = np.linspace(-2, 3, 500_001), 1e-3
    for mu, sx, y, alpha in ((0.4, 0.1, 0.6, 0.5), (0.4, 0.05, 0.9, 0.2), (0.5, 0.2, 0.5, 0.9)):
        delta = np.exp(-0.5 * ((y - x) / narrow) ** 2) / (narrow * np.sqrt(2 * np.pi))
        weight = np.exp(-0.5 * ((x - mu) / sx) ** 2) * (alpha + (1 - alpha) * delta)
        prior = Prior(shape(mu), shape(np.sqrt(sx**2 - 1e-6))[..., None])
        got = _run(blindspot_impulse.posterior_mean, prior, shape(y), np.array([alpha]))
        np.testing.assert_allclose(got.item(), (x * weight).sum() / weight.sum(), atol=2e-5)


def test_impulse_noise_at_its_ends():
    """alpha = 0: the noisy value, however far from the prior; alpha = 1: the prior's mean."""
    prior, _ = _prior(3, 2, 1)
    y = np.full((2, 1, 1, 3), 5.0)
    got = _run(blindspot_impulse.posterior_mean, prior, y, np.array([0.0, 1.0]))
    np.testing.assert_allclose(got[0], y[0])
    np.testing.assert_allclose(got[1], prior.mean[1])


def test_the_learned_sigma_is_that_of_the_flattest_pixels():
    """Of what is left when each prior is best for it: sigma grows until a prior would be negative.

    Pixels have variances T; the best Sx is T - sigma^2 or 0. A quarter have that of the noise.
    """
    total = jnp.where(jnp.arange(400) % 4 == 0, 0.1**2, 0.1**2 + 0.05**2).reshape(1, 20, 20, 1)

    def expected(sigma):
        root = jnp.sqrt(jnp.maximum(total - sigma**2, 0))[..., None]
        prior = Prior(jnp.zeros_like(total), root)
        std = jnp.full_like(total, sigma)
        return blindspot.loss(prior, jnp.sqrt(total), std, learned=True).mean()

    grid = np.linspace(0.02, 0.13, 221)
    values = _run(jax.vmap(expected), grid)
    best = grid[values.argmin()]
    assert (np.diff(values)[grid[:-1] < 0.0995] < 0).all()
    np.testing.assert_allclose(best, 0.1, atol=0.002)

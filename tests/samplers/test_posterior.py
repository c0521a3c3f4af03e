"""Posterior sampling on Gaussian data, where the posterior is known: scores, samples, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from jaxgen.common import rng
from jaxgen.noise import operators
from jaxgen.samplers import drive, grids, guidance, posterior, solvers

H, W, C = 4, 6, 1
N = H * W * C
SIGMA = 0.3  # of the measurement
R = np.random.default_rng(0)
MEAN = R.uniform(-0.5, 0.5, N)
ROOT = R.standard_normal((N, N)) / np.sqrt(N) * 0.7
COV = ROOT @ ROOT.T + 0.02 * np.eye(N)
OPERATORS = {
    "mask": {"box": 0.5},
    "blur": {"std": 0.8},
    "downsample": {},
    "kspace": {"rate": 0.4},
}


def prior(x, sigma, cond=None, mean=MEAN, cov=COV):
    """E[x0 | x] of N(mean, cov), of images (b, H, W, C)."""
    del cond
    values, axes = (jnp.asarray(v, x.dtype) for v in np.linalg.eigh(cov))
    flat = x.reshape(len(x), -1) - jnp.asarray(mean, x.dtype)
    shrunk = jnp.matmul(flat, axes, precision="highest") * values / (values + sigma[:, None] ** 2)
    return (jnp.matmul(shrunk, axes.T, precision="highest") + mean).reshape(x.shape).astype(x.dtype)


def matrix(op):
    """A (m, N) of an operator."""
    with jax.enable_x64(True):
        rows = op.forward(jnp.eye(N).reshape(N, H, W, C))
    return np.asarray(rows).reshape(N, -1).T


def condition(A, y, sigma, mean=MEAN, cov=COV):
    """Mean (b, N) and covariance of N(mean, cov) given y = A x0 + sigma n, in numpy."""
    gain = np.linalg.solve(A @ cov @ A.T + sigma**2 * np.eye(len(A)), A @ cov).T
    return mean + (y.reshape(len(y), -1) - mean @ A.T) @ gain.T, cov - gain @ A @ cov


@pytest.mark.parametrize("name", OPERATORS)
def test_with_the_covariance_the_score_is_that_of_the_posterior(name):
    """x = x0 + s n and y = A x0 + sigma n at once, against numpy in float64."""
    op = operators.make(name, sigma=SIGMA, **OPERATORS[name])
    A, s = matrix(op), np.array([0.05, 0.4, 3.0])
    x = R.standard_normal((3, H, W, C))
    y = R.standard_normal((3, *np.shape(op.forward(jnp.zeros((1, H, W, C))))[1:]))
    with jax.enable_x64(True):
        steered = posterior.steer(prior, op, jnp.asarray(y), "tweedie", iterations=40)
        got = np.asarray(jax.jit(steered)(jnp.asarray(x), jnp.asarray(s)))
        plain = np.asarray(prior(jnp.asarray(x), jnp.asarray(s)))
    for i in range(3):
        mean, cov = condition(A, y[i : i + 1], SIGMA)
        want, _ = condition(np.eye(N), x[i : i + 1], s[i], mean[0], cov)
        score = (want[0] - x[i].ravel()) / s[i] ** 2
        np.testing.assert_allclose((got[i] - x[i]).ravel() / s[i] ** 2, score, atol=1e-8)
    assert np.abs(got - plain).max() > 0.1


def test_pigdm_is_the_posterior_of_white_data():
    op, s = operators.make("blur", sigma=SIGMA, std=0.8), np.array([0.1, 2.0])
    white = functools.partial(prior, mean=0.0 * MEAN, cov=0.25 * np.eye(N))
    x, y = R.standard_normal((2, 2, H, W, C))
    with jax.enable_x64(True):
        steered = posterior.steer(white, op, jnp.asarray(y), sigma_data=0.5, iterations=30)
        got = np.asarray(steered(jnp.asarray(x), jnp.asarray(s)))
    for i in range(2):
        mean, cov = condition(matrix(op), y[i : i + 1], SIGMA, 0 * MEAN, 0.25 * np.eye(N))
        want, _ = condition(np.eye(N), x[i : i + 1], s[i], mean[0], cov)
        np.testing.assert_allclose(got[i].ravel(), want[0], atol=1e-9)


def test_without_noise_pigdm_puts_the_measurement_into_the_denoised_image():
    """J = c I of white data: A D' = y where c = r^2 / s^2, by the pseudo-inverse of A."""
    op = operators.make("downsample")
    white = functools.partial(prior, mean=0.0 * MEAN, cov=0.25 * np.eye(N))
    x, y = jnp.asarray(R.standard_normal((2, H, W, C)), jnp.float32), jnp.ones((2, 2, 3, 1))
    D = posterior.steer(white, op, y, iterations=2)(x, jnp.array([0.2, 2.0]))
    np.testing.assert_allclose(op.forward(D), y, atol=1e-5)


def test_samples_have_the_mean_and_the_covariance_of_the_posterior():
    """The ODE's map is affine: N + 1 points tell the Gaussian that noise at level T becomes."""
    op, T = operators.make("downsample", sigma=SIGMA), 2000.0
    y = np.linspace(-1, 1, 6).reshape(1, 2, 3, 1)
    mean, cov = condition(matrix(op), y, SIGMA)
    errors = []
    with jax.enable_x64(True):
        start = jnp.concatenate([jnp.zeros((1, N)), T * jnp.eye(N)]).reshape(N + 1, H, W, C)
        steered = posterior.steer(prior, op, jnp.repeat(jnp.asarray(y), N + 1, 0), "tweedie")
        for steps in (40, 80, 160):
            out = drive.run(solvers.make("heun"), steered, start, grids.edm(steps, 1e-3, T))
            out = np.asarray(out).reshape(N + 1, N)
            step = out[1:] - out[0]
            errors.append([np.abs(out[0] - mean[0]).max(), np.abs(step.T @ step - cov).max()])
    first, second, third = np.array(errors)
    assert np.all(third < 3e-3)
    assert third[1] < 0.4 * second[1] < 0.16 * first[1]  # second order: the rest is the solver's
    assert np.abs(cov - COV).max() > 0.1 and np.abs(mean - MEAN).max() > 0.2


@pytest.mark.parametrize("ratio", [0.5, 4.0])
def test_dps_is_too_sure_by_the_stated_amount(ratio):
    """Data N(0, S), A = 1, u = S / sigma^2: the map of the ODE is affine, so two points tell it.

    The variance is S exp(-u), and the mean y u / 2 int_0^1 q^-1/2 exp(-u (1 - q) / 2) dq.
    """
    S, T = 0.25, 200.0
    sigma = float(np.sqrt(S / ratio))
    op = operators.make("mask", box=0.0, sigma=sigma)
    white = lambda x, s, cond=None: x * S / (S + s.reshape(-1, 1, 1, 1) ** 2)
    with jax.enable_x64(True):
        y = jnp.ones((2, 1, 1, 1))
        start = T * jnp.array([0.0, 1.0]).reshape(2, 1, 1, 1)
        steered = posterior.steer(white, op, y, "dps")
        out = drive.run(solvers.make("heun"), steered, start, grids.edm(400, 1e-3, T))
    zero, one = np.asarray(out).ravel()
    np.testing.assert_allclose((one - zero) ** 2, S * np.exp(-ratio), rtol=0.01)
    assert (one - zero) ** 2 < 0.95 * S / (1 + ratio)
    f = lambda q: np.exp(-ratio * (1 - q) / 2) / np.sqrt(q)
    mean = ratio / 2 * scipy.integrate.quad(f, 0, 1)[0]
    np.testing.assert_allclose(zero, mean, rtol=0.01)


def test_the_step_of_algorithm_1_has_a_fixed_length():
    op, white = operators.make("blur"), lambda x, s, cond=None: x / 2
    x, y = (jnp.asarray(R.standard_normal((2, H, W, C)), jnp.float32) for _ in range(2))
    s, D = jnp.array([0.5, 2.0]), x / 2
    got = posterior.steer(white, op, y, "dps", zeta=3.0)(x, s) - D
    up = op.adjoint(y - op.forward(D)) / 2
    length = jnp.sqrt(((y - op.forward(D)) ** 2).sum((1, 2, 3), keepdims=True))
    want = 3.0 * (1 + s**2).reshape(2, 1, 1, 1) * up / length
    np.testing.assert_allclose(got, want, rtol=1e-5)
    exact = posterior.steer(white, op, op.forward(D), "dps", zeta=3.0)(x, s)
    assert jnp.all(jnp.isfinite(exact))


def test_it_nests_with_guidance_and_intervals_and_passes_conditions_on():
    op = operators.make("mask", sigma=0.1)
    y, keys = jnp.ones((2, H, W, C)), rng.image_keys(jax.random.key(0), 2)

    def labelled(x, sigma, cond=None):
        assert sorted(cond) == ["label"]
        return prior(x, sigma) + 0.1 * cond["label"][:, :1, None, None]

    guided = guidance.autoguide(labelled, lambda x, s, c: prior(x, s), 2.0)
    steered = posterior.steer(guided, op, y)
    only = guidance.interval(steered, labelled, 0.2, 5.0)
    cond, levels = {"label": jnp.ones((2, 3))}, grids.edm(6)
    assert len(guidance.segments(only, levels[:-1])) == 3
    run = lambda d: drive.sample(solvers.make("euler"), d, keys, (H, W, C), levels, cond)
    plain, part, full = run(labelled), run(only), run(steered)
    known = np.asarray(op.mask(H, W))[0, ..., 0]
    error = lambda x: np.abs(np.asarray(x)[:, known] - 1).mean()
    assert error(full) < 0.3 and error(full) < error(part) < error(plain)
    one = drive.sample(  # image i depends on key and measurement i only
        solvers.make("euler"), posterior.steer(guided, op, y[:1]), keys[:1], (H, W, C), levels,
        {"label": jnp.ones((1, 3))},
    )  # fmt: skip
    np.testing.assert_allclose(one[0], full[0], atol=1e-5)


def test_conjugate_gradients_solve_each_image_by_itself():
    M = R.standard_normal((5, 5))
    M = M @ M.T + 0.5 * np.eye(5)
    b = np.stack([R.standard_normal(5), 1e-3 * R.standard_normal(5), np.zeros(5)])
    with jax.enable_x64(True):
        u = posterior.solve(lambda v: v @ jnp.asarray(M), jnp.asarray(b), 12)
        np.testing.assert_allclose(u, np.linalg.solve(M, b.T).T, atol=1e-10)
        negative = posterior.solve(lambda v: -v, jnp.asarray(b), 3)
        low = [posterior.solve(lambda v: 0.1 * v, jnp.asarray(b), 3, least) for least in (0.1, 0.2)]
    np.testing.assert_array_equal(negative, 0)
    np.testing.assert_allclose(low[0], 10 * b)
    np.testing.assert_array_equal(low[1], 0)  # less than it can be


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "dsp"}, "unknown steering 'dsp'; known are dps, pigdm, tweedie"),
        ({"zeta": 1.0}, "zeta is a setting of dps, got it for 'pigdm'"),
        ({"method": "dps"}, "dps divides by sigma\\^2 of the operator, which is 0"),
        ({"sigma_data": 0.0}, "needs positive zeta, sigma_data and iterations, got None, 0.0"),
        ({"method": "dps", "zeta": -1.0}, "needs positive zeta"),
    ],
)
def test_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        posterior.steer(prior, operators.make("mask"), jnp.zeros((2, H, W, C)), **settings)


def test_measurements_of_another_shape_are_refused():
    steered = posterior.steer(prior, operators.make("downsample"), jnp.zeros((2, H, W, C)))
    want = r"of images \(2, 4, 6, 1\) by Downsample have shape \(2, 2, 3, 1\), got \(2, 4, 6, 1\)"
    with pytest.raises(ValueError, match=want):
        steered(jnp.zeros((2, H, W, C)), jnp.ones(2))

"""Every solver of the registry on data whose denoiser is known exactly: order and moments."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
from mixtures import Mixture

from jaxgen.common import rng
from jaxgen.samplers import drive, grids, solvers

CHURN = {"S_churn": 3.0, "S_min": 0.1, "S_max": 2.0}
CASES = [  # name, options, order; the defaults' order is checked against the registry
    ("euler", {}, 1),
    ("heun", {}, 2),
    ("edm", {}, 2),
    ("edm", CHURN, 2),
    ("generalized", {}, 2),
    ("generalized", {"solver": "euler", "schedule": "ve", "scaling": "vp"}, 1),
    ("generalized", {"schedule": "vp", "scaling": "vp"}, 2),
    ("generalized", {"schedule": "ve", "alpha": 0.5}, 2),
    ("generalized", {"solver": "euler", "scaling": "vp", **CHURN}, 1),
    ("ddim", {}, 1),
    ("ddim", {"eta": 0.5}, 1),
    ("ddpm", {}, 1),
    ("ddpm", {"variance": "large"}, 1),
    ("dpmpp_2m", {}, 2),
    ("dpmpp_2m_sde", {}, 2),
]
HIGH, LOW = 4.0, 0.05
DATA = Mixture([0.7, 0.3], [[1.0, 0.0], [-1.0, 1.0]], [0.2, 0.1])


def name_of(case):
    return "-".join([case[0], *(f"{v}" for v in case[1].values() if case[1] is not CHURN)])


def noisy(solver):
    return solver(grids.edm(8)).noise is not None


def test_the_cases_cover_the_registry():
    assert {name for name, _, _ in CASES} == set(solvers.SOLVERS)
    for name, options, order in CASES:
        entry = solvers.SOLVERS[name]
        table = solvers.make(name, **options)(grids.edm(8))
        if not options:
            assert order == entry.order
            assert len(table.step) == 8 * entry.evaluations - (entry.evaluations - 1)
        if not options and name != "edm":  # whose noise is an option
            assert (table.noise is not None) == entry.noise


@pytest.fixture(scope="module")
def start_and_end():
    """Points at HIGH, and where the exact ODE of the mixture takes them at LOW."""
    with jax.enable_x64(True):
        denoise = jax.jit(DATA.denoise)
        x = np.linspace(-6, 6, 12).reshape(6, 2)[:, ::-1] + np.array([0.3, 1.0])

        def slope(sigma, flat):
            y = flat.reshape(x.shape)
            return np.asarray((y - denoise(y, np.full(len(x), sigma))) / sigma).ravel()

        done = scipy.integrate.solve_ivp(
            slope, (HIGH, LOW), x.ravel(), method="DOP853", rtol=1e-9, atol=1e-10
        )
        return x, done.y[:, -1].reshape(x.shape)


def errors_of(solver, start, want, counts):
    """Largest error at LOW, from points at HIGH, for each number of steps."""
    found = []
    for n in counts:
        sigmas = np.exp(np.linspace(np.log(HIGH), np.log(LOW), n + 1))
        got = drive.run(solver, DATA.denoise, jnp.asarray(start), sigmas)
        found.append(np.abs(np.asarray(got) - want).max())
    return found


def moment_errors(solver, counts, m=0.4, s=0.5):
    """|mean error| + |variance error| at LOW for data N(m, s^2), without drawing anything.

    All is linear for Gaussian data: row 0 of the batch starts at 0 and meets no noise; row 1 starts
    at 1; row 2 + i meets the unit noise i. Their differences are the weights of the result.
    """

    def denoise(x, sigma, cond=None):
        return m + (x - m) * s**2 / (s**2 + sigma[:, None] ** 2)

    found = []
    for n in counts:
        sigmas = np.exp(np.linspace(np.log(HIGH), np.log(LOW), n + 1))
        noise = np.concatenate([np.zeros((n + 1, 2)), np.eye(n + 1)], 1)[..., None]
        x = jnp.zeros((n + 3, 1), jnp.float64).at[1].set(1)
        out = np.asarray(drive.run(solver, denoise, x, sigmas, noise=noise))[:, 0]
        weight = out[1:] - out[0]
        mean = out[0] + weight[0] * m
        variance = weight[0] ** 2 * (s**2 + HIGH**2) + (weight[1:] ** 2).sum()
        found.append(abs(mean - m) + abs(variance - s**2 - LOW**2))
    return found


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_converges_at_its_declared_order(case, start_and_end):
    """Slope of log error over log n: of the state without noise, of the moments with it."""
    name, options, order = case
    solver, counts = solvers.make(name, **options), (64, 128)
    with jax.enable_x64(True):
        if noisy(solver):
            errors = moment_errors(solver, counts)
        else:
            errors = errors_of(solver, *start_and_end, counts)
    slope = np.log2(errors[0] / errors[1])
    assert abs(slope - order) < 0.15 and errors[1] < 0.05, (slope, errors)


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_reaches_the_moments_of_a_mixture(case):
    solver = solvers.make(case[0], **case[1])
    keys = rng.seed_keys(0, np.arange(6000))
    x = np.asarray(drive.sample(solver, DATA.denoise, keys, (2,), grids.edm(64)))
    mean, cov = DATA.moments()
    np.testing.assert_allclose(x.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.05)


@pytest.mark.slow
@pytest.mark.parametrize("name", ("ddpm", "dpmpp_2m_sde"))
def test_weak_order_on_a_mixture(name):
    """Moments of 200,000 images that follow the same Brownian path at 8, 16 and 32 steps.

    Over a step, the noise of both solvers is that of the exact linear part: two steps' noises n, n'
    of standard deviations v, v' are one's r'^2 v n + v' n', with r' the ratio of the later levels.
    """
    num, solver = 200_000, solvers.make(name)
    data = Mixture([0.7, 0.3], [[1.0], [-1.0]], [0.2, 0.1])
    draw = np.random.default_rng(0)
    part = draw.choice(2, num, p=data.w)
    spread = np.sqrt(data.var[part, 0] + HIGH**2)
    x = (data.mu[part, 0] + spread * draw.standard_normal(num))[:, None].astype(np.float32)
    grid = lambda n: np.exp(np.linspace(np.log(HIGH), np.log(LOW), n + 1))
    noise = solver(grid(32)).noise[1:, None] * draw.standard_normal((32, num), np.float32)
    moments = []
    for n in (32, 16, 8):
        unit = np.concatenate([np.zeros((1, num)), noise / solver(grid(n)).noise[1:, None]])
        y = np.asarray(
            drive.run(solver, data.denoise, jnp.asarray(x), grid(n), noise=unit[..., None])
        )
        moments.append(np.array([y.mean(), (y**2).mean(), (y**4).mean()]))
        ratio = (grid(n)[2::2] / grid(n)[1:-1:2])[:, None]
        noise = ratio**2 * noise[::2] + noise[1::2]
    fine, coarse = np.abs(moments[0] - moments[1]), np.abs(moments[1] - moments[2])
    assert np.all(np.log2(coarse / fine) > solvers.SOLVERS[name].order - 0.3), (coarse, fine)

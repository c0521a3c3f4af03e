"""Tables against the papers' own notation, computed in numpy; names, options and errors."""

import itertools

import numpy as np
import pytest

from jaxgen.noise import precondition
from jaxgen.samplers import edm, grids, solvers, steps

LEVELS = grids.edm(7, 0.01, 30.0)
X0 = np.array([[0.3, -1.2], [0.8, 0.1]])


def denoise(x, sigma):
    """Some nonlinear function."""
    return np.tanh(x / (1 + sigma)) + 0.1 * sigma


def walk(table, x, noise):
    """What a Table means, in a few lines of numpy; noise (n + 1, ...) by step."""
    y, D = x, np.zeros_like(x)
    for k in range(len(table.step)):
        if table.noise is not None:
            x, y = (v + table.noise[k] * noise[table.step[k]] for v in (x, y))
        before, D = D, denoise(y, table.sigma[k])
        y = table.x[k] * x + table.D[k] * D
        if table.previous is not None:
            y = y + table.previous[k] * before
        if table.ends is None or table.ends[k]:
            x = y
    return x


def noise_of(n):
    return np.random.default_rng(0).standard_normal((n + 1, *X0.shape))


def alpha_bar(sigma):
    return 1 / (1 + sigma**2)


def in_vp(update, levels=LEVELS):
    """Runs `update(x, x0, abar, abar_next, n)` of scaled images sqrt(abar) x, from X0 and back."""
    x = X0 * levels[0] * np.sqrt(alpha_bar(levels[0]))
    noise = noise_of(len(levels) - 1)
    for i, (now, to) in enumerate(itertools.pairwise(levels)):
        x0 = denoise(x / np.sqrt(alpha_bar(now)), now)
        x = update(x, x0, alpha_bar(now), alpha_bar(to), noise[i + 1])
    return x / np.sqrt(alpha_bar(levels[-1]))


def ours(name, levels=LEVELS, **options):
    table = solvers.make(name, **options)(levels)
    return walk(table, X0 * levels[0], noise_of(len(levels) - 1))


@pytest.mark.parametrize("eta", (0.0, 0.4, 1.0))
def test_ddim_is_its_equation_12(eta):
    def update(x, x0, a, b, n):
        eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        s = eta * np.sqrt((1 - b) / (1 - a)) * np.sqrt(1 - a / b)
        return np.sqrt(b) * x0 + np.sqrt(1 - b - s**2) * eps + s * n

    np.testing.assert_allclose(ours("ddim", eta=eta), in_vp(update), rtol=1e-10)


@pytest.mark.parametrize("variance", ("small", "large"))
def test_ddpm_is_its_algorithm_2(variance):
    def update(x, x0, a, b, n):
        alpha = a / b
        beta = 1 - alpha
        eps = (x - np.sqrt(a) * x0) / np.sqrt(1 - a)
        mean = (x - beta / np.sqrt(1 - a) * eps) / np.sqrt(alpha)
        v = beta if variance == "large" else beta * (1 - b) / (1 - a)
        return mean + (np.sqrt(v) * n if b < 1 else 0)

    np.testing.assert_allclose(ours("ddpm", variance=variance), in_vp(update), rtol=1e-10)


@pytest.mark.parametrize("sde", (False, True))
def test_dpm_solver_is_its_algorithm_in_log_snr(sde):
    """With VP's alpha, sigma and lambda = ln(alpha / sigma); the levels end above 0."""
    levels, history = LEVELS[:-1], []

    def update(x, x0, a, b, n):
        alpha, s, s_now = np.sqrt(b), np.sqrt(1 - b), np.sqrt(1 - a)
        h = np.log(alpha / s) - np.log(np.sqrt(a) / s_now)
        D = x0
        if history:
            h_before, x0_before = history[-1]
            r = h_before / h
            D = (1 + 1 / (2 * r)) * x0 - 1 / (2 * r) * x0_before
        history.append((h, x0))
        if not sde:
            return s / s_now * x - alpha * np.expm1(-h) * D
        noise = s * np.sqrt(-np.expm1(-2 * h)) * n
        return s / s_now * np.exp(-h) * x - alpha * np.expm1(-2 * h) * D + noise

    name = "dpmpp_2m_sde" if sde else "dpmpp_2m"
    table = solvers.make(name)(levels)
    noise = noise_of(len(levels) - 1)
    got = walk(table, X0 * levels[0], noise)
    if sde:  # the noise of the last step is added to the result
        got = got + table.noise[-1] * noise[-1]
    np.testing.assert_allclose(got, in_vp(update, levels), rtol=1e-10)


def test_euler_and_heun_are_their_slopes():
    def follow(second):
        x = X0 * LEVELS[0]
        for now, to in itertools.pairwise(LEVELS):
            d = (x - denoise(x, now)) / now
            y = x + (to - now) * d
            if second and to > 0:
                y = x + (to - now) * (d + (y - denoise(y, to)) / to) / 2
            x = y
        return x

    np.testing.assert_allclose(ours("euler"), follow(False), rtol=1e-10)
    np.testing.assert_allclose(ours("heun"), follow(True), rtol=1e-10)


def test_solvers_that_are_others_by_their_defaults():
    """ddim is Euler, the stochastic sampler without churn and the generalised one are Heun."""

    def same(a, b):
        for v, w in zip(a, b):
            assert (v is None) == (w is None)
            if v is not None:
                np.testing.assert_allclose(v, w, rtol=1e-10, atol=1e-12)

    same(solvers.make("ddim")(LEVELS), steps.euler(LEVELS))
    same(solvers.make("edm")(LEVELS), steps.heun(LEVELS))
    same(solvers.make("generalized")(LEVELS), steps.heun(LEVELS))
    same(solvers.make("generalized", solver="euler")(LEVELS), steps.euler(LEVELS))
    same(solvers.make("ddim", eta=1.0)(LEVELS), solvers.make("ddpm")(LEVELS))


def test_weights_of_x_and_of_images_sum_to_one():
    """A point mass that is denoised exactly stays where it is, in every row of every solver."""
    for name in solvers.SOLVERS:
        table = solvers.make(name)(LEVELS)
        total = table.x + table.D + (0 if table.previous is None else table.previous)
        np.testing.assert_allclose(total, 1, rtol=1e-9, err_msg=name)


def test_churn_too_large_is_refused_with_the_largest_value():
    solver = edm.stochastic(S_churn=40)
    with pytest.raises(ValueError, match=r"S_churn = 40 is too large for 18 steps.*= 7\.456"):
        solver(grids.edm(18))
    assert solver(grids.edm(100)).noise.max() > 0
    capped = edm.generalized(S_churn=40, cap=True)(grids.edm(18))
    np.testing.assert_allclose(capped.sigma[0], 80 * np.sqrt(2))


@pytest.mark.parametrize(
    "options, message",
    (
        ({"S_churn": -1.0}, "S_churn and S_noise must be finite and >= 0, got S_churn=-1.0"),
        ({"S_churn": np.nan}, "must be finite and >= 0, got S_churn=nan"),
        ({"S_noise": np.inf}, "S_noise=inf"),
        ({"S_min": 2.0, "S_max": 1.0}, "S_min <= S_max, got S_min=2.0, S_max=1.0"),
        ({"S_min": np.nan}, "S_min <= S_max, got S_min=nan"),
    ),
)
def test_churn_out_of_range(options, message):
    with pytest.raises(ValueError, match=message):
        edm.stochastic(**options)


def test_unknown_names_and_options():
    with pytest.raises(ValueError, match="unknown solver 'rk45'; known are euler, heun"):
        solvers.make("rk45")
    with pytest.raises(ValueError, match=r"'heun' has no options \['eta'\]; it takes none"):
        solvers.make("heun", eta=1.0)
    with pytest.raises(ValueError, match="it takes S_churn, S_min, S_max, S_noise"):
        solvers.make("edm", eta=1.0)
    with pytest.raises(ValueError, match="schedule must be one of linear, ve, vp, got 'cosine'"):
        solvers.make("generalized", schedule="cosine")
    with pytest.raises(ValueError, match="alpha must be > 0 and finite, got 0"):
        solvers.make("generalized", alpha=0)
    with pytest.raises(ValueError, match="alpha = 2 takes a slope beyond level 0 in 7 steps"):
        solvers.make("generalized", alpha=2)(LEVELS)
    with pytest.raises(ValueError, match=r"eta must be in \[0, 1\], got 2"):
        solvers.make("ddim", eta=2)
    with pytest.raises(ValueError, match="variance must be 'small' or 'large', got 'learned'"):
        solvers.make("ddpm", variance="learned")


def test_grids_reach_their_ends():
    for name, make in grids.GRIDS.items():
        levels = make(18)
        assert len(levels) == 19 and levels[-1] == 0 and np.all(np.diff(levels) < 0), name
    np.testing.assert_allclose(grids.vp(9, 0.03, 50.0)[[0, -2]], (50.0, 0.03))
    steps_in_log = np.diff(np.log(grids.geometric(9)[:-1]))
    np.testing.assert_allclose(steps_in_log, steps_in_log[0])
    grid = grids.edm(18)
    assert grid[0] == pytest.approx(80) and grid[-2] == pytest.approx(0.002)


def test_vp_grid_has_the_usual_betas_by_default():
    low, high = grids.vp(5)[[-2, 0]]
    np.testing.assert_allclose(grids.vp_betas(low, high), (19.9, 0.1))


def test_rounded_levels_are_those_of_the_table_once_each():
    family = precondition.IDDPM()
    levels = grids.rounded(grids.edm(256), family.round_sigma)
    assert set(levels) <= set(family.table) and np.all(np.diff(levels) < 0)
    assert levels[-2] == family.sigma_min and levels[-1] == 0 and 100 < len(levels) < 257


def test_bad_grids_are_refused():
    with pytest.raises(ValueError, match="n >= 2 and 0 < sigma_min < sigma_max, got n=1"):
        grids.edm(1)
    with pytest.raises(ValueError, match=r"got n=5, sigma_min=3\.0, sigma_max=2\.0"):
        grids.ve(5, 3.0, 2.0)
    with pytest.raises(
        ValueError, match=r"the iDDPM table has .* levels from 1\.0 to 2\.0, not n=900"
    ):
        grids.iddpm(900, 1.0, 2.0)

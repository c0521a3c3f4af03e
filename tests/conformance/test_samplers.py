"""Every solver on data whose denoiser is known exactly: order, moments, reference values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.samplers import drive, grids, steps

S = 0.5  # standard deviation of the Gaussian data


def gaussian(x, sigma, cond=None):
    """E[y | x] for y ~ N(0, S^2)."""
    v = sigma.reshape(-1, *([1] * (x.ndim - 1))) ** 2
    return x * S**2 / (S**2 + v)


def mixture(w, mu, s):
    """The denoiser of sum_k w_k N(mu_k, s_k^2 I) on (b, d)."""
    w, mu, s = (jnp.asarray(v, jnp.float32) for v in (w / np.sum(w), mu, s))

    def denoise(x, sigma, cond=None):
        v = s**2 + sigma[:, None] ** 2
        d2 = jnp.sum((x[:, None] - mu) ** 2, -1)
        r = jax.nn.softmax(jnp.log(w) - d2 / (2 * v) - x.shape[-1] / 2 * jnp.log(v), -1)
        mean = (s[:, None] ** 2 * x[:, None] + sigma[:, None, None] ** 2 * mu) / v[..., None]
        return jnp.sum(r[..., None] * mean, 1)

    return denoise


@pytest.mark.parametrize("name", steps.STEPS)
def test_converges_at_its_declared_order(name):
    """Slope of log error over log step against x(sigma) ~ sqrt(S^2 + sigma^2), from 4 to 0.05."""
    x = jnp.linspace(-3, 3, 7)[:, None]
    exact = x * np.sqrt((S**2 + 0.05**2) / (S**2 + 16))
    counts, errors = np.array([8, 16, 32, 64]), []
    for n in counts:
        sigmas = np.exp(np.linspace(np.log(4), np.log(0.05), n + 1))
        got = drive.run(steps.STEPS[name], gaussian, x, sigmas)
        errors.append(float(jnp.max(jnp.abs(got - exact))))
    slope = -np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope > steps.ORDER[name] - 0.2, errors


@pytest.mark.parametrize("name", steps.STEPS)
def test_reaches_the_moments_of_a_mixture(name):
    w, mu, s = np.array([0.7, 0.3]), np.array([[1.0, 0.0], [-1.0, 1.0]]), np.array([0.2, 0.1])
    keys = rng.seed_keys(0, np.arange(6000))
    draw = jax.jit(
        lambda k: drive.sample(steps.STEPS[name], mixture(w, mu, s), k, (2,), grids.edm(48))
    )
    x = np.asarray(draw(keys))
    mean = w @ mu
    cov = (w * s**2).sum() * np.eye(2) + (mu - mean).T @ np.diag(w) @ (mu - mean)
    np.testing.assert_allclose(x.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(x.T), cov, atol=0.05)


def test_an_image_depends_on_its_key_alone():
    draw = lambda i: drive.sample(
        steps.heun, gaussian, rng.seed_keys(3, np.asarray(i)), (4, 4, 1), grids.edm(5)
    )
    np.testing.assert_allclose(draw([17, 2, 9])[0], draw([1, 17])[1], rtol=1e-6)
    assert float(jnp.abs(draw([17])[0] - draw([18])[0]).max()) > 0.1


def test_no_evaluation_at_level_zero():
    """n levels cost 2 n - 1 evaluations; one at sigma = 0 would divide by it."""
    seen = []

    def watch(x, sigma, cond=None):
        jax.debug.callback(lambda s: seen.append(float(s)), sigma[0])
        return gaussian(x, sigma)

    out = drive.run(steps.heun, watch, jnp.ones((1, 2)), grids.edm(6))
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert len(seen) == 11 and min(seen) > 0 and bool(jnp.all(jnp.isfinite(out)))


def test_grid_ends_and_errors():
    grid = grids.edm(18)
    assert grid[0] == pytest.approx(80) and grid[-2] == pytest.approx(0.002) and grid[-1] == 0
    assert np.all(np.diff(grid) < 0)
    with pytest.raises(ValueError, match="n >= 2 and 0 < sigma_min < sigma_max, got n=1"):
        grids.edm(1)


def test_deterministic_trajectories_match_the_reference(goldens):
    z = np.load(goldens / "diffusion/samplers_edm.npz")
    denoise = mixture(z["mixture/w"], z["mixture/mu"], z["mixture/s"])
    cases = sorted({k.split("/")[0] for k in z.files if k.startswith("heun")})
    assert cases
    for case in cases:
        p = {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith(case + "/")}
        n = p["x_hat"].shape[0]
        arg = lambda name, default, p=p: float(p.get(f"arg_{name}", default))
        grid = grids.edm(n, arg("sigma_min", 0.002), arg("sigma_max", 80), arg("rho", 7))
        x = jnp.asarray(z["latents"] * grid[0], jnp.float32)
        got = drive.run(steps.heun, denoise, x, grid)
        gap = np.abs(np.asarray(got) - p["out"]).max()
        assert gap < 2e-4, (case, gap)  # float32 state here, float64 there

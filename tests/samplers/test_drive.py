"""The loop: one program, keys that make an image, noise only where it is wanted, early errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.samplers import drive, edm, grids, solvers, steps

S = 0.5


def gaussian(x, sigma, cond=None):
    """E[y | x] for y ~ N(0, S^2)."""
    return x * S**2 / (S**2 + sigma.reshape(-1, *[1] * (x.ndim - 1)) ** 2)


def marked(x, sigma, cond=None):
    """A denoiser that can be found in a traced program."""
    return 0.1 * jax.lax.erf_inv(jnp.tanh(x))


def test_an_image_depends_on_its_key_alone():
    @jax.jit
    def draw(keys):
        solver = solvers.make("dpmpp_2m_sde")
        return drive.sample(solver, gaussian, keys, (4, 4, 1), grids.edm(5))

    of = lambda i: draw(rng.seed_keys(3, np.asarray(i)))
    one, several = of([17]), of([17, 2, 9])
    np.testing.assert_allclose(several[0], one[0], rtol=1e-6, atol=1e-7)
    assert float(jnp.abs(several[1] - several[2]).max()) > 0.1


@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_a_program_holds_the_network_once(name):
    draw = lambda keys: drive.sample(solvers.make(name), marked, keys, (2,), grids.edm(6))
    text = str(jax.make_jaxpr(draw)(rng.seed_keys(0, np.arange(3))))
    assert text.count("erf_inv") == 2, text  # the other one draws the initial noise


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


def test_steps_outside_of_the_churn_window_draw_nothing():
    """Noise there is NaN and does not reach the result; inside, it does."""
    levels = grids.edm(8)
    window = (levels[4], levels[2])  # both ends included
    solver = edm.stochastic(S_churn=2, S_min=window[0], S_max=window[1])
    inside = np.isin(np.arange(8), (2, 3, 4))
    x = jnp.full((1, 2), levels[0])
    for spoiled, finite in ((~inside, True), (inside, False)):
        noise = np.where(spoiled[:, None, None], np.nan, np.zeros((8, 1, 2)))
        out = drive.run(solver, gaussian, x, levels, noise=noise)
        assert bool(jnp.all(jnp.isfinite(out))) == finite


def test_noise_that_is_added_to_the_result():
    """A grid that ends above 0 ends with noise, here of the last step's variance."""
    levels = np.array([4.0, 2.0, 1.0])
    solver, x = solvers.make("ddpm"), jnp.zeros((1, 1))
    noise = np.array([[[9.0]], [[0.0]], [[1.0]]])  # the first is never used
    got = drive.run(solver, gaussian, x, levels, noise=noise)
    np.testing.assert_allclose(got, np.sqrt(1 - 1 / 4), rtol=1e-6)


def test_trajectories_end_where_runs_do():
    levels, x = grids.edm(6), jnp.full((2, 3), 50.0)
    table, points = drive.trajectory(steps.heun, gaussian, x, levels)
    assert points.shape == (12, 2, 3) and len(table.sigma) == 11
    np.testing.assert_array_equal(points[0], x)
    np.testing.assert_allclose(points[-1], drive.run(steps.heun, gaussian, x, levels), rtol=1e-6)


def test_bad_grids_and_keys_are_refused():
    x = jnp.zeros((2, 3))
    for bad in ([1.0], [1.0, 2.0], [1.0, 1.0, 0.0], [2.0, -1.0], [np.inf, 1.0], [[2.0, 1.0]]):
        with pytest.raises(ValueError, match="finite, decreasing, and positive but for a last 0"):
            drive.run(steps.euler, gaussian, x, np.array(bad))
    with pytest.raises(ValueError, match="draws noise: pass `keys`"):
        drive.run(solvers.make("ddpm"), gaussian, x, grids.edm(4))
    with pytest.raises(ValueError, match=r"keys must have shape \(b,\) = \(2,\), got \(3,\)"):
        keys = rng.seed_keys(0, np.arange(3))
        drive.run(solvers.make("ddpm"), gaussian, x, grids.edm(4), keys=keys)

"""Training levels follow their distributions; schedules have inverses and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.noise import iddpm, levels, precondition, vp


@pytest.fixture(scope="module")
def keys():
    return rng.image_keys(jax.random.key(0), 4000)


def check_uniform(u):
    """A Kolmogorov distance that uniform numbers exceed once in 100,000 times."""
    u = np.sort(np.asarray(u, np.float64))
    assert u[0] > -1e-5 and u[-1] < 1 + 1e-5
    assert np.abs(u - np.linspace(0, 1, len(u))).max() < 2.5 / np.sqrt(len(u))


def test_time_and_level_are_inverse():
    t = np.concatenate([np.geomspace(1e-5, 1, 40), np.linspace(0, 1, 11)])
    np.testing.assert_allclose(vp.time(vp.sigma(t)), t, rtol=1e-12, atol=1e-15)
    single = vp.time(vp.sigma(jnp.asarray(t, jnp.float32)))
    np.testing.assert_allclose(single, t, rtol=2e-6)  # small times keep their digits
    np.testing.assert_allclose(vp.sigma(t) ** 2 + 1, np.exp(19.9 / 2 * t**2 + 0.1 * t), rtol=1e-12)
    assert vp.sigma(1.0, beta_d=9.9, beta_min=0.3) < vp.sigma(1.0)


def test_the_iddpm_table_has_a_closed_form():
    """(u_j^2 + 1) abar_j is the same for all j; C_1 only limits u_0, where abar is 0."""
    for M, C_2 in ((1000, 0.008), (50, 0.02)):
        u, j = iddpm.table(M, 0.001, C_2), np.arange(1, M + 1)
        abar = np.sin(np.pi / 2 * j / (M * (C_2 + 1))) ** 2
        np.testing.assert_allclose(u[1:], np.sqrt(abar[-1] / abar - 1), rtol=1e-9, atol=1e-7)
        assert u[0] == pytest.approx(np.sqrt((u[1] ** 2 + 1) / 0.001 - 1))
    with pytest.raises(ValueError, match="read-only"):
        u[0] = 1


def test_vp_levels_have_uniform_times(keys):
    sigma = np.asarray(levels.vp(keys), np.float64)
    check_uniform(vp.time(sigma))
    precondition.check_levels(sigma, precondition.VP())


def test_ve_levels_are_log_uniform(keys):
    sigma = np.asarray(levels.ve(keys, 0.1, 50.0), np.float64)
    check_uniform(np.log(sigma / 0.1) / np.log(500))
    precondition.check_levels(levels.ve(keys), precondition.VE())


def test_iddpm_levels_are_those_of_the_table_but_the_last(keys):
    draw, _ = levels.training("iddpm", M=20)
    j = iddpm.nearest(np.asarray(draw(keys)), iddpm.table(20))
    count = np.bincount(j, minlength=21)
    assert count[20] == 0 and np.all(np.abs(count[:20] - 200) < 5 * np.sqrt(200))


def test_weights_undo_the_output_scale():
    """lambda = 1 / c_out^2 of the family whose prediction they weigh."""
    sigma = jnp.asarray([0.02, 0.4, 3.0, 60.0])
    of = lambda family, weight: weight(sigma) * family.scaling(sigma).c_out ** 2
    _, edm = levels.training("lognormal", sigma_data=0.3)
    np.testing.assert_allclose(of(precondition.EDM(0.3), edm), 1, rtol=1e-5)
    for family in (precondition.VP(), precondition.VE(), precondition.IDDPM()):
        _, noise = levels.training(family.name, "noise")
        np.testing.assert_allclose(of(family, noise), 1, rtol=1e-5)


def test_names_are_checked(keys):
    draw, _ = levels.training("lognormal", P_mean=-0.4, P_std=1.0)
    np.testing.assert_array_equal(draw(keys[:3]), levels.lognormal(keys, -0.4, 1.0)[:3])
    with pytest.raises(ValueError, match="unknown training levels 'normal'; known are lognormal, "):
        levels.training("normal")
    with pytest.raises(ValueError, match="unknown weight 'min_snr'; known are edm, noise"):
        levels.training("vp", "min_snr")

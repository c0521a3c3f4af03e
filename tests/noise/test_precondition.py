"""Four families: each recovers the image from what its network predicts, in its range of levels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.noise import iddpm, precondition
from jaxgen.noise.precondition import EDM, IDDPM, VE, VP, expand

FAMILIES = [EDM(), VP(), VE(), IDDPM()]
name_of = lambda f: f.name
SIGMA = jnp.asarray([0.03, 0.5, 4.0, 75.0])


@pytest.fixture(scope="module")
def images():
    y = 0.5 * np.random.RandomState(0).randn(4, 3, 3, 2).astype(np.float32)
    n = np.random.RandomState(1).randn(4, 3, 3, 2).astype(np.float32)
    return jnp.asarray(y), jnp.asarray(n)


@pytest.mark.parametrize("family", FAMILIES, ids=name_of)
def test_the_right_prediction_gives_the_image_back(family, images):
    """F = n for VP and iDDPM, -n for VE, (y - c_skip x) / c_out for EDM; other channels unused."""
    y, n = images
    x = y + expand(SIGMA, y) * n
    s = family.scaling(SIGMA)
    right = {"vp": n, "iddpm": n, "ve": -n}.get(
        family.name, (y - expand(s.c_skip, y) * x) / expand(s.c_out, y)
    )
    seen = {}

    def raw(x, c_noise, cond, train=False):
        seen.update(x=x, c_noise=c_noise, cond=cond, train=train)
        return jnp.concatenate([right] + [jnp.nan * n] * (family.outputs - 1), -1)

    got = precondition.denoiser(raw, family)(x, SIGMA, {"label": n}, train=True)
    np.testing.assert_allclose(got, y, atol=1e-5 * 75)
    np.testing.assert_allclose(got[:2], y[:2], atol=1e-6)
    np.testing.assert_allclose(seen["x"], expand(s.c_in, x) * x, rtol=1e-6)
    assert seen["c_noise"].shape == (4,) and seen["cond"].keys() == {"label"} and seen["train"]


@pytest.mark.parametrize("family", FAMILIES, ids=name_of)
def test_c_noise_rises_over_the_whole_range(family):
    low, high = max(family.sigma_min, 1e-3), min(family.sigma_max, 1e3)
    sigma = np.geomspace(low, high, 60)
    c_noise = np.asarray(family.scaling(jnp.asarray(sigma, jnp.float32)).c_noise)
    apart = np.diff(c_noise) >= 0 if family.name == "iddpm" else np.diff(c_noise) > 0
    assert np.all(apart) and np.all(np.isfinite(c_noise))
    precondition.check_levels(sigma, family)
    precondition.check_levels(np.float32([low, high]), family)  # ends survive float32


def test_inputs_have_unit_variance_where_the_family_scales_them():
    for family, sd in ((EDM(0.3), 0.3), (VP(), 1), (IDDPM(), 1)):
        c_in = family.scaling(SIGMA).c_in
        np.testing.assert_allclose(c_in**2 * (SIGMA**2 + sd**2), 1, rtol=1e-5, err_msg=family.name)
    np.testing.assert_array_equal(VE().scaling(SIGMA).c_in, 1)


def test_iddpm_levels_are_rounded_to_the_table():
    family, u = IDDPM(), IDDPM().table
    np.testing.assert_array_equal(family.round_sigma(u), u)
    c_noise = family.scaling(jnp.asarray(u[:-1], jnp.float32)).c_noise
    np.testing.assert_array_equal(c_noise, 999 - np.arange(1000))
    query = np.geomspace(1e-4, 1e5, 200).reshape(2, 100)
    brute = np.abs(u[:, None, None] - query).argmin(0)
    np.testing.assert_array_equal(iddpm.nearest(query, u), brute)
    np.testing.assert_array_equal(iddpm.nearest(jnp.asarray(query, jnp.float32), u), brute)
    host, device = family.round_sigma(query), family.round_sigma(jnp.asarray(query, jnp.float32))
    assert host.dtype == np.float64 and isinstance(device, jax.Array)
    np.testing.assert_allclose(device, host, rtol=1e-6)
    assert family.round_sigma(3) == u[np.abs(u - 3).argmin()]  # numbers too, as float64
    for other in FAMILIES[:3]:
        assert other.round_sigma(0.1234) == 0.1234


def test_families_by_name():
    assert precondition.family("edm", sigma_data=0.25) == EDM(0.25) != EDM()
    assert precondition.family("iddpm", M=100).table.shape == (101,)
    with pytest.raises(ValueError, match="unknown preconditioning 'edm3'; known are edm, vp, ve, "):
        precondition.family("edm3")
    with pytest.raises(ValueError, match=r"'vp' takes beta_d, beta_min, M, epsilon_t, got \['sigm"):
        precondition.family("vp", sigma_data=0.5)


@pytest.mark.parametrize("family", FAMILIES, ids=name_of)
def test_levels_outside_of_the_range_are_refused_before_the_network_runs(family):
    def raw(*_):
        raise AssertionError("the network was called")

    x = np.zeros((2, 3, 3, 1), np.float32)
    bad = [0.0, -1.0, np.nan, np.inf]
    bad += [family.sigma_min * 0.9] + ([family.sigma_max * 1.1] if family.name != "edm" else [])
    for sigma in bad:
        with pytest.raises(ValueError, match=f"outside of what '{family.name}' preconditioning su"):
            precondition.denoiser(raw, family)(x, np.array([1.0, sigma], np.float32))


def test_a_network_with_the_wrong_channels_is_explained():
    x, sigma = jnp.zeros((2, 3, 3, 1)), jnp.ones(2)
    same = lambda x, c_noise, cond: x
    text = r"'iddpm' preconditioning expects a network output of shape \(2, 3, 3, 2\) .* got \(2, 3"
    with pytest.raises(ValueError, match=text):
        precondition.denoiser(same, IDDPM())(x, sigma)
    twice = lambda x, c_noise, cond: jnp.concatenate([x, x], -1)
    with pytest.raises(ValueError, match="'edm' preconditioning expects"):
        precondition.edm(twice, 0.5)(x, sigma)

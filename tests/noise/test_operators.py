"""Noise families: closed forms of mean, variance and coverage; noise that belongs to the image."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.noise import operators

RAMP = np.broadcast_to(np.linspace(-1, 1, 16, dtype=np.float32)[:, None, None], (16, 16, 3))


def keys_of(n: int, seed: int = 0):
    return rng.image_keys(jax.random.key(seed), n)


def draws(name: str, n: int, x=RAMP, **settings) -> np.ndarray:
    """n corruptions of one image, (n, h, w, c) float64."""
    x = jnp.broadcast_to(jnp.asarray(x), (n, *x.shape))
    corrupt = jax.jit(operators.make(name, **settings).corrupt)
    return np.asarray(corrupt(keys_of(n), x), np.float64)


def test_gaussian_levels_are_grey_levels():
    n = operators.gaussian(keys_of(64), jnp.zeros((64, 16, 16, 3)), 25.0)
    np.testing.assert_allclose(n.std() * 127.5, 25, rtol=0.01)
    np.testing.assert_allclose(n.mean(), 0, atol=0.005)
    same = operators.gaussian(keys_of(64), jnp.ones((64, 2, 2, 1)), 0.0)
    np.testing.assert_array_equal(same, 1.0)


def test_a_range_draws_one_level_an_image():
    keys = keys_of(2000)
    levels = operators.levels(keys, (10.0, 50.0))
    assert 10 <= float(levels.min()) < 11 and 49 < float(levels.max()) <= 50
    np.testing.assert_allclose(levels.mean(), 30, atol=1)
    n = operators.gaussian(keys[:64], jnp.zeros((64, 32, 32, 1)), (10.0, 50.0)) * 127.5
    stds = np.asarray(n.std((1, 2, 3)))
    assert stds.min() < 16 and stds.max() > 44 and stds.min() > 9 and stds.max() < 54


def test_corrupt_is_a_level_with_one_half_of_the_key_and_the_noise_with_the_other():
    x, op = jnp.asarray(RAMP)[None].repeat(3, 0), operators.make("gaussian", sigma=(5.0, 50.0))
    first, second = rng.split(keys_of(3), 2)
    want = op.apply(second, x, op.levels(first))
    np.testing.assert_array_equal(op.corrupt(keys_of(3), x), want)
    np.testing.assert_array_equal(operators.gaussian(keys_of(3), x, (5.0, 50.0)), want)


def test_poisson_has_the_mean_and_the_variance_of_counts():
    lam = 20.0
    y01 = (draws("poisson", 500, lam=lam) + 1) / 2
    x01 = (RAMP.astype(np.float64) + 1) / 2
    counts = y01 * lam
    np.testing.assert_allclose(counts, np.round(counts), atol=1e-4)
    tolerance = 5 * np.sqrt(x01 / lam / 500) + 1e-9
    assert np.all(np.abs(y01.mean(0) - x01) < tolerance)
    rows = y01.transpose(1, 0, 2, 3).reshape(16, -1)  # each row of the ramp has one value
    np.testing.assert_allclose(rows.var(1), x01[:, 0, 0] / lam, rtol=0.05)
    assert y01.max() > 1.2  # not clipped


def test_bernoulli_keeps_whole_pixels_with_probability_p_and_says_which():
    x = np.full((16, 16, 3), 0.5, np.float32)
    y = draws("bernoulli", 200, x, p=0.3)
    kept = y != 0
    np.testing.assert_array_equal(kept, kept[..., :1].repeat(3, -1))
    np.testing.assert_array_equal(y, 0.5 * kept)
    n = kept[..., 0].size
    assert abs(kept.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / n)
    observed = operators.make("bernoulli", p=0.3).observed(keys_of(200), jnp.zeros_like(y))
    np.testing.assert_array_equal(observed, kept[..., :1])


def test_impulse_replaces_whole_pixels_by_uniform_colours():
    alpha, x = 0.4, np.full((16, 16, 3), 2.0, np.float32)  # 2 is no colour of the noise
    y = draws("impulse", 200, x, alpha=alpha)
    replaced = y != 2.0
    np.testing.assert_array_equal(replaced, replaced[..., :1].repeat(3, -1))
    n = replaced[..., 0].size
    assert abs(replaced.mean() - alpha) < 5 * np.sqrt(alpha * (1 - alpha) / n)
    colours = y[replaced[..., 0]]
    assert colours.min() >= -1 and colours.max() < 1
    np.testing.assert_allclose(colours.mean(0), 0, atol=5 * np.sqrt(1 / 3 / len(colours)))
    np.testing.assert_allclose(np.cov(colours.T), np.eye(3) / 3, atol=0.01)


SETTINGS = {  # small, with a range where there is a level
    "gaussian": {"sigma": (10.0, 50.0)},
    "poisson": {"lam": (5.0, 50.0)},
    "bernoulli": {"p": (0.2, 0.8)},
    "impulse": {"alpha": (0.2, 0.8)},
    "text": {"p": (0.1, 0.5)},
    "monte_carlo": {"spp": (2, 6)},
    "fourier": {"rate": (0.1, 0.5)},
    "kspace": {"rate": 0.3, "sigma": 0.1},
    "blur": {"sigma": 0.1},
    "mask": {"keep": 0.5, "sigma": 0.1},
    "downsample": {"sigma": 0.1},
    "parallel_beam": {"size": 8, "angles": 3, "sigma": 0.1},
    "helical": {"size": 8, "depth": 1, "turn": 4, "sigma": 0.1},
}


@pytest.mark.parametrize("name", operators.NAMES)
def test_noise_belongs_to_the_image_not_to_its_place_or_device(name):
    keys = keys_of(16)
    x = jnp.tanh(jax.random.normal(jax.random.key(1), (16, 8, 8, 1)))
    run = jax.jit(operators.make(name, **SETTINGS[name]).corrupt)
    y = run(keys, x)
    assert jnp.all(jnp.isfinite(y)) and y.dtype == x.dtype
    order = jnp.arange(16)[::-1]
    np.testing.assert_allclose(run(keys[order], x[order]), y[order], atol=1e-6)
    put = lambda a: jax.device_put(a, batch_sharding(make_mesh(data=-1)))
    np.testing.assert_allclose(run(put(keys), put(x)), y, atol=1e-6)


@pytest.mark.parametrize("sigma", [-1.0, (5.0, 2.0), (1.0, 2.0, 3.0), "a"])
def test_errors_of_gaussian_levels(sigma):
    with pytest.raises(ValueError, match="sigma is a level >= 0 in grey levels"):
        operators.gaussian(keys_of(2), jnp.zeros((2, 4, 4, 1)), sigma)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("parallel_beam", {"size": 8}, "'parallel_beam' needs angles, and got {'size': 8}"),
        ("gausian", {}, r"unknown operator 'gausian' \(did you mean 'gaussian'\?\)"),
        ("poisson", {"lamda": 3}, r"no setting 'lamda' \(did you mean 'lam'\?\); it takes lam"),
        ("poisson", {"lam": 0.0}, "lam is the expected count at white.*from 0.001 to .*got 0.0"),
        ("bernoulli", {"p": 1.5}, "p is the probability that a pixel is kept.*got 1.5"),
        ("impulse", {"alpha": (0.5, 1.5)}, "alpha is the probability that a pixel is replaced"),
        ("text", {"p": 1.0}, "p is the part of the pixels that text covers.*to 0.95; got 1.0"),
        ("monte_carlo", {"spp": 0}, "spp is the number of paths a pixel.*got 0"),
        ("monte_carlo", {"spp": (1, 2.5)}, "spp is a whole number of paths or a range of them"),
        ("monte_carlo", {"hit": 0.0}, r"hit is a probability in \(0, 1\], got 0.0"),
        ("monte_carlo", {"tail": 2.0}, "tail must be above 2, else the variance is infinite: 2.0"),
        ("fourier", {"rate": 0.0}, "rate is the expected part of the frequencies that are meas"),
        ("kspace", {"rate": (0.1, 0.2)}, "rate of k-space is one number"),
        ("kspace", {"sigma": -1.0}, "sigma is the standard deviation of the measurement noise"),
        ("blur", {"std": 0.0}, "std of a blur is in pixels, above 0; got 0.0"),
        ("blur", {"kernel": [[1.0, 2.0]]}, r"with a and b odd, got shape \(1, 2\)"),
        ("mask", {"box": 1.0}, r"a mask needs box in \[0, 1\) and keep in \(0, 1\], got 1.0 and"),
        ("downsample", {"factor": 0}, "a whole factor >= 1 and a kernel of box.*got 0 and 'box'"),
        ("downsample", {"kernel": "sinc"}, "box, triangle, cubic; got 2 and 'sinc'"),
    ],
)
def test_errors_of_the_registry(name, settings, message):
    with pytest.raises(ValueError, match=message):
        operators.make(name, **settings)


def test_settings_from_a_config_may_be_lists():
    op = operators.make("gaussian", sigma=[5.0, 10.0])
    assert dataclasses.asdict(op) == {"sigma": (5.0, 10.0)}

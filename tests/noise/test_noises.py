"""Text, Monte Carlo and Fourier noise: coverage, moments and unbiasedness in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate

from jaxgen.common import rng
from jaxgen.noise import fourier, operators, text_overlay


def keys_of(n: int, seed: int = 0):
    return rng.image_keys(jax.random.key(seed), n)


def many(op, x: np.ndarray, n: int) -> np.ndarray:
    x = jnp.broadcast_to(jnp.asarray(x, jnp.float32), (n, *x.shape))
    return np.asarray(jax.jit(op.corrupt)(keys_of(n), x), np.float64)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.4])
def test_text_covers_the_part_p_in_expectation(p):
    """One string covers up to a third of these images: the last draw matters."""
    n = 1500
    y = many(operators.make("text", p=p), np.full((16, 24, 1), 3.0), n)
    covered = (y != 3.0).mean((1, 2, 3))
    assert abs(covered.mean() - p) <= 4 * covered.std() / np.sqrt(n)
    assert p == 0 or covered.std() > 0.02


def test_text_is_made_of_letters_of_one_colour_a_string():
    mark = np.asarray(jax.vmap(lambda k: text_overlay.string(k, 40, 80))(keys_of(300)))
    sizes = mark.sum((1, 2))
    letters = text_overlay.glyphs().sum((1, 2))
    assert sizes.max() <= 10 * letters.max() and (sizes > 3 * letters.min()).mean() > 0.5
    assert not mark.all(2).any()  # a string has gaps
    y = many(operators.make("text", p=0.02), np.full((64, 64, 3), 3.0), 8)
    for image in y:  # little text: a few strings
        colours = np.unique(image[image[..., 0] != 3.0], axis=0)
        assert len(colours) <= 6 and np.all(np.abs(colours) <= 1)


def test_letters_differ_and_fit():
    glyphs = text_overlay.glyphs()
    assert glyphs.shape == (len(text_overlay.FONT), 7, 6) and not glyphs[..., -1].any()
    assert len({g.tobytes() for g in glyphs}) == len(glyphs)
    rows = ["".join(".#"[int(v)] for v in row) for row in glyphs[0]]  # A
    assert rows[:4] == [".###..", "#...#.", "#...#.", "#####."]
    assert text_overlay.largest(32, 32) == 1 and text_overlay.largest(256, 300) == 5


@pytest.mark.parametrize(("hit", "tail"), [(1.0, 3.0), (0.3, 4.0), (0.05, 8.0)])
def test_a_path_has_mean_one_and_the_stated_second_moment(hit, tail):
    """By quadrature in v, u = v^8, which makes the integrand of the long tail smooth."""
    with jax.enable_x64(True):
        path = operators.make("monte_carlo", hit=hit, tail=tail).path
        f = lambda v, power: float(path(jnp.asarray(v**8))) ** power * 8 * v**7
        top = hit ** (1 / 8)
        mean = scipy.integrate.quad(f, 0, top, (1,), epsabs=1e-8)[0]
        second = scipy.integrate.quad(f, 0, top, (2,), epsabs=1e-8, limit=200)[0]
    np.testing.assert_allclose(mean, 1, rtol=1e-4)
    # u below 2^-24 is cut off, which takes some of the tail where its variance is nearly infinite.
    want = 2 * (tail - 1) / (tail - 2) / hit
    np.testing.assert_allclose(second, want, rtol=0.01)


def test_monte_carlo_noise_is_unbiased_proportional_to_radiance_and_common_to_channels():
    x = np.stack([np.full((8, 8, 2), v) for v in (-1.0, 0.0, 1.0)], 1).reshape(8, 24, 2)
    op = operators.make("monte_carlo", spp=8, hit=0.5, tail=8.0)
    y01 = (many(op, x, 1500) + 1) / 2
    np.testing.assert_allclose(y01[..., 0], y01[..., 1], atol=1e-6)
    by_value = y01[..., 0].reshape(1500, 8, 3, 8).transpose(2, 0, 1, 3).reshape(3, -1)
    std = np.sqrt((2 * 7 / 6 / 0.5 - 1) / 8)
    for value, row in zip((0.0, 0.5, 1.0), by_value):
        assert abs(row.mean() - value) <= 5 * value * std / np.sqrt(row.size)
        np.testing.assert_allclose(row.std(), value * std, rtol=0.02)
    assert y01.max() > 4  # fireflies


def test_a_range_of_paths_is_whole_and_the_paths_are_counted():
    op = operators.make("monte_carlo", spp=(2, 5), hit=1.0)
    spp = np.asarray(op.levels(keys_of(400)))
    assert set(spp) == {2.0, 3.0, 4.0, 5.0} and np.bincount(spp.astype(int))[2:].min() > 70
    one = operators.make("monte_carlo", spp=4, hit=0.5)
    share = (many(one, np.ones((16, 16, 1)), 64) == -1).mean()
    np.testing.assert_allclose(share, 0.5**4, rtol=0.1)  # no path finds the light


def test_fourier_measures_the_stated_part_and_always_the_mean():
    for h, w in ((16, 24), (15, 9)):
        for rate in (0.1, 0.35, 1.0):
            p = np.asarray(fourier.probability(jnp.array([rate]), h, w))[0]
            np.testing.assert_allclose(p.mean(), rate, rtol=2e-3)
            k = 2 * np.hypot(np.fft.fftfreq(h)[:, None], np.fft.fftfreq(w))
            lam = -np.log(p[0, 1]) / k[0, 1]
            np.testing.assert_allclose(p, np.exp(-lam * k), rtol=1e-3)
    x = jnp.zeros((400, 16, 24, 1))
    mask, p = operators.make("fourier", rate=0.2).observed(keys_of(400), x)
    mask = np.asarray(mask)[..., 0]
    assert mask[:, 0, 0].all() and abs(mask.mean() - 0.2) < 0.005
    p = np.asarray(p)[0, ..., 0]
    assert np.all(np.abs(mask.mean(0) - p) < 5 * np.sqrt(p * (1 - p) / 400) + 1e-6)
    np.testing.assert_array_equal(mask, fourier.negative(mask))  # k and -k together
    flat = np.roll(mask[:, ::-1, ::-1], (1, 1), (1, 2))
    np.testing.assert_array_equal(mask, flat)


def test_fourier_noise_is_unbiased_with_the_variance_of_russian_roulette():
    """Var of the spectrum is |F|^2 (1 / p - 1); by Parseval its sum is that of the image."""
    n, rng_ = 4000, np.random.default_rng(0)
    x = rng_.uniform(-1, 1, (8, 10, 1))
    y = many(operators.make("fourier", rate=0.4), x, n)
    p = np.asarray(fourier.probability(jnp.array([0.4]), 8, 10))[0]
    spectrum = np.abs(np.fft.fft2(x[..., 0], norm="ortho")) ** 2
    variance = (spectrum * (1 / p - 1)).sum()
    error = y.mean(0) - x
    assert (error**2).sum() < 1.5 * variance / n
    np.testing.assert_allclose(((y - x) ** 2).sum((1, 2, 3)).mean(), variance, rtol=0.05)


def test_replacing_known_frequencies_keeps_the_others():
    op, keys = operators.make("fourier", rate=0.3), keys_of(2)
    x, result = jax.random.uniform(jax.random.key(1), (2, 2, 8, 12, 3), minval=-1)
    y = op.corrupt(keys, x)
    mask, p = op.observed(keys, x)
    got = np.fft.fft2(fourier.replace(result, y, mask, p), axes=(1, 2))
    want = np.where(mask, np.fft.fft2(x, axes=(1, 2)), np.fft.fft2(result, axes=(1, 2)))
    np.testing.assert_allclose(got, want, atol=2e-5)
    same = fourier.replace(x, y, mask, p)
    np.testing.assert_allclose(same, x, atol=1e-5)

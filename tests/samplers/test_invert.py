"""Inversion: the regulariser's expectation, the schedules, and an image of a toy found again."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_styles import DIM, PARAMS, generator

from jaxgen.samplers import invert

RNG = np.random.default_rng(0)


def test_white_noise_has_the_expected_correlation():
    """E = sum over sizes of 2 / r^2: products of neighbours are uncorrelated, of mean 0."""
    noise = np.float32(RNG.normal(size=(4000, 32, 32)))
    both = jax.jit(jax.vmap(lambda n: [invert.autocorrelation(x) for x in (n, n[:4, :4])]))
    whole, small = both(noise)
    np.testing.assert_allclose(whole.mean(), 2 * (32**-2 + 16**-2 + 8**-2), rtol=0.05)
    np.testing.assert_allclose(small.mean(), 2 / 16, rtol=0.1)


def test_smooth_and_striped_planes_are_far_from_it():
    """A plane that all neighbours share has correlation 1, twice a size; stripes have -1 and 1."""
    correlation = jax.jit(invert.autocorrelation)
    assert correlation(np.ones((16, 16), "f4")) == 2 + 2 * 2**4  # 2 x 2 means of 1, times 2
    assert correlation(np.tile(np.float32([1, -1]), (16, 8))) == 2
    wave = np.sin(2 * np.pi * np.arange(16) / 16)
    plane = np.float32(wave[:, None] + wave)  # of mean 0 and variance 1
    assert correlation(plane) > 2 > 40 * (2 * 16**-2 + 2 * 8**-2)


def test_planes_are_renormalised():
    x = np.asarray(invert.renormalised(np.float32(3 + 5 * RNG.normal(size=(8, 8)))))
    np.testing.assert_allclose([x.mean(), (x**2).mean()], [0, 1], atol=1e-6)


def test_the_rate_rises_and_falls_as_published():
    at = np.array([0, 25, 50, 400, 750, 875, 1000]) / 1000
    got = invert.rate_at(at, invert.Settings())
    np.testing.assert_allclose(got, [0, 0.05, 0.1, 0.1, 0.1, 0.05, 0], atol=1e-7)


def test_the_centre_of_styles():
    ws = np.float32(RNG.normal(size=(20_000, 3)) * [1, 2, 3] + 5)
    mean, sigma = invert.centre(ws)
    np.testing.assert_allclose(mean, 5, atol=0.1)
    np.testing.assert_allclose(sigma, np.sqrt(14), rtol=0.02)


@pytest.fixture(scope="module")
def inverted():
    """(the style of a toy's image, the squared error before, and after, and the last state)."""
    settings = invert.Settings(steps=300, alpha=1.0)
    w = jnp.array([0.9, -1.2, 0.7])

    def synthesis(w, planes):
        p = {**PARAMS["generator"], **planes}
        return generator({"generator": p}, {}).synthesis(w)

    x = synthesis(w[None], {})
    distance = lambda image: jnp.square(image - x).mean((1, 2, 3))
    advance = jax.jit(
        partial(invert.advance, synthesis=synthesis, distance=distance, settings=settings)
    )
    state = invert.start(jnp.zeros(DIM), {"noise_const": x[0, ..., 0]}, jax.random.key(3))
    before = distance(synthesis(state.w[None], state.planes))
    whole = advance(state, 0, 300, jax.random.key(4), 1.0)
    parts = state
    for first in range(0, 300, 100):
        parts = advance(parts, first, first + 100, jax.random.key(4), 1.0)
    return w, before, distance(synthesis(whole.w[None], whole.planes)), whole, parts


def test_an_image_of_the_generator_is_found_again(inverted):
    w, before, after, state, _ = inverted
    assert float(before[0]) > 100 * float(after[0])
    np.testing.assert_allclose(state.w, w, atol=0.1)


def test_planes_stay_white_and_normal(inverted):
    plane = inverted[3].planes["noise_const"]
    np.testing.assert_allclose([plane.mean(), jnp.square(plane).mean()], [0, 1], atol=1e-5)
    assert float(invert.autocorrelation(plane)) < 2 / 64


def test_parts_make_the_whole(inverted):
    """Progress is looked at between parts, which changes nothing."""
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), *inverted[3:])

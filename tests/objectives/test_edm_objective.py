"""EDM's loss, label dropout and the noisy classifier, where the best answer is known."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.noise import levels
from jaxgen.noise.precondition import expand
from jaxgen.objectives import classify, edm, edm2, label_dropout

SD = 0.5
DRAW, WEIGHT = levels.training("lognormal", sigma_data=SD)


def shrink(factor):
    """`factor` times E[y | x] for y ~ N(0, SD^2)."""
    return lambda x, sigma, cond=None: factor * x * SD**2 / (SD**2 + expand(sigma, x) ** 2)


@pytest.fixture(scope="module")
def data():
    keys = rng.image_keys(jax.random.key(0), 64)
    return SD * rng.normal(keys, (8, 8, 1)), rng.image_keys(jax.random.key(1), 64)


@pytest.fixture(scope="module")
def loss(data):
    keys = data[1]
    return jax.jit(lambda factor, y: edm.loss(shrink(factor), y, keys, None, DRAW, WEIGHT))


def test_the_best_denoiser_has_unit_loss_and_no_gradient(loss, data):
    each, metrics = loss(1.0, data[0])
    assert each.shape == metrics["mse"].shape == (64,)
    assert float(metrics["mse"].mean()) == pytest.approx(1, abs=0.06)
    np.testing.assert_allclose(each, 64 * metrics["mse"], rtol=1e-5)  # a sum over pixels
    worse = [float(loss(f, data[0])[0].mean()) for f in (0.9, 1.0, 1.1)]
    assert worse[1] < min(worse[0], worse[2])


def test_an_example_does_not_see_its_batch(loss, data):
    y = data[0]
    np.testing.assert_array_equal(loss(1.0, y.at[1:].set(7.0))[0][0], loss(1.0, y)[0][0])


def test_edm2_with_no_uncertainty_is_edm(loss, data):
    y, keys = data
    both = edm2.loss(shrink(0.8), lambda s: 0 * s, y, keys, P_mean=-1.2, P_std=1.2, sigma_data=SD)
    np.testing.assert_allclose(both[0], loss(0.8, y)[0], rtol=2e-5)


def test_conditions_reach_the_denoiser(data):
    y, cond = data[0], {"label": jnp.ones((64, 3))}
    seen = []
    denoise = lambda x, sigma, cond: seen.append(cond) or x
    edm.loss_at(denoise, y, jnp.ones(64), y, cond, WEIGHT)
    assert seen == [cond]


def test_label_dropout_zeroes_whole_rows(data):
    keys = rng.image_keys(jax.random.key(2), 2000)
    label = jax.nn.one_hot(jnp.arange(2000) % 5, 5)
    got = np.asarray(label_dropout.drop(keys, label, 0.2))
    kept = got.any(1)
    assert kept.mean() == pytest.approx(0.8, abs=0.04)
    np.testing.assert_array_equal(got[kept], label[kept])
    np.testing.assert_array_equal(label_dropout.drop(keys, label, 0.0), label)
    np.testing.assert_array_equal(label_dropout.drop(keys, label, 1.0), 0)
    np.testing.assert_array_equal(label_dropout.drop(keys[5:9], label[5:9], 0.2), got[5:9])


def test_the_exact_classifier_is_best_and_as_right_as_it_can_be():
    """Images +1 or -1 everywhere: log odds are 2 sum(x) / sigma^2, right with Phi(4 / sigma)."""
    b, sigma = 4000, 3.0
    label = jax.nn.one_hot(jnp.arange(b) % 2, 2)
    y = jnp.where(label[:, :1] > 0, 1.0, -1.0)[:, :, None, None] * jnp.ones((b, 4, 4, 1))
    draw = lambda keys: jnp.full(keys.shape, sigma)

    def exact(beta):
        def logits(x, sigma):
            half = beta * x.sum((1, 2, 3)) / sigma**2
            return jnp.stack([half, -half], -1)

        return logits

    keys = rng.image_keys(jax.random.key(3), b)
    run = jax.jit(lambda beta: classify.loss(exact(beta), y, label, keys, draw))
    each, metrics = run(1.0)
    assert each.shape == metrics["accuracy"].shape == (b,)
    want = 0.5 * (1 + math.erf(4 / sigma / 2**0.5))
    assert float(metrics["accuracy"].mean()) == pytest.approx(want, abs=0.02)
    assert float(each.mean()) < min(float(run(beta)[0].mean()) for beta in (0.6, 1.6))
    np.testing.assert_allclose(run(0.0)[0], np.log(2), rtol=1e-6)  # knows nothing


def test_logits_of_another_shape_are_explained():
    y, label = jnp.zeros((2, 4, 4, 1)), jnp.eye(3)[:2]
    with pytest.raises(ValueError, match=r"logits of the labels' shape \(2, 3\), one-hot, got"):
        classify.loss_at(lambda x, sigma: jnp.zeros((2, 5)), y, label, jnp.ones(2), y)

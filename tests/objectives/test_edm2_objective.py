"""The EDM2 loss on data whose best denoiser is known; preconditioning and layers keep unit size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params as parameters
from jaxgen.common import rng, trees
from jaxgen.networks import edm2
from jaxgen.nn import magnitude
from jaxgen.noise import levels, precondition
from jaxgen.objectives import edm2 as objective

SD = 0.5


def best(x, sigma, cond=None):
    """E[y | x] for y ~ N(0, SD^2)."""
    return x * SD**2 / (SD**2 + precondition.expand(sigma, x) ** 2)


def test_the_best_denoiser_has_unit_loss_at_every_level():
    y = SD * jax.random.normal(jax.random.key(0), (64, 16, 16, 1))
    eps = jax.random.normal(jax.random.key(1), y.shape)
    for sigma in (0.01, 0.3, 2.0, 40.0):
        s = jnp.full((64,), sigma)
        each, metrics = objective.loss_at(best, lambda s: 0 * s, y, s, eps, sigma_data=SD)
        assert float(metrics["mse"].mean()) == pytest.approx(1, abs=0.03)
        np.testing.assert_allclose(each, metrics["mse"] * 256, rtol=1e-5)


def test_the_best_uncertainty_is_the_log_of_the_loss():
    y = SD * jax.random.normal(jax.random.key(0), (256, 8, 8, 1))
    sigma = jnp.full((256,), 0.7)
    eps = jax.random.normal(jax.random.key(1), y.shape)
    off = lambda x, s, c=None: 0.8 * best(x, s)
    mean = lambda u: objective.loss_at(off, lambda s: u + 0 * s, y, sigma, eps)[0].mean()
    mse = objective.loss_at(off, lambda s: 0 * s, y, sigma, eps)[1]["mse"].mean()
    assert float(jax.grad(mean)(jnp.log(mse))) == pytest.approx(0, abs=1e-2)
    assert mean(jnp.log(mse)) < min(mean(jnp.log(mse) + 0.3), mean(jnp.log(mse) - 0.3))


def test_levels_are_log_normal():
    sigma = levels.lognormal(rng.image_keys(jax.random.key(0), 20_000), -0.8, 1.6)
    assert float(jnp.log(sigma).mean()) == pytest.approx(-0.8, abs=0.05)
    assert float(jnp.log(sigma).std()) == pytest.approx(1.6, abs=0.05)


def test_preconditioning_keeps_inputs_and_targets_at_unit_variance():
    sigma = jnp.asarray([0.002, 0.1, 1.0, 80.0])
    s = precondition.edm_scaling(sigma, SD)
    np.testing.assert_allclose(s.c_in**2 * (SD**2 + sigma**2), 1, rtol=1e-5)
    # The target of F is (y - c_skip (y + n)) / c_out.
    variance = ((1 - s.c_skip) ** 2 * SD**2 + s.c_skip**2 * sigma**2) / s.c_out**2
    np.testing.assert_allclose(variance, 1, rtol=1e-3)
    with pytest.raises(
        ValueError, match=r"sigma must have shape \(b,\) = \(2,\), got \(2, 1, 1, 1\)"
    ):
        precondition.edm(lambda *a: a[0], SD)(jnp.ones((2, 4, 4, 1)), jnp.ones((2, 1, 1, 1)))


@pytest.fixture(scope="module")
def network():
    net = edm2.EDM2(
        channels=3, model_channels=16, channel_mult=(1, 2), num_blocks=0,
        attn_resolutions=(), label_dim=4, channels_per_head=16,
    )  # fmt: skip
    x = jnp.zeros((2, 8, 8, 3))
    params = parameters.init(net, jax.random.key(0), x, x[:, 0, 0, 0], {"label": jnp.eye(4)[:2]})
    return net, params


def test_the_output_starts_at_zero(network):
    net, params = network
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    out = jax.jit(net.apply)({"params": params}, x, jnp.zeros(2), {"label": jnp.eye(4)[:2]})
    np.testing.assert_array_equal(out, 0)


def test_the_size_of_a_weight_does_not_matter_and_projection_makes_it_one(network):
    net, params = network
    params = jax.tree.map(lambda x: x + 0.5 if x.ndim == 0 else x, params)  # gains away from 0
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 3))
    f = jax.jit(lambda p: net.apply({"params": p}, x, jnp.zeros(2), {"label": jnp.eye(4)[:2]}))
    large = trees.map_named(lambda n, w: 7 * w if n.endswith("/w") else w, params)
    np.testing.assert_allclose(f(large), f(params), atol=2e-3)
    for name, w in trees.leaves(edm2.project(large)).items():
        if name.endswith("/w"):
            rms = jnp.sqrt(jnp.mean(w**2, tuple(range(w.ndim - 1))))
            np.testing.assert_allclose(rms, 1, atol=2e-4, err_msg=name)
        else:
            np.testing.assert_array_equal(w, trees.leaves(params)[name])


def test_magnitudes_are_preserved():
    a, b = (jax.random.normal(jax.random.key(i), (64, 8, 8, 32)) for i in range(2))
    rms = lambda x: float(jnp.sqrt(jnp.mean(x**2)))
    conv = magnitude.MPConv(48, 3)
    variables = conv.init(jax.random.key(2), a)
    assert rms(conv.apply(variables, a)[:, 1:-1, 1:-1]) == pytest.approx(1, abs=0.03)
    assert rms(magnitude.mp_sum(a, b, 0.3)) == pytest.approx(1, abs=0.02)
    assert rms(magnitude.mp_cat(a, b, 0.3)) == pytest.approx(1, abs=0.02)
    assert rms(magnitude.mp_silu(a)) == pytest.approx(1, abs=0.02)
    assert rms(magnitude.pixel_norm(7 * a)) == pytest.approx(1, abs=1e-3)
    level = jnp.linspace(-2, 2, 512)
    fourier = magnitude.MPFourier(256)
    assert rms(fourier.apply(fourier.init(jax.random.key(3), level), level)) == pytest.approx(
        1, abs=0.03
    )


def test_wrong_conditions_and_sizes_are_explained(network):
    net, params = network
    call = lambda x, cond: net.apply({"params": params}, x, jnp.zeros(2), cond)
    x = jnp.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match=r"reads the condition 'label' only, got also \['text'\]"):
        call(x, {"text": x})
    with pytest.raises(ValueError, match=r"must be one-hot \(2, 4\), got \(2,\)"):
        call(x, {"label": jnp.zeros(2)})
    with pytest.raises(ValueError, match="divisible by 2, got 7 x 7"):
        call(jnp.zeros((2, 7, 7, 3)), None)


def test_bfloat16_compute_keeps_float32_parameters_gradients_and_outputs(network):
    net, params = network
    params = jax.tree.map(lambda x: x + 0.5 if x.ndim == 0 else x, params)
    half = net.clone(dtype=jnp.bfloat16)
    y = SD * jax.random.normal(jax.random.key(1), (8, 8, 8, 3))
    eps = jax.random.normal(jax.random.key(2), y.shape)
    sigma, cond = jnp.linspace(0.1, 2, 8), {"label": jnp.eye(4)[jnp.arange(8) % 4]}

    def mean(params, net):
        raw = lambda x, c, cond: net.apply({"params": params}, x, c, cond)
        denoise = precondition.edm(raw, SD)
        return objective.loss_at(denoise, lambda s: 0 * s, y, sigma, eps, cond, SD)[0].mean()

    value = jax.jit(jax.value_and_grad(mean), static_argnums=1)
    (a, ga), (b, gb) = value(params, net), value(params, half)
    assert b.dtype == jnp.float32 and all(g.dtype == jnp.float32 for g in jax.tree.leaves(gb))
    assert float(b) == pytest.approx(float(a), rel=0.02) and float(a) != float(b)
    flat = lambda t: np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)])
    assert np.linalg.norm(flat(gb) - flat(ga)) < 0.05 * np.linalg.norm(flat(ga))

"""The methods of recipe denoise: losses, who knows the noise level, limits, what does not fit."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import denoisers
from jaxgen.common import rng
from jaxgen.objectives import noise2self
from jaxgen.objectives.noise2noise import Seen
from jaxgen.recipes import denoise, denoise_methods
from jaxgen.recipes.denoise_setup import Setup

B, H = 3, 8
CONTEXT = types.SimpleNamespace(nimg=jnp.float32(500))
KEYS = rng.image_keys(jax.random.key(0), B)
NOISES = {"gaussian": ("sigma", (10.0, 50.0), 25.0), "poisson": ("lam", 30.0, 30.0)}
NOISES |= {"impulse": ("alpha", 0.3, 0.3), "bernoulli": ("p", 0.5, 0.5)}
NOISES |= {"fourier": ("rate", 0.3, 0.3), "monte_carlo": ("spp", 4, 4)}


def config_of(method="blindspot", noise="gaussian", **loss):
    c = denoisers.base("x", method)
    name, level, level_eval = NOISES[noise]
    denoisers.noise(c, noise, level_eval, **{name: level})
    c.dtype, c.images = "float32", "1000"
    c.model.network, c.model.features, c.model.depth = "blindspot", (2, 3), 1
    c.model.blind = method == "blindspot"
    c.loss.update(loss)
    return c


def batch_of(channels=1, b=B):
    image = np.random.default_rng(0).integers(0, 256, (b, H, H, channels)).astype(np.uint8)
    return {"image": jnp.asarray(image), "index": jnp.arange(b) + 7}


def built(config, channels=1):
    plan = denoise.build(config, {"shape": (H, H, channels)})
    return plan, {n: p.init(jax.random.key(1)) for n, p in plan.players.items()}


CASES = {
    "noise2noise": {},
    "noise2noise l1 bernoulli": {"norm": "l1"},
    "noise2noise l0 impulse": {"norm": "l0"},
    "noise2noise hdr monte_carlo": {"norm": "hdr", "tonemap": True},
    "noise2noise fourier": {},
    "noise2clean": {},
    "noise2void": {"box": 3},
    "noise2self": {},
    "blindspot": {},
    "blindspot per_image poisson": {"parameter": "per_image"},
    "blindspot global diagonal": {"parameter": "global", "covariance": "diagonal"},
    "blindspot global impulse": {"parameter": "global"},
    "blindspot none impulse": {"covariance": "none"},
}


@pytest.mark.parametrize("name", CASES)
def test_losses_have_gradients_for_all_that_is_trained(name):
    words, channels = name.split(), 3 if "diagonal" in name or "blindspot none" in name else 1
    noise = next((w for w in words if w in NOISES), "gaussian")
    plan, params = built(config_of(words[0], noise, **CASES[name]), channels)
    batch = batch_of(channels)

    def value(params):
        each, aux = plan.phases[0].loss(params, batch, KEYS, CONTEXT)
        assert each.shape == (B,)
        return each.mean(), aux.metrics

    (_, metrics), grads = jax.jit(jax.value_and_grad(value, has_aux=True))(params)
    for path, g in jax.tree.leaves_with_path(grads):
        behind = "per_image" in name and path[0].key == "noise" and path[1].key != "nin_c"
        # The mean brightness is always measured, and not the network's.
        behind |= "fourier" in name and [k.key for k in path[1:]] == ["nin_c", "b"]
        assert jnp.isfinite(g).all() and (behind or jnp.abs(g).max() > 0), path
    learned = CASES[name].get("parameter", "known") != "known"
    assert set(params) == ({"restorer", "noise"} if learned else {"restorer"})
    if learned:
        np.testing.assert_allclose(metrics["parameter"], 0.01915, atol=1e-5)


@pytest.fixture(scope="module")
def known():
    plan, params = built(config_of())
    return plan, params, jax.jit(plan.exports["restore"].fn(params, {}))


def test_a_known_level_weighs_prior_and_pixel(known):
    """Without noise the pixel stays; with very much of it, its own value does not count."""
    plan, _, restore = known
    x = jax.random.normal(jax.random.key(2), (2, H, H, 1))
    np.testing.assert_allclose(restore(x, jnp.zeros(2)), x, atol=0.03)
    many = jnp.full(2, 1e6)
    moved = restore(x.at[:, 2, 3].add(0.5), many) - restore(x, many)
    assert float(jnp.abs(moved[:, 2, 3]).max()) < 1e-5 < float(jnp.abs(moved).max())
    assert plan.sample.options == {"level": 25.0}


def test_restoring_may_reflect_and_training_may_not():
    """In 7x7 of 8x8, row and column 5 have copies: what is restored there depends on it, twice."""
    x = jax.random.normal(jax.random.key(2), (1, 7, 7, 1))
    own = {}
    for reflect in (True, False):
        method = denoise_methods.make(
            Setup.of(config_of(covariance="none", reflect=reflect), {"shape": (7, 7, 1)})
        )
        params = {"restorer": method.players["restorer"](jax.random.key(1))}
        restore = jax.jit(lambda x: method.restore(params, Seen(x)))  # noqa: B023
        own[reflect] = np.array(
            [float((restore(x.at[:, i, 5].add(1.0)) - restore(x))[0, i, 5, 0]) for i in range(7)]
        )
    assert (own[False] == 0).all() and (own[True] != 0).all()


def test_levels_are_given_where_they_are_known(known):
    restore = known[0].exports["restore"].fn(known[1], {})
    x = jnp.zeros((1, H, H, 1))
    with pytest.raises(ValueError, match="'blindspot' needs the noise level of each image"):
        restore(x)
    plan, params = built(config_of(parameter="global"))
    with pytest.raises(ValueError, match="'blindspot' does not use the noise level; leave it out"):
        plan.exports["restore"].fn(params, {})(x, jnp.ones(1))


def test_samples_have_the_level_that_is_asked_for(known):
    plan, params, restore = known
    out = jax.jit(lambda p: plan.sample.fn(p, KEYS, batch_of(), {}, level=40.0))(params)
    np.testing.assert_allclose((out["input"] - out["target"]).std() * 127.5, 40, rtol=0.2)
    np.testing.assert_allclose(out["image"], restore(out["input"], jnp.full(B, 40.0)), atol=1e-5)


def test_the_noises_parameter_has_a_rate_of_its_own():
    """The first step of Adam has the length of the rate."""
    config = config_of(parameter="global")
    config.optimizer.update({"lr": 0.01, "noise_lr": 20.0})
    plan = denoise.build(config, {"shape": (H, H, 1)})
    for player, want in (("noise", 0.2), ("restorer", 0.01)):
        optimizer, one = plan.players[player].optimizer, {"w": jnp.ones(())}
        update = jax.jit(lambda o: optimizer.update(o, optimizer.init(o), o, nimg=0.0)[0])  # noqa: B023
        np.testing.assert_allclose(update(one)["w"], -want, rtol=1e-4)


def test_pairs_are_the_same_whenever_an_image_comes():
    setup = Setup.of(config_of("noise2noise", pairs=True), {"shape": (H, H, 1)})
    batch = batch_of()
    for keys in (KEYS, rng.image_keys(jax.random.key(9), B)):
        _, got = setup.view(keys, batch)
        assert (
            jax.random.key_data(got)[0].tolist()
            == jax.random.key_data(
                setup.view(KEYS, {"image": batch["image"][:1], "index": batch["index"][:1]})[1]
            )[0].tolist()
        )
    other = setup.view(KEYS, batch | {"index": batch["index"] + 1})[1]
    assert (jax.random.key_data(other)[:-1] == jax.random.key_data(got)[1:]).all()
    config = config_of("noise2noise", pairs=True)
    config.data.crop = 4
    with pytest.raises(ValueError, match=r"pairs fixes the noise of whole images: set .*crop to 0"):
        denoise.build(config, {"shape": (H, H, 1)})


def test_measured_frequencies_are_put_into_results():
    """Fourier noise: a result of 0 becomes the image of what was measured."""
    setup = Setup.of(config_of("noise2noise", "fourier"), {"shape": (H, H, 1)})
    x = jax.random.normal(jax.random.key(2), (B, H, H, 1))
    seen = setup.observe(KEYS, x)
    got = seen.known(jnp.zeros_like(x))
    spectrum = lambda v: np.fft.fft2(v, axes=(1, 2))
    kept = np.abs(spectrum(got)) > 1e-4
    assert 0.05 < kept.mean() < 0.7
    np.testing.assert_allclose(spectrum(got)[kept], spectrum(x)[kept], atol=1e-4)


def test_the_invariant_function_restores_if_asked():
    plain, invariant = (
        denoise_methods.make(
            Setup.of(config_of("noise2self", grid=2, invariant=k), {"shape": (H, H, 1)})
        )
        for k in (False, True)
    )
    params = {"restorer": plain.players["restorer"](jax.random.key(0))}
    y = jax.random.normal(jax.random.key(2), (1, H, H, 1))
    f = lambda y: plain.restore(params, Seen(y))
    want = jax.jit(lambda y: noise2self.invariant(f, y, 2))(y)
    got = jax.jit(lambda y: invariant.restore(params, Seen(y)))(y)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert float(jnp.abs(got - f(y)).max()) > 1e-3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"loss.parameter": "learnt"}, r"parameter is one of .*, got 'learnt'"),
        ({"loss.covariance": "half"}, r"covariance must be one of .*, got 'half'"),
        ({"model.blind": False}, "needs a network that does not see a pixel's own value"),
        ({"noise": {"name": "text", "p": 0.2, "level_eval": 0.2}}, r"'text', known are \['gauss"),
        ({"loss.method": "noise2void", "loss.box": 2}, "got box 2, radius 2"),
        ({"loss.method": "noise2self", "loss.grid": 1}, "at least 2, got 1"),
        ({"loss.method": "noise2noise", "loss.norm": "l3"}, "norm must be one of .*, got 'l3'"),
    ],
)
def test_settings_that_do_not_fit(change, message):
    config = config_of()
    for path, value in change.items():
        config.update_from_flattened_dict({path: value}) if path != "noise" else setattr(
            config, path, value
        )
    with pytest.raises(ValueError, match=message):
        denoise.build(config, {"shape": (H, H, 1)})

"""StyleGAN: AdaIN's moments, styles by layer, noise, bilinear resampling, growing, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, rng, trees
from jaxgen.networks.stylegan import (
    FIXED,
    Discriminator,
    Generator,
    StyleLayer,
    adain,
    num_layers,
)
from jaxgen.nn.resample import blur, down2, up2
from jaxgen.objectives.style_mixing import mix_at

SMALL = {"resolution": 32, "label_dim": 3, "channel_base": 128, "channel_max": 8}
G = Generator(channels=2, z_dim=6, w_dim=5, mapping_layers=2, **SMALL)
Z = jax.random.normal(jax.random.key(0), (4, 6))
LAYERS = [f"b{s}_conv{j}" for s in (4, 8) for j in (0, 1)]
COND = {"label": jnp.eye(3)[jnp.array([0, 1, 2, 0])]}


@pytest.fixture(scope="module")
def made():
    """Params of size 8 while it fades in, all of them N(0, 1), so that none hides a mistake."""
    init = lambda: G.init(jax.random.key(0), Z, COND, size=8, alpha=0.5)["params"]
    gen = np.random.default_rng(0)
    return jax.tree.map(lambda x: gen.standard_normal(x.shape).astype("f4"), jax.eval_shape(init))


@pytest.fixture(scope="module")
def features():
    """(image, output of each of LAYERS) at size 8 for ws (b, 4, 5)."""

    @jax.jit
    def run(p, ws, keys):
        image, found = G.apply(
            {"params": p}, ws, keys, size=8, method="synthesis",
            capture_intermediates=lambda m, _: "conv" in (m.name or ""), mutable=["intermediates"],
        )  # fmt: skip
        layers = found["intermediates"]["synthesis"]
        return image, [layers[name]["__call__"][0] for name in LAYERS]

    return lambda *args: jax.device_get(run(*args))


def test_adain_sets_the_moments():
    gen = np.random.default_rng(0)
    x = 5 + 3 * gen.standard_normal((2, 8, 8, 4)).astype("f4")
    y_s, y_b = gen.standard_normal((2, 2, 4)).astype("f4")
    y = np.asarray(jax.jit(adain)(x, y_s, y_b))
    np.testing.assert_allclose(y.mean((1, 2)), y_b, atol=1e-5)
    np.testing.assert_allclose(y.std((1, 2)), np.abs(y_s), rtol=1e-5)
    np.testing.assert_allclose(jax.jit(adain)(x * 0 + 2, y_s, y_b)[:, 3, 3], y_b, atol=1e-6)


def test_every_layer_has_the_moments_of_its_style(made, features):
    ws = jax.random.normal(jax.random.key(2), (4, 4, 5))
    layers = features(made, ws, rng.image_keys(jax.random.key(3), 4))[1]
    p = made["synthesis"]
    for i, (name, x) in enumerate(zip(LAYERS, layers)):
        affine = lambda a: ws[:, i] @ a["w"] / 5**0.5 + a["b"]  # noqa: B023
        np.testing.assert_allclose(x.mean((1, 2)), affine(p[name]["shift"]), atol=1e-4)
        np.testing.assert_allclose(x.std((1, 2)), abs(affine(p[name]["scale"])), rtol=1e-2)


def test_mixed_styles_change_the_layers_after_the_crossover(made, features):
    a, b = jax.random.normal(jax.random.key(2), (2, 4, 5))
    cutoff = np.array([1, 2, 3, 4])  # the last is not mixed
    _, first = features(made, mix_at(a, a, cutoff, 4), None)
    _, mixed = features(made, mix_at(a, b, cutoff, 4), None)
    for i in range(4):
        same = [np.array_equal(x, y) for x, y in zip(first[i], mixed[i])]
        assert same == list(i < cutoff)


def test_noise_is_each_images_own_and_starts_at_nothing(made, features):
    ws = jnp.broadcast_to(jax.random.normal(jax.random.key(2), (5,)), (4, 4, 5))
    keys = rng.image_keys(jax.random.key(3), 4)
    image = features(made, ws, keys)[0]
    assert np.abs(image[0] - image[1]).max() > 1e-2
    order = np.array([2, 0, 3, 1])
    np.testing.assert_allclose(features(made, ws, keys[order])[0], image[order], atol=1e-5)
    constant = features(made, ws, None)[0]
    np.testing.assert_allclose(constant[0], constant[1], atol=1e-5)
    assert np.abs(image - constant).max() > 1e-2
    still = trees.map_named(lambda n, x: 0 * x if n.endswith("noise_strength") else x, made)
    silent = features(still, ws, keys)[0]
    np.testing.assert_allclose(silent, features(still, ws, None)[0], atol=1e-6)


def test_a_new_size_fades_in(made):
    @jax.jit
    def run(p, alpha):
        image = lambda **k: G.apply({"params": p}, Z, COND, **k)
        return image(size=4), image(size=8), image(size=8, alpha=alpha)

    small, large, old = jax.device_get(run(made, jnp.float32(0)))
    np.testing.assert_allclose(old, small.repeat(2, 1).repeat(2, 2), atol=1e-5)
    half, new = (np.asarray(run(made, jnp.float32(a))[2]) for a in (0.5, 1))
    np.testing.assert_allclose(new, large, atol=1e-5)
    np.testing.assert_allclose(half, (old + new) / 2, atol=1e-5)


def test_resampling_is_the_box_and_the_binomial_filter():
    """Nearest neighbour and (1, 2, 1) are (1, 3, 3, 1), which is linear interpolation."""

    @jax.jit
    def run(x):
        return (up2(x), blur(up2(x, (1, 1)), (1, 2, 1))), (
            down2(x), down2(blur(x, (1, 2, 1)), (1, 1))
        )  # fmt: skip

    x = np.random.default_rng(0).standard_normal((1, 8, 8, 2)).astype("f4")
    for ours, theirs in run(x):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    ramp = run(np.broadcast_to(np.arange(8.0, dtype="f4")[:, None, None], (1, 8, 8, 1)))[0][0]
    np.testing.assert_allclose(ramp[0, 1:-1, 4, 0], np.arange(0.25, 7, 0.5), atol=1e-5)


def test_numbers_of_parameters():
    """26.2 M at 1024x1024, of which the mapping network has 2.1 (Sec. 2); noise is not trained."""
    z = jnp.zeros((1, 512))
    g = Generator(1024)
    found = trees.leaves(jax.eval_shape(lambda: g.init(jax.random.key(0), z))["params"])
    trained = {n: x for n, x in found.items() if not n.endswith("noise_const")}
    assert trees.count(trained) == 26_212_019 and g.num_ws == 18
    assert trees.count([x for n, x in trained.items() if "mapping" in n]) == 2_101_248


def test_the_discriminator_low_passes():
    """It has pggan's parameters and another filter."""
    x = jnp.zeros((4, 16, 16, 2))
    d = Discriminator(**SMALL)
    assert d.taps == (1, 3, 3, 1)
    logits, _ = jax.eval_shape(lambda: d.init_with_output(jax.random.key(0), x, COND, 16, 0.5))
    assert logits.shape == (4,)


def test_what_starts_how_and_what_is_fixed(made):
    ones, w = jnp.ones((1, 4, 4, 8)), jnp.ones((1, 5))
    p = params.init(StyleLayer(8, "constant"), jax.random.key(0), ones, w, None)
    assert (p["scale"]["b"] == 1).all() and (p["shift"]["b"] == 0).all()
    assert (p["b"] == 0).all() and (p["noise_strength"] == 0).all()
    fixed = [n for n, f in trees.leaves(trees.mask(FIXED, made)).items() if f]
    assert sorted(fixed) == [f"synthesis/{layer}/noise_const" for layer in LAYERS]


def test_errors():
    shape = lambda *a, **k: jax.eval_shape(lambda: G.init(jax.random.key(0), *a, **k))
    with pytest.raises(ValueError, match="size must be a power of two from 4 to 32, got 12"):
        shape(Z, COND, size=12)
    with pytest.raises(ValueError, match="size 4 is the first"):
        shape(Z, COND, size=4, alpha=1.0)
    with pytest.raises(ValueError, match=r"expected latents z \(b, 6\), got \(2, 5\)"):
        shape(jnp.zeros((2, 5)), COND)
    assert [num_layers(s) for s in (4, 8, 1024)] == [2, 4, 18]
    with pytest.raises(ValueError, match=r"expected ws \(b, 4, w_dim\) at size 8, got \(2, 6, 5\)"):
        shape(jnp.zeros((2, 6, 5)), size=8, method="synthesis")

"""Progressive GAN: growing changes nothing at first, pixel norm, equalised weights, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxgen.common import trees
from jaxgen.networks.pggan import BOX, Conv, Discriminator, Generator, fade_real
from jaxgen.nn.convolution import conv
from jaxgen.nn.layers import EqualizedDense
from jaxgen.nn.resample import down2

SMALL = {"resolution": 32, "label_dim": 3, "channel_base": 128, "channel_max": 8}
G = Generator(channels=2, z_dim=6, **SMALL)
D = Discriminator(**SMALL)
Z = jax.random.normal(jax.random.key(0), (4, 6))
X = jax.random.normal(jax.random.key(1), (4, 8, 8, 2))
COND = {"label": jnp.eye(3)[jnp.array([0, 1, 2, 0])]}


def shapes(module, *args, **kwargs):
    init = lambda *a: module.init(jax.random.key(0), *a, **kwargs)
    return trees.leaves(jax.eval_shape(init, *args)["params"])


@pytest.fixture(scope="module")
def made():
    """Params of size 8 while it fades in, all of them N(0, 1), so that no bias hides a mistake."""
    gen, growing = np.random.default_rng(0), {"size": 8, "alpha": 0.5}
    found = shapes(G, Z, COND, **growing), shapes(D, X, COND, **growing)
    draw = lambda x: gen.standard_normal(x.shape).astype("f4")
    return [trees.nest({n: draw(x) for n, x in f.items()}) for f in found]


@pytest.fixture(scope="module")
def outputs(made):
    """What both networks do at size 4, at size 8, and between, from the same params."""
    generate = lambda p, **k: G.apply({"params": p}, Z, COND, **k)
    judge = lambda p, x, **k: D.apply({"params": p}, x, COND, **k)

    def everything(g, d, alpha):
        images = {
            "small": generate(g, size=4),
            "large": generate(g, size=8),
            "fading": generate(g, size=8, alpha=alpha),
        }
        logits = {
            "small": judge(d, down2(X, BOX), size=4),
            "large": judge(d, X, size=8),
            "fading": judge(d, X, size=8, alpha=alpha),
            "both small": judge(d, images["small"], size=4),
            "both fading": judge(d, images["fading"], size=8, alpha=alpha),
        }
        return images, logits

    run = jax.jit(everything)
    return lambda alpha: jax.device_get(run(*made, jnp.float32(alpha)))


def test_a_new_size_fades_in(outputs):
    """alpha 0: the smaller network; 1: the grown one; between: in proportion, for images."""
    (old, old_logits), (half, _), (new, new_logits) = (outputs(a) for a in (0, 0.3, 1))
    assert old["fading"].shape == (4, 8, 8, 2) and old["small"].shape == (4, 4, 4, 2)
    np.testing.assert_allclose(old["fading"], old["small"].repeat(2, 1).repeat(2, 2), atol=1e-5)
    np.testing.assert_allclose(new["fading"], new["large"], atol=1e-5)
    mixed = 0.7 * old["fading"] + 0.3 * new["fading"]
    np.testing.assert_allclose(half["fading"], mixed, atol=1e-5)
    np.testing.assert_allclose(old_logits["fading"], old_logits["small"], atol=1e-5)
    np.testing.assert_allclose(new_logits["fading"], new_logits["large"], atol=1e-5)
    assert np.abs(old_logits["fading"] - new_logits["fading"]).max() > 1e-2


def test_growing_does_not_move_the_game(outputs):
    """D of G is the same number before a stage ends and as the next one begins."""
    logits = outputs(0)[1]
    np.testing.assert_allclose(logits["both fading"], logits["both small"], atol=1e-5)


def test_layers_keep_their_names_and_shapes(made):
    for module, large, args in ((G, made[0], Z), (D, made[1], X[:, :4, :4])):
        small, large = shapes(module, args, COND, size=4), trees.leaves(large)
        assert {n for n in large if n not in small} == {n for n in large if n.startswith("b8_")}
        assert all(large[n].shape == x.shape for n, x in small.items())
    only_for_fading = set(trees.leaves(made[0])) - set(shapes(G, Z, COND, size=8))
    assert only_for_fading == {"b4_torgb/w", "b4_torgb/b"}


def test_real_images_fade_alike():
    x = np.asarray(X)
    mean = lambda x, k: x.reshape(4, 8 // k, k, 8 // k, k, 2).mean((2, 4))
    run = jax.jit(lambda x: (fade_real(x, 2), *(fade_real(x, 4, a) for a in (0.0, 0.25, 1.0))))
    quarter, old, between, new = run(X)
    coarse = mean(x, 4).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(quarter, mean(x, 4), atol=1e-6)
    np.testing.assert_allclose(old, coarse, atol=1e-6)
    np.testing.assert_allclose(between, 0.75 * coarse + 0.25 * mean(x, 2), atol=1e-6)
    np.testing.assert_allclose(new, mean(x, 2), atol=1e-6)
    assert fade_real(X, 8) is X


def test_upsampling_repeats_pixels_and_then_convolves():
    w, x = np.random.default_rng(0).standard_normal((3, 3, 2, 5)).astype("f4"), np.asarray(X)
    run = jax.jit(lambda w, x: Conv(5, up=True).apply({"params": {"w": w, "b": jnp.ones(5)}}, x))
    plain = jax.jit(lambda w, x: conv(x, w))
    want = 1 + plain(w / 18**0.5, x.repeat(2, 1).repeat(2, 2))
    np.testing.assert_allclose(run(w, x), want, atol=1e-5)


def test_pixel_norm(made):
    """Every pixel's features have second moment 1, so no scale of a layer or of z is seen."""
    g = made[0]
    run = jax.jit(lambda p, z: G.apply(
        {"params": p}, z, COND, size=8, capture_intermediates=True, mutable=["intermediates"]
    ))  # fmt: skip
    image, found = run(g, Z)
    x = found["intermediates"]["b8_conv1"]["__call__"][0]
    x = np.where(x > 0, x, 0.2 * x)
    x = x / np.sqrt(np.square(x).mean(-1, keepdims=True))
    want = x @ (g["b8_torgb"]["w"][0, 0] / 8**0.5) + g["b8_torgb"]["b"]
    np.testing.assert_allclose(image, want, atol=1e-5)
    scaled = trees.map_named(lambda n, x: 7 * x if "conv" in n else x, g)
    np.testing.assert_allclose(run(scaled, 3 * Z)[0], image, atol=1e-4)


def test_an_equalised_weight_is_a_scaled_start_and_a_scaled_rate():
    """Adam on w with y = c w x walks as Adam on v = c w with rate c lr and eps c^-1 eps does."""
    gen = np.random.default_rng(0)
    x, p = (gen.standard_normal(s).astype("f4") for s in ((5, 16), (16, 3)))
    c, lr, eps = 16**-0.5, 1e-2, 1e-4
    ours = lambda w: EqualizedDense(3).apply({"params": {"w": w, "b": jnp.zeros(3)}}, x)
    plain = lambda v: x @ v

    @jax.jit
    def walk(p):
        found = []
        for net, w, rate, e in ((ours, p, lr, eps), (plain, c * p, c * lr, eps / c)):
            adam = optax.adam(rate, 0.0, 0.99, e)
            state = adam.init(w)
            for _ in range(3):
                grad = jax.grad(lambda w: jnp.square(net(w) - 1).mean())(w)  # noqa: B023
                updates, state = adam.update(grad, state)
                w = w + updates
            found.append(w)
        return found

    w, v = walk(p)
    np.testing.assert_allclose(c * w, v, atol=1e-6)
    assert float(jnp.abs(w - p).max()) > 2e-2


def test_numbers_of_parameters():
    """Table 2: 23.1 M each at 1024x1024."""
    images = jax.ShapeDtypeStruct((4, 1024, 1024, 3), jnp.float32)
    g, d = shapes(Generator(1024), jnp.zeros((1, 512))), shapes(Discriminator(1024), images)
    assert trees.count(g) == 23_071_507 and trees.count(d) == 23_077_137
    # The rows of the table, with biases: 4.2M, 2.4M, ...; 1.2M at 64x64; 51 to RGB.
    count = lambda found, layer: trees.count([x for n, x in found.items() if layer in n])
    assert count(g, "b4_conv0") == 512 * 512 * 16 + 512 == count(d, "b4_conv1")
    assert count(g, "b4_conv1") == 512 * 512 * 9 + 512
    assert count(g, "b64_conv0") == 512 * 256 * 9 + 256
    assert count(g, "b1024_torgb") == 51 and count(d, "b1024_fromrgb") == 64
    assert count(d, "b4_conv0") == 513 * 512 * 9 + 512 and count(d, "out") == 513


def test_bfloat16_inside_and_float32_outside():
    g, d = G.clone(dtype=jnp.bfloat16), D.clone(dtype=jnp.bfloat16)
    init = lambda m, *a: jax.eval_shape(lambda: m.init_with_output(jax.random.key(0), *a))
    for out, p in (init(g, Z, COND, None, 8, 0.5), init(d, X, COND, 8, 0.5)):
        assert {x.dtype for x in jax.tree.leaves((out, p))} == {jnp.dtype("float32")}


def test_errors():
    shape = lambda m, *a, **k: jax.eval_shape(lambda: m.init(jax.random.key(0), *a, **k))
    with pytest.raises(ValueError, match="power of two and at least 8, got 28"):
        shape(G.clone(resolution=28), Z, COND)
    with pytest.raises(ValueError, match="size must be a power of two from 4 to 32, got 64"):
        shape(G, Z, COND, size=64)
    with pytest.raises(ValueError, match="size 4 is the first"):
        shape(G, Z, COND, size=4, alpha=0.5)
    with pytest.raises(ValueError, match=r"expected latents z \(b, 6\), got \(2, 5\)"):
        shape(G, jnp.zeros((2, 5)), COND)
    with pytest.raises(ValueError, match=r"expected images of size 4, got \(4, 8, 8, 2\)"):
        shape(D, X, COND, size=4)
    with pytest.raises(ValueError, match="label_dim=3 expects cond"):
        shape(D, X, size=8)
    with pytest.raises(ValueError, match=r"r = 4 times a power of two, got \(4, 6, 6, 2\)"):
        fade_real(X[:, :6, :6], 4)
    with pytest.raises(ValueError, match=r"r = 32 times a power of two, got \(4, 8, 8, 2\)"):
        fade_real(X, 32)

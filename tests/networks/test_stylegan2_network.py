"""StyleGAN2: styles, conditions, noise, the mesh, half precision, architectures and their sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, rng, trees
from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.networks.stylegan2 import Discriminator, Generator, Mapping, prenormalise, truncate
from jaxgen.networks.stylegan2_mapping import block_dtype, clip
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.nn.modulated import modulated_conv

SMALL = {"channel_base": 64, "channel_max": 8, "mapping_layers": 2}
G = Generator(resolution=16, channels=1, label_dim=3, z_dim=6, w_dim=8, **SMALL)
D = Discriminator(resolution=16, label_dim=3, **SMALL)


@pytest.fixture(scope="module")
def trees_and_inputs():
    z = jax.random.normal(jax.random.key(0), (8, 6))
    cond = {"label": jax.nn.one_hot(jnp.arange(8) % 3, 3)}
    g = params.init(G, jax.random.key(1), z, cond)
    # Noise strengths start at zero: move them so that noise shows.
    g = trees.map_named(lambda n, x: x + 0.3 if n.endswith("noise_strength") else x, g)
    d = params.init(D, jax.random.key(2), jnp.zeros((8, 16, 16, 1)), cond)
    return g, d, z, cond


generate = jax.jit(lambda p, z, cond, keys=None: G.apply({"params": p}, z, cond, keys))
silent = jax.jit(lambda p, ws: G.apply({"params": p}, ws, None, False, method="synthesis"))
discriminate = jax.jit(lambda p, x, cond: D.apply({"params": p}, x, cond))


def test_shapes_and_styles(trees_and_inputs):
    g, d, z, cond = trees_and_inputs
    images = generate(g, z, cond)
    assert images.shape == (8, 16, 16, 1) and images.dtype == jnp.float32
    assert discriminate(d, images, cond).shape == (8,)
    assert G.num_ws == 6
    w = G.apply({"params": g}, z, cond, method="mapping")
    ws = jnp.repeat(w[:, None], 6, 1)
    synthesize = jax.jit(lambda ws: G.apply({"params": g}, ws, method="synthesis"))
    np.testing.assert_allclose(synthesize(ws), images, atol=1e-5)
    # The last style moves only the last ToRGB; the first moves everything.
    moved = synthesize(ws.at[:, 0].add(1))
    assert float(jnp.abs(moved - images).max()) > 1e-2


def test_noise_follows_the_image_not_its_place(trees_and_inputs):
    g, _, z, cond = trees_and_inputs
    keys = rng.image_keys(jax.random.key(5), 8)
    images = generate(g, z, cond, keys)
    order = jnp.array([3, 0, 7, 1, 2, 6, 5, 4])
    permuted = generate(g, z[order], {"label": cond["label"][order]}, keys[order])
    np.testing.assert_allclose(permuted, images[order], atol=1e-5)
    assert float(jnp.abs(images - generate(g, z, cond)).max()) > 1e-2  # constant noise differs
    other = generate(g, z, cond, rng.image_keys(jax.random.key(6), 8))
    assert float(jnp.abs(images - other).max()) > 1e-2


def test_noise_can_be_left_out(trees_and_inputs):
    """It is what noise of no strength gives."""
    g, _, z, cond = trees_and_inputs
    still = trees.map_named(lambda n, x: 0 * x if n.endswith("noise_strength") else x, g)
    w = G.apply({"params": g}, z, cond, method="mapping")
    np.testing.assert_allclose(silent(g, w), generate(still, z, cond), atol=1e-5)


def test_equal_on_a_mesh(trees_and_inputs):
    g, d, z, cond = trees_and_inputs
    keys = rng.image_keys(jax.random.key(5), 8)
    put = lambda tree: jax.device_put(tree, batch_sharding(make_mesh(data=-1)))
    images = generate(g, z, cond, keys)
    np.testing.assert_allclose(generate(g, put(z), put(cond), put(keys)), images, atol=1e-5)
    logits = discriminate(d, images, cond)
    np.testing.assert_allclose(discriminate(d, put(images), put(cond)), logits, atol=1e-5)


def test_mapping_ignores_the_scale_of_z(trees_and_inputs):
    g, _, z, cond = trees_and_inputs
    w = lambda z: G.apply({"params": g}, z, cond, method="mapping")
    np.testing.assert_allclose(w(5 * z), w(z), rtol=1e-4, atol=1e-5)


def test_fresh_networks_have_order_one_outputs():
    g = Generator(resolution=8, z_dim=32, w_dim=32, channel_base=256, channel_max=32)
    z = jax.random.normal(jax.random.key(0), (16, 32))
    p = params.init(g, jax.random.key(1), z)
    images = jax.jit(lambda p: g.apply({"params": p}, z))(p)
    assert 0.3 < float(images.std()) < 5
    d = Discriminator(resolution=8, channel_base=256, channel_max=32)
    p = params.init(d, jax.random.key(1), images)
    assert 0.01 < float(jax.jit(lambda p: d.apply({"params": p}, images))(p).std()) < 5


def test_truncation():
    ws = jnp.arange(24.0).reshape(2, 3, 4)
    mean = jnp.array([1.0, -1, 0, 2])
    move = jax.jit(truncate, static_argnums=3)  # psi may be traced
    np.testing.assert_allclose(move(ws, mean, 1.0, None), ws, atol=1e-5)
    np.testing.assert_array_equal(move(ws, mean, 0.0, None), jnp.broadcast_to(mean, ws.shape))
    half = truncate(ws, mean, 0.5, 2)
    np.testing.assert_array_equal(half[:, 2], ws[:, 2])
    np.testing.assert_allclose(half[:, :2] - mean, 0.5 * (ws[:, :2] - mean))
    np.testing.assert_array_equal(truncate(ws[:, 0], mean, 0.5), half[:, 0])
    with pytest.raises(
        ValueError, match=r"with a cutoff expects ws \(b, num_ws, w_dim\), got \(2, 4"
    ):
        truncate(ws[:, 0], mean, 0.5, 2)


def test_the_clamp_has_gradient_one_on_its_bound():
    x = jnp.array([-3.0, -2, -1, 0, 2, 2.5, jnp.inf, jnp.nan])
    np.testing.assert_array_equal(clip(x, 2.0), [-2, -2, -1, 0, 2, 2, 2, jnp.nan])
    slope = jax.vmap(jax.grad(lambda x: clip(x, 2.0)))(x[:6])
    np.testing.assert_array_equal(slope, [0, 1, 1, 1, 1, 0])
    assert clip(x, None) is x


def test_prenormalisation_changes_nothing_but_the_range():
    """Large styles overflow float16; divided by their largest entry they do not."""
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 4, 4, 8))
    w = 3 * jax.random.normal(keys[1], (3, 3, 8, 5))
    s = 1e4 * (1 + jax.random.normal(keys[2], (2, 8)))
    full = modulated_conv(x, w, s)
    np.testing.assert_allclose(modulated_conv(x, *prenormalise(w, s)), full, rtol=1e-4, atol=1e-5)
    half = x.astype(jnp.float16)
    assert not jnp.isfinite(modulated_conv(half, w, s)).all()
    got = modulated_conv(half, *prenormalise(w, s))
    assert got.dtype == jnp.float16
    np.testing.assert_allclose(got, full, atol=0.02)


def dtypes_of_convolutions(module, *args):
    """{dtype: number of convolutions} in a module's program."""
    p = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))
    found = {}
    for eqn in jax.make_jaxpr(lambda p: module.apply(p, *args))(p).eqns:
        if eqn.primitive.name == "conv_output":
            name = eqn.outvars[0].aval.dtype.name
            found[name] = found.get(name, 0) + 1
    return found


def test_half_precision_is_for_the_largest_blocks():
    low = jnp.bfloat16
    kinds = lambda half: [block_dtype(r, 64, low, half) is low for r in (4, 8, 16, 32, 64)]
    assert kinds(None) == kinds(10) == [False, True, True, True, True]
    assert kinds(2) == [False, False, False, True, True] and not any(kinds(0))
    cond = {"label": jnp.zeros((2, 3))}
    g = lambda half: dtypes_of_convolutions(
        G.clone(dtype=low, half_blocks=half), jnp.zeros((2, 6)), cond
    )
    # A block: four convolutions that make one of twice the size, another one, and ToRGB.
    assert g(None) == {"float32": 2, "bfloat16": 12} and g(1) == {"float32": 8, "bfloat16": 6}
    assert g(0) == {"float32": 14}
    d = D.clone(dtype=low, half_blocks=1)
    # At 16x16: from RGB, two convolutions and the skip; then three and the last one.
    found = dtypes_of_convolutions(d, jnp.zeros((2, 16, 16, 1)), cond)
    assert found == {"bfloat16": 4, "float32": 4}


def names(module, *args):
    shapes = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a), *args)["params"]
    return {n: x.shape for n, x in trees.leaves(shapes).items()}


def test_architectures():
    """Who has a ToRGB, a FromRGB and a skip."""
    cond = {"label": jnp.zeros((2, 3))}
    having = lambda found, kind: {n.split("_")[0][-2:].strip("b/") for n in found if kind in n}
    for kind, rgb, skip in (
        ("skip", {"4", "8", "16"}, set()),
        ("resnet", {"16"}, {"8", "16"}),
        ("orig", {"16"}, set()),
    ):
        found = names(G.clone(architecture=kind), jnp.zeros((2, 6)), cond)
        assert having(found, "_torgb") == rgb and having(found, "_skip") == skip
        found = names(D.clone(architecture=kind, cmap_dim=5), jnp.zeros((2, 16, 16, 1)), cond)
        assert having(found, "_fromrgb") == rgb and having(found, "_skip") == skip
        assert found["b4_out/w"] == (8, 5) and found["mapping/embed/w"] == (3, 5)


def trained(module, *args):
    """The number of trained parameters; the planes of constant noise are not."""
    found = names(module, *args)
    return sum(int(np.prod(s)) for n, s in found.items() if not n.endswith("noise_const"))


def test_numbers_of_parameters():
    """Config F at 1024x1024 (the paper's 30 and 29 M), and a small network of the benchmark."""
    images = lambda size: jax.ShapeDtypeStruct((4, size, size, 3), jnp.float32)
    large = {"resolution": 1024, "channel_base": 32768}
    assert trained(Generator(**large), jnp.zeros((1, 512))) == 30_370_060
    planes = sum(np.prod(s) for n, s in names(Generator(**large), jnp.zeros((1, 512))).items())
    assert planes - 30_370_060 == 16 + 2 * sum(4**k for k in range(3, 11))
    assert trained(Discriminator(**large), images(1024)) == 29_012_513
    small = {"resolution": 32, "mapping_layers": 2, "channel_base": 2048, "channel_max": 128}
    assert trained(Generator(z_dim=64, w_dim=64, **small), jnp.zeros((1, 64))) == 943_571
    assert trained(Discriminator(**small), images(32)) == 1_153_473


def test_bfloat16_activations_stay_near_float32(trees_and_inputs):
    g, _, z, cond = trees_and_inputs
    low = jax.jit(lambda g: G.clone(dtype=jnp.bfloat16).apply({"params": g}, z, cond))(g)
    full = generate(g, z, cond)
    assert low.dtype == jnp.float32
    assert float(jnp.abs(low - full).mean() / full.std()) < 0.05


def test_errors():
    z, x = jnp.zeros((2, 6)), jnp.zeros((2, 16, 16, 1))
    shape = lambda module, *a: jax.eval_shape(lambda: module.init(jax.random.key(0), *a))
    with pytest.raises(ValueError, match=r"'label' only, got \['text'\]"):
        shape(G, z, {"text": z})
    with pytest.raises(ValueError, match="label_dim=3 expects cond"):
        shape(G, z, None)
    with pytest.raises(ValueError, match="label_dim=0 expects cond None"):
        shape(D.clone(label_dim=0), x, {"label": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"expected labels \(b, 3\)"):
        shape(D, x, {"label": jnp.zeros((2, 5))})
    with pytest.raises(ValueError, match="power of two and at least 8, got 28"):
        shape(G.clone(resolution=28), z, {"label": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match="expected images of size 16"):
        shape(D, jnp.zeros((2, 32, 32, 1)), {"label": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match="architecture is one of skip, resnet, orig, got 'unet'"):
        shape(G.clone(architecture="unet"), z, {"label": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match="activation is one of lrelu, relu, swish, got 'gelu'"):
        shape(D.clone(activation="gelu"), x, {"label": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match=r"expected latents z \(b, 6\), got \(2, 5\)"):
        shape(G, jnp.zeros((2, 5)), {"label": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match="multiple of group_size, got 6 and 4"):
        shape(D.clone(label_dim=0), jnp.zeros((6, 16, 16, 1)))
    with pytest.raises(ValueError, match="group_size and channels are at least 1, got -2, 1"):
        shape(D.clone(group_size=-2), x, {"label": jnp.zeros((2, 3))})
    with pytest.raises(ValueError, match="expected ws"):
        p = shape(G, z, {"label": jnp.zeros((2, 3))})
        jax.eval_shape(lambda p: G.apply(p, jnp.zeros((2, 5, 8)), method="synthesis"), p)


def test_mapping_of_a_label_alone():
    m = Mapping(4, layers=1, embed_features=6)
    p = params.init(m, jax.random.key(0), None, jnp.eye(3))
    w = jax.jit(lambda p: m.apply({"params": p}, None, jnp.eye(3)))(p)
    assert w.shape == (3, 4) and p["embed"]["w"].shape == (3, 6)


def test_a_group_may_be_the_whole_batch():
    x = jnp.asarray(np.random.default_rng(0).standard_normal((6, 1, 1, 2)), jnp.float32)
    whole = minibatch_std(x, None)
    np.testing.assert_allclose(whole[..., 2], np.std(x, 0).mean(), rtol=1e-5)

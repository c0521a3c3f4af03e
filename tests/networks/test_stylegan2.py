"""StyleGAN2: shapes, conditions, noise by image, the mesh, and what a fresh network computes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, rng, trees
from jaxgen.common.mesh import batch_sharding, make_mesh
from jaxgen.networks.stylegan2 import Discriminator, Generator, Mapping

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
discriminate = jax.jit(lambda p, x, cond: D.apply({"params": p}, x, cond))


def test_shapes_and_styles(trees_and_inputs):
    g, d, z, cond = trees_and_inputs
    images = generate(g, z, cond)
    assert images.shape == (8, 16, 16, 1) and images.dtype == jnp.float32
    assert discriminate(d, images, cond).shape == (8,)
    assert G.num_ws == 6
    w = G.apply({"params": g}, z, cond, method="mapping")
    ws = jnp.repeat(w[:, None], 6, 1)
    same = jax.jit(lambda ws: G.apply({"params": g}, ws, method="synthesis"))(ws)
    np.testing.assert_allclose(same, images, atol=1e-5)
    # The last style moves only the last ToRGB; the first moves everything.
    moved = jax.jit(lambda ws: G.apply({"params": g}, ws, method="synthesis"))(ws.at[:, 0].add(1))
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
    g = Generator(resolution=32, z_dim=32, w_dim=32, channel_base=512, channel_max=32)
    z = jax.random.normal(jax.random.key(0), (16, 32))
    p = params.init(g, jax.random.key(1), z)
    images = jax.jit(lambda: g.apply({"params": p}, z))()
    assert 0.3 < float(images.std()) < 5
    d = Discriminator(resolution=32, channel_base=512, channel_max=32)
    p = params.init(d, jax.random.key(1), images)
    assert 0.01 < float(jax.jit(lambda: d.apply({"params": p}, images))().std()) < 5


def test_bfloat16_activations_stay_near_float32(trees_and_inputs):
    g, _, z, cond = trees_and_inputs
    low = jax.jit(lambda: G.clone(dtype=jnp.bfloat16).apply({"params": g}, z, cond))()
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
    with pytest.raises(ValueError, match="expected ws"):
        p = shape(G, z, {"label": jnp.zeros((2, 3))})
        jax.eval_shape(lambda p: G.apply(p, jnp.zeros((2, 5, 8)), method="synthesis"), p)


def test_mapping_of_a_label_alone():
    m = Mapping(4, layers=1)
    p = params.init(m, jax.random.key(0), None, jnp.eye(3))
    assert m.apply({"params": p}, None, jnp.eye(3)).shape == (3, 4)

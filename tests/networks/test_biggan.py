"""BigGAN's family: published sizes, tracked leaves, hierarchical latents, variants."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.networks.biggan import CONFIGS, FIXED, Discriminator, Generator, orthogonal

SMALL = {"resolution": 16, "label_dim": 3, "attention": (8,)}
G = Generator(**SMALL, channels=2, z_dim=6, widths=(8, 8, 8), shared_dim=4)
D = Discriminator(**SMALL, widths=(8, 8), down=1)
COND = {"label": jax.nn.one_hot(jnp.arange(4) % 3, 3)}


def shapes(module, *args):
    found = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a), *args)["params"]
    return {n: x.shape for n, x in trees.leaves(found).items()}


def draw(module, *args):
    """Params whose every leaf matters, drawn by numpy: nothing is compiled."""
    numbers = np.random.default_rng(0)

    def leaf(name, shape):
        x = numbers.standard_normal(shape) / max(1, np.prod(shape[:-1])) ** 0.5
        x = np.abs(x) + 0.5 if name.endswith("var") else x
        return np.float32(x / np.linalg.norm(x) if name.endswith("/u") else x)

    return trees.nest({n: leaf(n, s) for n, s in shapes(module, *args).items()})


@pytest.fixture(scope="module")
def made():
    """Params of both networks, and latents."""
    z = jax.random.normal(jax.random.key(0), (4, 6))
    return draw(G, z, COND), draw(D, jnp.zeros((4, 16, 16, 2)), COND), z


@jax.jit
def train(g, d, z):
    """Images and logits in training, and the new tracked leaves."""
    images, new = G.apply({"params": g}, z, COND, mutable=["tracked"])
    logits, more = D.apply({"params": d}, images, COND, mutable=["tracked"])
    return images, logits, new["tracked"], more["tracked"]


@jax.jit
def sample(g, z, cond):
    return G.apply({"params": g}, z, cond)


def test_the_tracked_leaves_are_the_fixed_ones(made):
    g, d, z = made
    images, logits, of_g, of_d = train(g, d, z)
    assert images.shape == (4, 16, 16, 2) and logits.shape == (4,)
    assert float(jnp.abs(images).max()) <= 1
    for tree, new in ((g, of_g), (d, of_d)):
        leaves = trees.leaves(tree)
        assert set(trees.leaves(new)) == {n for n in leaves if re.search(FIXED[0], n)}
        still = [x for n, x in trees.leaves(new).items() if np.array_equal(x, leaves[n])]
        assert all(x.size == 1 for x in still)  # a unit vector of one number stays


def test_samples_do_not_depend_on_their_batch(made):
    """By the kept moments; in training the whole batch makes them."""
    g, d, z = made
    images, order = sample(g, z, COND), jnp.array([3, 0, 3, 1])
    again = sample(g, z[order], {"label": COND["label"][order]})
    np.testing.assert_allclose(again, images[order], atol=1e-5)
    for other in (train(g, d, z)[0], sample(g, z, {"label": jnp.roll(COND["label"], 1, 1)})):
        assert float(jnp.abs(other - images).max()) > 0.01


def test_each_block_has_a_part_of_z(made):
    """The last part of three enters with the last block's normalisations, after their moments."""
    g, d, z = made
    of_g = lambda z: trees.leaves(train(g, d, z)[2])
    plain = of_g(z)
    moments = {n for n in plain if not n.endswith("/u")}
    assert len(moments) == 2 * (2 * 2 + 1)
    expected = (
        moments,
        moments - {"b8/norm0/mean", "b8/norm0/var"},
        {f"{n}/{m}" for n in ("b16/norm1", "norm") for m in ("mean", "var")},
    )
    for i, want in zip((0, 2, 4), expected):
        moved = of_g(z.at[:, i : i + 2].add(1))
        assert {n for n in plain if not np.array_equal(moved[n], plain[n])} == want


def sizes(resolution, label_dim, g, d):
    """Trained parameters of a generator and a discriminator with these arguments."""
    same = {"resolution": resolution, "label_dim": label_dim, "start": "xavier"}  # traced quickly
    g, d = Generator(**g | same), Discriminator(**d | same)
    cond = {"label": jax.ShapeDtypeStruct((1, label_dim), jnp.float32)} if label_dim else None
    z = jax.ShapeDtypeStruct((1, g.z_dim), jnp.float32)
    x = jax.ShapeDtypeStruct((1, resolution, resolution, 3), jnp.float32)
    return tuple(
        sum(int(np.prod(s)) for n, s in shapes(m, y, cond).items() if not re.search(FIXED[0], n))
        for m, y in ((g, z), (d, x))
    )


def test_numbers_of_parameters():
    """BigGAN at 128x128 (70.4 and 88.0 M), its SA-GAN baseline (81.5 M), SN-GAN for CIFAR-10."""
    assert sizes(128, 1000, *CONFIGS["biggan128"]) == (70_433_988, 87_982_370)
    g, d = ({**c, "attention": (64,)} for c in CONFIGS["sagan128"])
    assert sizes(128, 1000, g, d) == (42_017_412, 39_448_258)  # the first rows of Table 1
    assert sizes(32, 0, *CONFIGS["sngan32"]) == (4_276_739, 1_053_825)


def test_variants():
    """Who has spectral norms, attention, a shared embedding, or a gain a class."""
    z, cond = jnp.zeros((2, 6)), {"label": jnp.zeros((2, 3))}
    x = jnp.zeros((2, 16, 16, 3))
    has = lambda found, pattern: sum(bool(re.search(pattern, n)) for n in found)
    found = shapes(G, z, cond)
    assert found["embed/w"] == (3, 4) and found["b8/norm0/gain/w"] == (2 + 4, 8)
    assert found["b4_fc/w"] == (2, 16 * 8) and has(found, "^b8_attention") == 9
    assert has(found, "/u$") == 2 + 4 + 2 * 7  # ends, attention; two maps a norm, three of a block
    plain = {"shared_dim": 0, "hierarchical": False, "spectral": False, "attention": ()}
    found = shapes(G.clone(**plain), z, cond)
    assert found["b8/norm0/gain/w"] == (3, 8) and found["b4_fc/w"] == (6, 16 * 8)
    assert not has(found, "(/u$|^embed|attention)")
    found = shapes(G.clone(**plain, label_dim=0), z)
    assert found["b8/norm0/w"] == (8,) and not has(found, "gain")
    found = shapes(D.clone(label_dim=0), x)
    assert not has(found, "embed") and has(found, "block0/skip") and not has(found, "block1/skip")


def test_the_orthogonal_start():
    draw = jax.jit(lambda key: [orthogonal(key, s) for s in ((3, 3, 2, 8), (4, 8))])
    tall, wide = draw(jax.random.key(0))
    flat = tall.reshape(-1, 8)
    np.testing.assert_allclose(flat.T @ flat, np.eye(8), atol=1e-5)
    np.testing.assert_allclose(wide @ wide.T, np.eye(4), atol=1e-5)


def test_bfloat16(made):
    """Images, logits and statistics stay float32."""
    g, d, z = made
    run = lambda m, p, x: m.clone(dtype=jnp.bfloat16).apply(
        {"params": p}, x, COND, mutable=["tracked"]
    )
    for found in jax.eval_shape(lambda: (run(G, g, z), run(D, d, jnp.zeros((4, 16, 16, 2))))):
        assert {x.dtype.name for x in jax.tree.leaves(found)} == {"float32"}


def test_errors():
    z, x, cond = jnp.zeros((2, 6)), jnp.zeros((2, 16, 16, 2)), {"label": jnp.zeros((2, 3))}
    with pytest.raises(ValueError, match=r"power of two; got resolution 28 with \(8, 8, 8\)"):
        shapes(G.clone(resolution=28), z, cond)
    with pytest.raises(ValueError, match=r"3 equal parts, which z_dim=7 is not a multiple of"):
        shapes(G.clone(z_dim=7), jnp.zeros((2, 7)), cond)
    with pytest.raises(ValueError, match=r"expected latents z \(b, 6\), got \(2, 5\)"):
        shapes(G, z[:, :5], cond)
    with pytest.raises(ValueError, match=r"attention at \[32\], but blocks make maps of \[8, 16\]"):
        shapes(G.clone(attention=(32,)), z, cond)
    with pytest.raises(ValueError, match="start is one of orthogonal, xavier, got 'he'"):
        shapes(D.clone(start="he"), x, cond)
    with pytest.raises(ValueError, match="3 of a discriminator's 2 blocks cannot halve images"):
        shapes(D.clone(down=3), x, cond)
    with pytest.raises(ValueError, match=r"images of size 16, got \(2, 8, 8, 2\)"):
        shapes(D, x[:, :8, :8], cond)
    with pytest.raises(ValueError, match="label_dim=3 expects cond"):
        shapes(G, z)

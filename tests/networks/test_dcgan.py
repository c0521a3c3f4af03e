"""DCGAN: transposed convolution, where batch norm is and is not, its statistics, sizes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.networks.dcgan import FIXED, Discriminator, Generator, up2_conv
from jaxgen.nn.convolution import NHWC

SMALL = {"resolution": 16, "label_dim": 3, "width": 4, "kernel": 3}
G = Generator(channels=2, z_dim=6, **SMALL)
D = Discriminator(**SMALL)
Z = jax.random.normal(jax.random.key(0), (4, 6))
X = jax.random.normal(jax.random.key(1), (4, 16, 16, 2))
COND = {"label": jnp.eye(3)[jnp.array([0, 1, 2, 0])]}


def weight(name):
    return name.endswith("/w") and "norm" not in name


@pytest.fixture(scope="module")
def made():
    """Params as if trained: variances in [0, 1], all others N(0, 1)."""
    gen = np.random.default_rng(0)

    def draw(module, *args):
        found = jax.eval_shape(lambda: module.init(jax.random.key(0), *args))["params"]
        one = lambda n: gen.uniform if n.endswith("/var") else gen.standard_normal
        return trees.map_named(lambda n, x: one(n)(size=x.shape).astype("f4"), found)

    return draw(G, Z, COND), draw(D, X, COND)


@pytest.fixture(scope="module")
def run():
    """(outputs, new statistics) of both networks, in training; and outputs with kept ones."""

    @jax.jit
    def both(g, d, x=X):
        calls = (G, g, Z), (D, d, x)
        train = [m.apply({"params": p}, a, COND, mutable=["tracked"]) for m, p, a in calls]
        kept = [m.apply({"params": p}, a, COND) for m, p, a in calls]
        return [t[0] for t in train], [t[1]["tracked"] for t in train], kept

    return lambda *args: jax.device_get(both(*args))


@pytest.mark.parametrize("k", [3, 4, 5])
def test_transposed_convolution(k):
    """It is a plain one of the image with zeros after each sample."""
    gen = np.random.default_rng(k)
    x, w = (gen.standard_normal(s).astype("f4") for s in ((2, 4, 6, 3), (k, k, 3, 5)))

    @jax.jit
    def both(x, w):
        pad = ((k // 2, (k - 1) // 2 + 1),) * 2
        dilated = {"lhs_dilation": (2, 2), "dimension_numbers": NHWC}
        return up2_conv(x, w), jax.lax.conv_general_dilated(x, w, (1, 1), pad, **dilated)

    np.testing.assert_allclose(*both(x, w), atol=1e-5)


def test_outputs(made, run):
    (image, logits), _, kept = run(*made)
    assert image.shape == kept[0].shape == (4, 16, 16, 2) and logits.shape == (4,)
    assert image.dtype == logits.dtype == np.float32
    assert image.std() > 0.01 and np.abs(image).max() <= 1
    assert np.abs(image - kept[0]).max() > 1e-3 and np.abs(logits - kept[1]).max() > 1e-3


def test_where_batch_norm_is(made, run):
    """After every layer but G's last, D's first and last: there, scales of weights are not seen."""
    (image, logits), _, _ = run(*made)
    normed = [{"b4_project", "b8_conv"}, {"b4_conv"}]
    for i, (tree, want) in enumerate(zip(made, normed)):
        for layer in {n.split("/")[0] for n in trees.leaves(tree) if weight(n)} - {"embed"}:
            scale = lambda n, x: 3 * x if n == f"{layer}/w" else x  # noqa: B023
            scaled = list(made)
            scaled[i] = trees.map_named(scale, tree)
            moved = np.abs(run(*scaled)[0][i] - (image, logits)[i]).max()
            assert (moved < 1e-2) == (layer in want), (layer, moved)


def test_statistics_are_tracked(made, run):
    """What training reports is what is fixed, and what other calls use."""
    new = run(*made)[1]
    for tree, tracked in zip(made, new):
        fixed = {n for n, f in trees.leaves(trees.mask(FIXED, tree)).items() if f}
        assert set(trees.leaves(tracked)) == fixed


def test_sizes_and_start():
    """Fig. 1: 1024 features at 4x4 to 128 at 32x32; weights N(0, 0.02^2)."""
    shapes = lambda m, *a: {
        n: x.shape
        for n, x in trees.leaves(
            jax.eval_shape(lambda *a: m.init(jax.random.key(0), *a), *a)["params"]
        ).items()
        if weight(n)
    }
    images = jax.ShapeDtypeStruct((2, 64, 64, 3), jnp.float32)
    g, d = shapes(Generator(64), jnp.zeros((2, 100))), shapes(Discriminator(64), images)
    assert g["b4_project/w"] == (100, 4 * 4 * 1024) and g["b64_conv/w"] == (5, 5, 128, 3)
    chain = [1024, 512, 256, 128]
    assert [g[f"b{s}_conv/w"][2:] for s in (8, 16, 32)] == list(itertools.pairwise(chain))
    assert d["b32_conv/w"] == (5, 5, 3, 128) and d["out/w"] == (4 * 4 * 1024, 1)
    assert [d[f"b{s}_conv/w"][:1:-1] for s in (4, 8, 16)] == list(itertools.pairwise(chain))
    # At any other power of two the last layers are the same and the first are fewer or wider.
    assert shapes(Generator(8), jnp.zeros((2, 100)))["b4_project/w"] == (100, 4 * 4 * 128)
    w = params.init(Generator(8), jax.random.key(0), jnp.zeros((2, 100)))["b8_conv"]["w"]
    assert abs(float(w.std()) - 0.02) < 1e-3


def test_errors():
    shape = lambda m, *a: jax.eval_shape(lambda: m.init(jax.random.key(0), *a))
    for network, x in ((G, Z), (D, X)):
        with pytest.raises(ValueError, match="power of two and at least 8, got 28; pad the images"):
            shape(network.clone(resolution=28), x, COND)
    with pytest.raises(ValueError, match=r"expected latents z \(b, 6\), got \(2, 5\)"):
        shape(G, jnp.zeros((2, 5)), COND)
    with pytest.raises(ValueError, match=r"expected images of size 16, got \(2, 8, 8, 1\)"):
        shape(D, jnp.zeros((2, 8, 8, 1)), COND)
    with pytest.raises(ValueError, match="label_dim=3 expects cond"):
        shape(D, X)

"""The first GAN: its layers against numpy, dropout, labels, and numbers of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.networks.gan_mlp import Discriminator, Generator

G = Generator(6, channels=2, label_dim=3, z_dim=5, features=(8, 7))
D = Discriminator(6, label_dim=3, features=(4, 3), pieces=5)
Z = jax.random.normal(jax.random.key(0), (4, 5))
X = jax.random.uniform(jax.random.key(1), (4, 6, 6, 2), minval=-1)
COND = {"label": jnp.eye(3)[jnp.array([0, 1, 2, 0])]}


@pytest.fixture(scope="module")
def made():
    """Params N(0, 1 / 16) of both, and what they do."""
    gen = np.random.default_rng(0)

    def draw(module, x):
        found = jax.eval_shape(lambda: module.init(jax.random.key(0), x, COND))["params"]
        return jax.tree.map(lambda s: gen.normal(0, 0.25, s.shape).astype("f4"), found)

    g, d = draw(G, Z), draw(D, X)
    run = jax.jit(lambda g, d: (G.apply({"params": g}, Z, COND), D.apply({"params": d}, X, COND)))
    return g, d, *jax.device_get(run(g, d))


def test_generator_against_numpy(made):
    g, _, got, _ = made
    x = np.concatenate([Z, COND["label"]], 1)
    for name in ("fc0", "fc1"):
        x = np.maximum(x @ g[name]["w"] + g[name]["b"], 0)
    pixels = 1 / (1 + np.exp(-(x @ g["out"]["w"] + g["out"]["b"])))
    assert got.shape == (4, 6, 6, 2) and got.dtype == jnp.float32
    np.testing.assert_allclose(got, (2 * pixels - 1).reshape(4, 6, 6, 2), atol=1e-5)


def test_discriminator_against_numpy(made):
    _, d, _, got = made
    x = np.concatenate([(np.reshape(X, (4, -1)) + 1) / 2, COND["label"]], 1)
    for name in ("maxout0", "maxout1"):
        x = (x @ d[name]["w"] + d[name]["b"]).reshape(4, -1, 5).max(-1)
    want = (x @ d["out"]["w"] + d["out"]["b"])[:, 0]
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_dropout_needs_a_key_and_has_the_rates(made):
    d, keys = made[1], jax.random.split(jax.random.key(4), 2000)
    run = jax.jit(jax.vmap(lambda k: D.apply({"params": d}, X, COND, rngs={"dropout": k})))
    logits = np.asarray(run(keys))
    assert logits.std(0).min() > 0
    # All 3 units of the last layer drop out in one of eight, and only the bias is left.
    gone = np.isclose(logits, d["out"]["b"], atol=1e-7).mean()
    assert abs(gone - 1 / 8) < 0.02
    # Without hidden layers the logit is linear in the pixels, and has their moments.
    linear = Discriminator(6, 3, features=(), dropout_pixels=0.2)
    p = {"out": {"w": np.ones((75, 1), np.float32), "b": np.zeros(1, np.float32)}}
    run = jax.jit(jax.vmap(lambda k: linear.apply({"params": p}, X, COND, rngs={"dropout": k})))
    x = (np.asarray(X).reshape(4, -1) + 1) / 2
    logits = np.asarray(run(keys))
    np.testing.assert_allclose(logits.mean(0), x.sum(1) + 1, rtol=0.02)
    np.testing.assert_allclose(logits.var(0), 0.25 * np.square(x).sum(1), rtol=0.15)


def test_numbers_of_parameters():
    """Those of the authors' networks for MNIST."""
    count = lambda m, *a: trees.count(
        jax.eval_shape(lambda: m.init(jax.random.key(0), *a))["params"]
    )
    g = 100 * 1200 + 1200 + 1200 * 1200 + 1200 + 1200 * 784 + 784
    d = 784 * 1200 + 1200 + 240 * 1200 + 1200 + 240 + 1
    assert count(Generator(28), jnp.zeros((1, 100))) == g == 2_503_984
    assert count(Discriminator(28), jnp.zeros((1, 28, 28, 1))) == d == 1_231_441


def test_errors():
    shape = lambda m, *a: jax.eval_shape(lambda: m.init(jax.random.key(0), *a))
    with pytest.raises(ValueError, match=r"expected latents z \(b, 5\), got \(4, 6\)"):
        shape(G, jnp.zeros((4, 6)), COND)
    with pytest.raises(ValueError, match="label_dim=3 expects cond"):
        shape(G, Z)
    with pytest.raises(ValueError, match=r"expected images of size 6, got \(4, 8, 8, 2\)"):
        shape(D, jnp.zeros((4, 8, 8, 2)), COND)

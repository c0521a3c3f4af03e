"""Perceptual path length of generators for which it has a closed form."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.metrics import perceptual_path as ppl

A = np.random.default_rng(0).normal(size=(6, 12)).astype("f4")
D = len(A)
N = 4000
parts = {
    "latents": lambda keys: rng.normal(keys, (D,)),
    "mapping": lambda z, cond: z,
    "synthesis": lambda w, keys: (w @ A).reshape(-1, 3, 4, 1),
    "features": lambda x: x.reshape(len(x), -1),
}


@partial(jax.jit, static_argnames=("space", "full"))
def linear(keys, space, full):
    return ppl.lengths(keys, **parts, space=space, full=full)


@pytest.fixture(scope="module")
def keys():
    return rng.image_keys(jax.random.key(0), N)


def test_lines_through_a_linear_generator(keys):
    """g(w) = w A: every length is |(w1 - w0) A|^2, whatever t, and their mean is 2 |A|_F^2."""
    one, two, _, _ = rng.split(keys, 4)
    steps = (rng.normal(two, (D,)) - rng.normal(one, (D,))) @ A
    want = jnp.square(steps).sum(-1)
    full = linear(keys, "w", True)
    np.testing.assert_allclose(full, want, rtol=0.03, atol=0.03 * want.mean())
    np.testing.assert_allclose(full.mean(), want.mean(), rtol=1e-3)
    np.testing.assert_allclose(linear(keys, "w", False).mean(), want.mean(), rtol=1e-3)
    np.testing.assert_allclose(want.mean(), 2 * np.sum(A**2), rtol=0.05)


def test_circles_through_a_linear_generator(keys):
    """Speed phi sqrt(d) along a random direction: phi^2 |A|_F^2 in the mean over directions."""
    one, two, _, _ = rng.split(keys, 4)
    z0, z1 = rng.normal(one, (D,)), rng.normal(two, (D,))
    cosine = (z0 * z1).sum(-1) / jnp.linalg.norm(z0, axis=1) / jnp.linalg.norm(z1, axis=1)
    want = float(jnp.square(jnp.arccos(cosine)).mean() * np.sum(A**2))
    np.testing.assert_allclose(linear(keys, "z", True).mean(), want, rtol=0.05)


def test_what_both_ends_share():
    """Noise and label do not count; a crop looks at the face only."""

    def synthesis(w, keys):
        return w[:, 0, None, None, None] * jnp.ones((8, 8, 1)) + rng.normal(keys, (8, 8, 1))

    mapping = lambda z, cond: z + cond["label"]
    given = {**parts, "synthesis": synthesis, "mapping": mapping}
    keys = rng.image_keys(jax.random.key(1), 3)
    given["cond"] = {"label": jnp.full((3, D), 7.0)}

    @jax.jit
    def found(keys):
        one, two, _, _ = rng.split(keys, 4)
        steps = (rng.normal(two, (D,)) - rng.normal(one, (D,)))[:, 0]
        return steps, [ppl.lengths(keys, **given, epsilon=0.1, crop=c) for c in (False, True)]

    steps, (whole, face) = found(keys)
    np.testing.assert_allclose(whole, 64 * steps**2, rtol=1e-3)
    np.testing.assert_allclose(face, 16 * steps**2, rtol=1e-3)
    x = np.arange(64).reshape(1, 8, 8, 1)
    np.testing.assert_array_equal(ppl.face(x)[0, :, 0, 0], [26, 34, 42, 50])
    with pytest.raises(ValueError, match="space must be 'z' or 'w', got 'x'"):
        ppl.lengths(keys, **given, space="x")


def test_outliers_are_left_out():
    x = np.arange(1000.0)
    x[-1] = 1e9
    assert ppl.mean(x) == np.arange(9, 991).mean()
    assert ppl.mean(np.ones(3)) == 1
    with pytest.raises(ValueError, match="1 of 2 path lengths are not finite"):
        ppl.mean([1.0, np.inf])

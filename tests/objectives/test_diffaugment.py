"""DiffAugment: what each policy keeps, and what it may do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.objectives import diffaugment

B, SHAPE = 64, (8, 12, 3)


@pytest.fixture(scope="module")
def images():
    x = jax.random.uniform(jax.random.key(0), (B, *SHAPE), minval=-1)
    return rng.image_keys(jax.random.key(1), B), x


def test_translations_and_boxes_are_within_their_limits(images):
    keys, x = images
    ones = jnp.ones_like(x)

    @jax.jit
    def f(keys, x, ones):
        of = lambda x, *policy: diffaugment.augment(keys, x, policy)
        return of(ones, "translation"), of(ones, "cutout"), of(x, *diffaugment.POLICIES)

    seen, box, both = map(np.asarray, f(keys, x, ones))
    seen, box = seen[..., 0] == 1, box[..., 0] == 0
    lost = np.stack([8 - seen.any(2).sum(1), 12 - seen.any(1).sum(1)], 1)
    assert lost.min(0).tolist() == [0, 0] and lost.max(0).tolist() == [1, 2]  # 1/8, rounded
    sides = np.stack([box.any(2).sum(1), box.any(1).sum(1)], 1)
    assert sides.max(0).tolist() == [4, 6] and sides.min() >= 2  # half, or cut by the border
    np.testing.assert_array_equal(box.sum((1, 2)), sides.prod(1))
    assert np.abs(both - x).max() > 0.1
    again = f(keys[::-1], x[::-1], ones)[2]
    np.testing.assert_allclose(again[::-1], both, atol=1e-6)


def test_colour_keeps_means(images):
    _, x = images
    half, u = np.full(B, 0.5, np.float32), np.linspace(0, 0.99, B, dtype=np.float32)
    color = jax.jit(diffaugment.color)
    np.testing.assert_allclose(color(x, half, half, half), x, atol=1e-6)
    np.testing.assert_allclose(color(x, half, u, half).mean(3), x.mean(3), atol=1e-6)
    mean = np.asarray(x).mean((1, 2, 3))
    got = np.asarray(color(x, u, u, u)).mean((1, 2, 3))
    np.testing.assert_allclose(got, mean + u - 0.5, atol=1e-6)


def test_translation_moves_down_and_right_and_back(images):
    _, x = images
    by = jnp.tile(jnp.float32([1, 2]), (B, 1))

    @jax.jit
    def run(x):
        y, pull = jax.vjp(lambda x: diffaugment.translate(x, by), x)
        return y, diffaugment.translate(y, -by), pull(y)[0]

    y, inside, transposed = map(np.asarray, run(x))
    np.testing.assert_array_equal(y[:, 1:, 2:], x[:, :-1, :-2])
    np.testing.assert_array_equal(y[:, 0], 0)
    np.testing.assert_array_equal(inside[:, :-1, :-2], x[:, :-1, :-2])
    np.testing.assert_array_equal(transposed, inside)


def test_an_unknown_policy_is_an_error(images):
    with pytest.raises(ValueError, match=r"unknown policies \['flip'\] of DiffAugment; known are"):
        diffaugment.augment(*images, ("flip", "color"))

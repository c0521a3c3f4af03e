"""DnCNN against its formula in float64, its reach, its refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.networks.dncnn import DnCNN

SMALL = DnCNN(depth=4, features=6)


def drawn(channels=1):
    """Parameters with biases that are not 0."""
    p = params.init(SMALL, jax.random.key(1), jnp.zeros((1, 8, 8, channels)))
    rng = np.random.default_rng(0)
    noise = lambda x: x + 0.1 * rng.normal(size=x.shape).astype(np.float32)
    return jax.tree.map(lambda x: noise(np.asarray(x)), p)


def in_numpy(p, x):
    """x0 = x - 2 net((x + 1) / 2) of one image (h, w, c), every sum written out in float64."""
    h = (x.astype(np.float64) + 1) / 2
    for i in range(4):
        w, b = (np.asarray(p[f"conv{i}"][n], np.float64) for n in "wb")
        padded = np.pad(h, ((1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (0, 1))
        h = np.einsum("yxcij,ijco->yxo", windows, w) + b
        h = np.maximum(h, 0) if i < 3 else h
    return x - 2 * h


def test_the_formula_with_zeros_around_0_to_1():
    x = np.random.default_rng(2).normal(size=(2, 9, 7, 3)).astype(np.float32)
    p = drawn(3)
    got = jax.jit(lambda p, x: SMALL.apply({"params": p}, x))(p, x)
    np.testing.assert_allclose(got, np.stack([in_numpy(p, v) for v in x]), atol=2e-5)


def test_the_papers_size():
    """17 layers of 64: 2 * 9 * 64 + 15 * 9 * 64^2 weights and 16 * 64 + 1 biases."""
    x = jnp.zeros((1, 8, 8, 1))
    shapes = jax.eval_shape(lambda: DnCNN().init(jax.random.key(0), x))
    assert trees.count(shapes["params"]) == 2 * 9 * 64 + 15 * 9 * 64**2 + 16 * 64 + 1


def test_a_pixel_sees_depth_pixels_far():
    p, x = drawn(), jnp.zeros((1, 15, 15, 1))
    run = jax.jit(lambda x: SMALL.apply({"params": p}, x))
    moved = np.asarray(run(x.at[0, 7, 7].set(1.0)) - run(x))[0, :, :, 0]
    rows = np.flatnonzero(np.abs(moved).max(1) > 1e-7)
    assert rows.min() >= 7 - SMALL.depth and rows.max() <= 7 + SMALL.depth


@pytest.mark.parametrize(
    ("network", "cond", "match"),
    [
        (SMALL, {"label": jnp.zeros((1, 3))}, r"no conditions, got \['label'\]"),
        (DnCNN(depth=1), None, "two convolutions at least, got depth 1"),
        (DnCNN(out_channels=3), None, "images of 1 channels, and cannot give 3"),
    ],
)
def test_refusals(network, cond, match):
    with pytest.raises(ValueError, match=match):
        network.init(jax.random.key(0), jnp.zeros((1, 8, 8, 1)), cond)

"""Augmentations: closed gates change nothing, labels say what was done, opposites cancel."""

import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.objectives import augment, augment_ops

B, SIZE = 64, (8, 8)


@pytest.fixture(scope="module")
def images():
    x = jax.random.uniform(jax.random.key(0), (B, *SIZE, 3), minval=-1)
    return rng.image_keys(jax.random.key(1), B), x


@pytest.fixture(scope="module")
def edm():
    """The EDM recipe, compiled once for every p, and the number of times it was traced."""
    traces = []

    def f(keys, x, p):
        traces.append(None)
        return augment.augment(keys, x, p)

    return jax.jit(f), traces


def test_with_p_zero_only_flips_happen(edm, images):
    keys, x = images
    y, label = edm[0](keys, x, jnp.float32(0))
    flipped = np.asarray(label[:, 0]).astype(bool)
    assert 0.2 < flipped.mean() < 0.8
    np.testing.assert_array_equal(label[:, 1:], 0)
    want = np.where(flipped[:, None, None, None], x[:, :, ::-1], x)
    np.testing.assert_allclose(y, want, atol=3e-6)  # filtered twice by an orthogonal wavelet


def test_an_image_depends_on_its_key_and_pixels_alone_and_p_is_traced(edm, images):
    keys, x = images
    f, traces = edm
    y, label = f(keys, x, jnp.float32(0.5))
    others = jnp.arange(B) != 3
    keys2 = jax.random.wrap_key_data(
        jnp.where(others[:, None], jax.random.key_data(keys)[::-1], jax.random.key_data(keys))
    )
    y2, label2 = f(keys2, jnp.where(others[:, None, None, None], -x, x), jnp.float32(0.5))
    np.testing.assert_array_equal(y2[3], y[3])
    np.testing.assert_array_equal(label2[3], label[3])
    assert float(jnp.abs(y2 - y).max()) > 0.1
    assert len(traces) == 1


def test_labels_of_closed_gates_are_zero_and_p_is_their_rate():
    keys = rng.image_keys(jax.random.key(2), 2000)

    @jax.jit
    def draw(keys):
        w = augment.draw(keys, 0.3, augment.OPS, always=("hue",))
        return w, augment.label(w, SIZE)

    w, labels = draw(keys)
    strength = np.asarray(w["contrast"])[np.asarray(w["contrast"]) != 0]  # normal when drawn
    assert strength.mean() == pytest.approx(0, abs=0.2)
    assert strength.std() == pytest.approx(1, abs=0.15)
    assert labels.shape == (2000, sum(augment.OPS[n].draw.labels for n in w))
    at = 0
    for name, (draw, _) in augment.OPS.items():
        own = np.asarray(labels[:, at : at + draw.labels])
        changed = np.asarray(w[name]).any(1)
        np.testing.assert_array_equal(own[~changed], 0, err_msg=name)
        # Half of the bits and a quarter of the turns that are drawn at an open gate change nothing.
        share = {"xflip": 0.5, "yflip": 0.5, "lumaflip": 0.5, "rotate_int": 0.75}.get(name, 1)
        rate = share * (1 if name == "hue" else 0.3)
        assert changed.mean() == pytest.approx(rate, abs=0.05), name
        assert own[changed].any(1).mean() > 0.6, name  # whole shifts of 8 pixels are often 0
        at += draw.labels


@pytest.mark.parametrize("name", augment.GEOMETRY)
def test_a_transform_and_its_opposite_are_the_identity(name):
    draw, inverse = augment.GEOMETRY[name]
    r = np.random.RandomState(0)
    w = draw.parameter(r.rand(5, draw.uniforms), r.randn(5, draw.normals))
    back = w * jnp.asarray([-1, 1]) if name == "aniso" else -w  # w[1] of a stretch is its direction
    both = jax.jit(lambda *ws: augment_ops.compose(*(inverse(w, (6, 9)) for w in ws)))(w, back)
    np.testing.assert_allclose(both, np.broadcast_to(np.eye(3), both.shape), atol=1e-5)


def test_resampling_agrees_with_exact_turns_and_shifts():
    """On a smooth image, away from borders, which the two extend differently.

    The wavelet is not quite symmetric, which moves a turned image by up to a tenth of a pixel.
    """
    i, j = np.mgrid[:16, :16] / 16
    x = np.float32(np.sin(4 * i + 1) * np.cos(5 * j) + j)[None, :, :, None]
    inner = lambda v: np.asarray(v)[0, 4:-4, 4:-4, 0]
    resample = jax.jit(augment_ops.resample)
    c = np.float32([[[0, -1, 0], [1, 0, 0], [0, 0, 1]]])
    np.testing.assert_allclose(inner(resample(x, c)), np.rot90(inner(x)), atol=0.03)
    by = np.float32([[[1, 0, -3], [0, 1, 2], [0, 0, 1]]])  # 3 to the right, 2 up
    moved = resample(x, by)
    np.testing.assert_allclose(inner(moved), x[0, 6:-2, 1:-7, 0], atol=1e-5)
    shifted = jax.jit(augment_ops.shift)(x, np.float32([[3, 2]]))
    np.testing.assert_allclose(inner(moved), inner(shifted), atol=1e-5)


def test_positions_on_a_pixel_edge_are_the_same_for_index_and_weight():
    """A turn by sides 3, 4, 5 puts samples there all over; an optimised gradient program computes
    positions several times, rounded differently, which must not move a sample by a pixel."""
    x = jax.random.normal(jax.random.key(0), (1, 64, 64, 1))
    inverse = jnp.float32([[[0.6, -0.8, 0.7], [0.8, 0.6, 0.3], [0, 0, 1]]])
    both = lambda x, m: (lambda y, pull: (y, pull(x)))(*jax.vjp(augment_ops.resample, x, m))
    full = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"]:  # conftest.py's quick settings
        full["xla_cpu_use_fusion_emitters"] = True
    y = jax.jit(both).lower(x, inverse).compile(full)(x, inverse)[0]
    np.testing.assert_allclose(y, jax.jit(augment_ops.resample)(x, inverse), atol=1e-4)


def test_exact_transforms_move_pixels():
    x = np.arange(9, dtype=np.float32).reshape(1, 3, 3, 1)
    turns = jax.jit(augment_ops.quarter_turns)(np.repeat(x, 4, 0), np.arange(4.0))
    for k in range(4):
        np.testing.assert_array_equal(turns[k, :, :, 0], np.rot90(x[0, :, :, 0], k))
    right = jax.jit(augment_ops.shift)(x, np.float32([[1, 0]]))[0, :, :, 0]
    np.testing.assert_array_equal(right, [[1, 0, 1], [4, 3, 4], [7, 6, 7]])  # edges reflected


def test_colour_matrices_keep_what_they_should():
    @jax.jit
    def recolour(x):
        return augment_ops.recolour(x, augment_ops.about_grey(jnp.ones(2), 2.0, 0.7))

    grey, colour = np.full(3, 0.3), np.array([0.2, -0.5, 0.3])
    kept, out = np.asarray(recolour(np.float32([grey, colour])[:, None, None])).reshape(2, 3)
    np.testing.assert_allclose(kept, grey, atol=1e-6)
    norm = np.linalg.norm
    assert out.sum() == pytest.approx(0, abs=1e-6)  # orthogonal to grey: turned, twice as long
    assert norm(out) == pytest.approx(2 * norm(colour))
    assert out @ colour / norm(out) / norm(colour) == pytest.approx(np.cos(0.7))
    one = recolour(np.full((2, 1, 1, 1), 0.3, np.float32))  # one channel: as the grey colour
    np.testing.assert_allclose(one, 0.3, atol=1e-6)


def test_gradients_are_those_of_a_linear_map(images):
    keys, x = images[0][:4], images[1][:4]
    v = np.cos(np.arange(x.size, dtype=np.float32)).reshape(x.shape)

    @jax.jit
    def both(x, v):
        w = augment.draw(keys, 0.8, augment.RECIPES["edm"].ops)
        y, pull = jax.vjp(lambda x: augment.apply(x, w), x)
        return y, pull(v)[0]

    y, back = map(np.asarray, both(x, v))
    assert np.vdot(v, y) == pytest.approx(np.vdot(back, x), rel=1e-3)
    assert abs(np.vdot(v, y)) > 0.1


def test_the_filter_is_an_orthogonal_wavelet_with_six_vanishing_moments():
    f, k = augment_ops.SYM6, np.arange(12.0)
    for shift in range(6):
        assert f[2 * shift :] @ f[: 12 - 2 * shift] == pytest.approx(float(shift == 0), abs=1e-11)
    for q in range(6):
        assert (-1.0) ** k @ (k**q * f) == pytest.approx(0, abs=1e-8)
    assert f.sum() == pytest.approx(2**0.5)


def test_wrong_arguments_are_explained(images):
    keys, x = images
    with pytest.raises(ValueError, match="unknown augmentation recipe 'ada'; known are edm"):
        augment.augment(keys, x, 0.1, recipe="ada")
    with pytest.raises(ValueError, match=r"unknown augmentations \['blur'\]; known are xflip, yfl"):
        augment.draw(keys, 0.1, ("xflip", "blur"))
    with pytest.raises(ValueError, match=r"augmentations must be in \[0, 1\], got 12"):
        augment.augment(keys, x, 12)
    with pytest.raises(ValueError, match=r"square images, got \(8, 4\)"):
        augment_ops.quarter_turns(x[:, :, :4], jnp.ones(B))
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        augment_ops.recolour(x[..., :2], jnp.zeros((B, 4, 4)))

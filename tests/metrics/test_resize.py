"""Resizers: what rows of their matrices sum to, what they keep, Pillow's own numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen.metrics.resize import RESIZERS, matrix, resize

RNG = np.random.default_rng(0)
SIZES = [(8, 13), (32, 75), (20, 11), (31, 17), (9, 9), (1, 4), (5, 1)]


@pytest.mark.parametrize("resizer", RESIZERS)
def test_constants_stay_and_equal_sizes_change_nothing(resizer):
    for size, out in SIZES:
        m = matrix(resizer, size, out)
        assert m.shape == (out, size)
        np.testing.assert_allclose(m.sum(1), 1, atol=1e-12)
    np.testing.assert_allclose(matrix(resizer, 7, 7), np.eye(7), atol=1e-12)


@pytest.mark.parametrize("resizer", RESIZERS)
def test_half_pixel_centres_keep_a_ramp_and_tensorflow_shifts_it(resizer):
    """Inside; at the edges pixels are missing. The area's mean is the ramp where sizes divide."""
    size, out = 40, 20
    centre = (np.arange(out) + 0.5) * size / out - 0.5
    ramp = matrix(resizer, size, out) @ np.arange(size)
    want = np.arange(out) * size / out if resizer == "tf1-bilinear" else centre
    np.testing.assert_allclose(ramp[3:-3], want[3:-3], atol=1e-9)


@pytest.mark.parametrize("hw,out", [((8, 8), (13, 13)), ((20, 31), (11, 17)), ((24, 24), (30, 40))])
def test_pillow(hw, out):
    x = RNG.integers(0, 256, (*hw, 3), np.uint8)
    size = out[::-1]
    want = np.asarray(Image.fromarray(x).resize(size, Image.Resampling.BICUBIC))
    got = np.asarray(resize(x[None], out, "pil-bicubic-uint8")[0])
    assert np.abs(got - want).max() <= 1 and np.mean(got != want) < 0.01
    planes = [Image.fromarray(x[..., c].astype(np.float32)) for c in range(3)]
    for name, kind in (("bicubic", "BICUBIC"), ("bilinear", "BILINEAR")):
        method = getattr(Image.Resampling, kind)
        want = np.stack([np.asarray(p.resize(size, method)) for p in planes], -1)
        got = np.asarray(resize(x[None], out, f"{name}-antialias")[0])
        np.testing.assert_allclose(got, want, atol=1e-3)
    clipped = np.asarray(resize(x[None], out, "pil-bicubic")[0])
    np.testing.assert_allclose(
        clipped, np.clip(resize(x[None], out, "bicubic-antialias")[0], 0, 255)
    )


def test_area_is_the_mean_of_blocks():
    x = RNG.normal(size=(2, 12, 8, 3)).astype(np.float32)
    want = x.reshape(2, 3, 4, 4, 2, 3).mean((2, 4))
    np.testing.assert_allclose(resize(x, (3, 4), "area"), want, atol=1e-6)


def test_gradients_are_the_transpose():
    """<resize(x), y> = <x, gradient of <resize(x), y>>: linear, so the gradient is the adjoint."""
    x = jnp.asarray(RNG.normal(size=(1, 6, 9, 2)), jnp.float32)
    y = jnp.asarray(RNG.normal(size=(1, 11, 5, 2)), jnp.float32)
    inner = lambda x: (resize(x, (11, 5), "bicubic-antialias") * y).sum()
    value, g = jax.value_and_grad(inner)(x)
    np.testing.assert_allclose((g * x).sum(), value, rtol=1e-5)


def test_a_given_scale_moves_the_samples():
    """By a factor (16 + 0.1) / 37, as a position table is resized in DINOv2."""
    ramp = matrix("torch-bilinear", 37, 16, 37 / 16.1) @ np.arange(37)
    np.testing.assert_allclose(ramp, (np.arange(16) + 0.5) * 37 / 16.1 - 0.5)


def test_errors():
    with pytest.raises(ValueError, match=r"no resizer 'bicubic'; the names are .*torch-bicubic"):
        resize(np.zeros((1, 4, 4, 3), np.float32), (2, 2), "bicubic")
    with pytest.raises(ValueError, match="at least one pixel, got 4 and 0"):
        matrix("area", 4, 0)

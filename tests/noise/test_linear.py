"""Linear operators: adjoints to float64 rounding, independent numpy, noise where it is measured."""

import jax
import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
import scipy.ndimage

from jaxgen.common import rng
from jaxgen.noise import operators
from jaxgen.noise.corruption import Linear

KERNEL = ((0.0, 1.0, 0.5), (0.2, 2.0, -1.0), (0.0, 0.0, 0.3), (0.0, 0.1, 0.0), (0.7, 0.0, 0.0))
CASES = [
    ("kspace", {"rate": 0.3}),
    ("blur", {"std": 0.8}),
    ("blur", {"std": 6.0}),  # a kernel larger than the image
    ("blur", {"kernel": KERNEL}),
    ("mask", {"box": 0.5, "keep": 0.7}),
    ("downsample", {"factor": 3}),
    ("downsample", {"factor": 2, "kernel": "triangle"}),
    ("downsample", {"factor": 3, "kernel": "cubic"}),
]
X = np.random.default_rng(0).standard_normal((2, 12, 18, 2))


def test_the_cases_cover_the_linear_operators():
    linear = {n for n, cls in operators.NAMES.items() if issubclass(cls, Linear)}
    scanners = {"parallel_beam", "helical"}  # of square images only, in files of their own
    assert {name for name, _ in CASES} == linear - scanners


@pytest.mark.parametrize(("name", "settings"), CASES)
def test_forward_and_adjoint_have_the_same_inner_products(name, settings):
    op = operators.make(name, **settings)
    with jax.enable_x64(True):
        Ax = np.asarray(op.forward(jnp.asarray(X)))
        y = np.random.default_rng(1).standard_normal(Ax.shape)
        ATy = np.asarray(op.adjoint(jnp.asarray(y)))
    assert ATy.shape == X.shape and ATy.dtype == Ax.dtype == np.float64
    size = np.linalg.norm(Ax) * np.linalg.norm(y)
    assert abs((Ax * y).sum() - (X * ATy).sum()) < 1e-14 * size
    start = op.start(jnp.asarray(Ax, jnp.float32))
    assert start.shape == X.shape and np.isfinite(start).all()
    assert np.abs(op.forward(jnp.asarray(X, jnp.float32)) - Ax).max() < 2e-6 * np.abs(Ax).max()


def test_blur_is_periodic_convolution():
    with jax.enable_x64(True):
        got = operators.make("blur", kernel=KERNEL).forward(jnp.asarray(X))
        gauss = operators.make("blur", std=1.3).forward(jnp.asarray(X))
    want = scipy.ndimage.convolve(X, np.asarray(KERNEL)[None, ..., None], mode="wrap")
    np.testing.assert_allclose(got, want, atol=1e-12)
    want = scipy.ndimage.gaussian_filter(X, (0, 1.3, 1.3, 0), mode="wrap", radius=(0, 6, 6, 0))
    np.testing.assert_allclose(gauss, want, atol=1e-12)


def test_downsampling_is_the_mean_of_blocks_or_what_pillow_does():
    with jax.enable_x64(True):
        box = operators.make("downsample", factor=3).forward(jnp.asarray(X))
    np.testing.assert_allclose(box, X.reshape(2, 4, 3, 6, 3, 2).mean((2, 4)), atol=1e-14)
    start = operators.make("downsample", factor=3).start(box)
    np.testing.assert_allclose(start, np.kron(box, np.ones((1, 3, 3, 1))), atol=1e-6)
    image = X[0, ..., 0].astype(np.float32)
    for kernel, name in (("triangle", "BILINEAR"), ("cubic", "BICUBIC")):
        got = operators.make("downsample", factor=3, kernel=kernel).forward(image[None, ..., None])
        method = getattr(PIL.Image.Resampling, name)
        want = np.asarray(PIL.Image.fromarray(image).resize((6, 4), method))
        np.testing.assert_allclose(got[0, ..., 0], want, atol=1e-5)


def test_k_space_is_the_masked_spectrum_and_keeps_its_centre():
    op = operators.make("kspace", rate=0.3, seed=5)
    mask = np.asarray(op.mask(12, 18))
    assert mask.shape == (1, 12, 18, 1) and mask[0, 0, 0, 0] and 0.15 < mask.mean() < 0.5
    assert not np.array_equal(mask, operators.make("kspace", rate=0.3).mask(12, 18))
    want = np.fft.fft2(X, axes=(1, 2), norm="ortho") * mask
    got = np.asarray(op.forward(jnp.asarray(X, jnp.float32)))
    np.testing.assert_allclose(got, np.concatenate([want.real, want.imag], -1), atol=1e-5)
    np.testing.assert_allclose(op.forward(op.start(got)), got, atol=1e-5)  # A A^T A = A


def test_mask_hides_a_box_and_starts_from_the_mean_of_the_rest():
    op = operators.make("mask", box=0.5)
    y = np.asarray(op.forward(jnp.asarray(X, jnp.float32)))
    assert np.all(y[:, 3:9, 5:13] == 0) or np.all(y[:, 3:9, 4:13] == 0)
    assert (y != 0).mean() == 1 - 6 * 9 / (12 * 18)
    known = y != 0
    start = np.asarray(op.start(jnp.asarray(y)))
    np.testing.assert_array_equal(start[known], y[known])
    mean = np.array([[y[i, ..., c][known[i, ..., c]].mean() for c in range(2)] for i in range(2)])
    np.testing.assert_allclose(start[:, 6, 9], mean, atol=1e-6)


@pytest.mark.parametrize("name", ["kspace", "mask", "blur"])
def test_noise_is_where_something_is_measured(name):
    op, plain = (operators.make(name, sigma=s) for s in (0.2, 0.0))
    keys, x = rng.image_keys(jax.random.key(0), 64), jnp.ones((64, 12, 18, 2)) * X[:1]
    noise = np.asarray(op.corrupt(keys, x) - plain.corrupt(keys, x))
    where = np.broadcast_to(np.asarray(op.measured(noise)) == 1, noise.shape)
    assert np.all(noise[~where] == 0)
    np.testing.assert_allclose(noise[where].std(), 0.2, rtol=0.03)


def test_downsampling_needs_sides_that_the_factor_divides():
    with pytest.raises(ValueError, match="by 5 needs sides that it divides, got 12 x 18"):
        operators.make("downsample", factor=5).forward(jnp.asarray(X))

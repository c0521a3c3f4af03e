"""Feature nets: committed weights, preprocessing, sharded streaming, and what the distances see."""

import json
import shutil

import jax
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from jaxgen.common.mesh import make_mesh
from jaxgen.common.units import from_uint8
from jaxgen.data import sources
from jaxgen.metrics import classifier, evaluate, features, stream


@pytest.fixture(scope="module")
def digits():
    """The digits feature net."""
    return features.load("digits-classifier")


@pytest.fixture(scope="module")
def images():
    """Real digits of the train split (1200, 8, 8, 1) uint8."""
    return sources.load("digits", "train").arrays[0]


@pytest.mark.parametrize(
    "name,source,least",
    [("digits-classifier", "digits", 0.98), ("fashion-classifier", "fashion_mnist", 0.91)],
)
def test_committed_nets_classify_the_test_split(name, source, least):
    try:
        x, y = sources.load(source, "test").arrays
    except OSError as e:
        pytest.skip(f"{source} is not on this machine: {e}")
    net = features.load(name)
    got = np.concatenate([net.logits(x[i : i + 1000]).argmax(1) for i in range(0, len(x), 1000)])
    record = json.loads((features.WEIGHTS / f"{name}.json").read_text())
    assert np.mean(got == y) >= least
    assert abs(np.mean(got == y) - record["test_accuracy"]) < 2e-3
    assert (features.WEIGHTS / f"{name}.npz").stat().st_size < 1e6


def test_modified_weights_are_refused(tmp_path):
    for suffix in (".npz", ".json"):
        shutil.copy(features.WEIGHTS / f"digits-classifier{suffix}", tmp_path)
    features.load("digits-classifier", folder=tmp_path)
    path = tmp_path / "digits-classifier.npz"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"not the file its json describes: .* got [0-9a-f]{16};"):
        features.load("digits-classifier", folder=tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match=r"weights of digits-classifier are not at .*reinstall"):
        features.load("digits-classifier", folder=tmp_path)


def test_facts_and_scale(digits, images):
    facts = digits.facts()
    assert facts["name"] == "digits-classifier" and facts["dim"] == 64
    assert len(facts["weights_sha256"]) == 16 and "bilinear" in facts["resizer"]
    f = digits(images)
    assert f.shape == (len(images), 64) and f.dtype == np.float32
    assert 0.9 < np.mean(np.square(f)) < 1.1


def test_uint8_and_float_images_give_the_same_features(digits, images):
    x = images[:16]
    np.testing.assert_allclose(digits(x), digits(np.asarray(from_uint8(x))), atol=1e-5)


def test_other_sizes_and_colours_are_brought_to_the_net(digits, images):
    x = images[:16]
    same = np.repeat(np.repeat(np.repeat(x, 2, 1), 2, 2), 3, 3)  # 16x16 RGB
    assert digits(same).shape == (16, 64)
    rgb = np.repeat(x, 3, -1)
    np.testing.assert_allclose(digits(rgb), digits(x), atol=1e-4)
    fitted = features.fit(from_uint8(x), (8, 8, 3))
    np.testing.assert_array_equal(fitted[..., 0], fitted[..., 2])
    # Antialiased halving of a checkerboard is grey, not one of its colours.
    board = np.indices((16, 16)).sum(0) % 2 * 2.0 - 1.0
    small = features.fit(board[None, ..., None], (8, 8, 1))
    assert np.abs(small[0, 2:-2, 2:-2]).max() < 0.1


def test_pixels(images):
    net = features.load("pixels")
    np.testing.assert_allclose(net(images[:3]), images[:3].reshape(3, -1) / 127.5 - 1, atol=1e-6)
    assert net.facts()["weights_sha256"] == "none"
    with pytest.raises(ValueError, match="pixels is no classifier"):
        net.logits(images[:3])


def test_classifier_shapes_are_those_of_its_parameters():
    spec = classifier.Spec((5, 7, 3), ((4, 1), (6, 2)), 9, classes=3)
    params = jax.eval_shape(lambda: classifier.init(jax.random.key(0), spec))
    assert {k: v.shape for k, v in params.items()} == classifier.shapes(spec)
    x = jax.ShapeDtypeStruct((2, 5, 7, 3), np.float32)
    f = jax.eval_shape(lambda p, x: classifier.features(p, x, spec), params, x)
    assert f.shape == (2, 9) and jax.eval_shape(classifier.logits, params, f).shape == (2, 3)


def test_default_net():
    assert features.default_for("digits", (8, 8, 1)) == "digits-classifier"
    assert features.default_for("tfds:mnist", (28, 28, 1)) == "fashion-classifier"
    assert features.default_for("npz", (28, 28, 1)) == "fashion-classifier"
    with pytest.raises(ValueError, match=r"no feature net belongs .* choose one with --features"):
        features.default_for("folder", (64, 64, 3))


def test_errors(digits, images):
    with pytest.raises(ValueError, match="no feature net 'digit'; the names are"):
        features.load("digit")
    with pytest.raises(ValueError, match=r"uint8 or float in \[-1, 1\], got int32"):
        digits(images[:2].astype(np.int32))
    with pytest.raises(ValueError, match=r"takes images \(n, h, w, c\)"):
        digits(images[0])
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        digits(np.repeat(images[:2], 2, -1))
    with pytest.raises(ValueError, match="no images to compute digits-classifier features of"):
        stream.features(digits, [])
    with pytest.raises(ValueError, match="no images to compute digits-classifier moments of"):
        stream.moments(digits, [])
    with pytest.raises(ValueError, match=r"one shape and type, got .* and then"):
        stream.features(digits, [images[:2], images[:2, :4]])


def test_streaming_does_not_depend_on_devices_or_batches(digits, images):
    x = images[:301]
    whole = np.asarray(digits(x))
    cuts = [{"image": part, "label": None} for part in np.split(x, [5, 5, 140, 141])]
    for mesh in (None, make_mesh(devices=jax.devices()[:1]), make_mesh(data=2, fsdp=4)):
        got = stream.features(digits, cuts, mesh, batch=61)
        assert got.shape == whole.shape
        np.testing.assert_allclose(got, whole, rtol=1e-4, atol=1e-5)
    m = stream.moments(digits, cuts, batch=64)
    assert m.count == len(x)
    np.testing.assert_allclose(m.mean, whole.mean(0, dtype=np.float64), atol=1e-5)
    np.testing.assert_allclose(m.cov, np.cov(whole.T.astype(np.float64)), atol=1e-5)


@pytest.mark.parametrize("metric", ["frechet", "kernel"])
def test_distances_order_floor_blur_noise(digits, images, metric):
    rng = np.random.default_rng(0)
    real, other = images[:600], images[600:]
    noisy = np.clip(other + rng.normal(0, 40, other.shape), 0, 255).astype(np.uint8)
    blurred = gaussian_filter(other, (0, 0.7, 0.7, 0))
    noise = rng.integers(0, 256, other.shape, np.uint8)
    f = lambda x: np.asarray(digits(x))
    key = f"{metric}@digits-classifier"
    d = lambda x: evaluate.compare(f(x), f(real), [metric], net_name=digits.name)[key]
    floor = evaluate.floor(f(images), 0, [metric], net_name=digits.name)[key]
    assert floor < 0.5 * min(d(noisy), d(blurred))
    assert 2 * max(d(noisy), d(blurred)) < d(noise)

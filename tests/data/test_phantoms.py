"""Phantoms: their ellipses against closed forms, one image a number, what errors say."""

import numpy as np
import pytest

from jaxgen.data import phantoms
from jaxgen.data.source import in_memory
from jaxgen.data.sources import load


def test_areas_and_volumes():
    ellipse = np.array([[0.5, 0.6, 0.3, 0.1, -0.2, 0.7]])
    image = phantoms.draw(ellipse, 64)
    np.testing.assert_allclose(image.sum() * (2 / 64) ** 2, 0.5 * np.pi * 0.6 * 0.3, rtol=0.01)
    at = (np.arange(64) - 31.5) / 32
    centre = (image[..., 0] * at).sum() / image.sum(), (image[..., 0] * -at[:, None]).sum()
    np.testing.assert_allclose([centre[0], centre[1] / image.sum()], [0.1, -0.2], atol=2e-3)
    ball = np.array([[0.5, 0.4, 0.4, 0.1, -0.2, 0.0, 0.05, 0.4]])
    volume = phantoms.draw(ball, 32, 32)
    np.testing.assert_allclose(volume.sum() / 16**3, 0.5 * 4 / 3 * np.pi * 0.4**3, rtol=0.02)
    height = (volume.sum((0, 1)) * (np.arange(32) - 15.5) / 16).sum() / volume.sum()
    np.testing.assert_allclose(height, 0.05, atol=5e-3)


def test_shepp_logan_is_what_the_paper_drew():
    """Grey levels by the sums of its table, at places in single and overlapping ellipses."""
    at = lambda image, x, y: image[int((1 - y) * 64), int((1 + x) * 64), 0]
    places = [(0, 0.9), (0, -0.35), (0.22, 0), (-0.22, 0), (0, 0.45), (0, 0.08), (0, -0.605)]
    low = phantoms.draw(phantoms.shepp_logan(modified=False), 128)
    want = np.array([2, 1.02, 1, 1, 1.03, 1.03, 1.03]) / 2
    np.testing.assert_allclose([at(low, *p) for p in places], want, atol=2e-3)
    high = phantoms.draw(phantoms.shepp_logan(), 128)
    want = [1, 0.2, 0, 0, 0.3, 0.3, 0.3]
    np.testing.assert_allclose([at(high, *p) for p in places], want, atol=1e-6)
    assert high[:, :64].sum() < high[:, 64:].sum()  # the larger hole is on the left


def test_a_quarter_turn():
    turned = phantoms.draw(phantoms.shepp_logan(turn=np.pi / 2), 32)
    np.testing.assert_allclose(turned, np.rot90(phantoms.draw(phantoms.shepp_logan(), 32)))


def test_images_depend_on_their_number_only():
    source = load("phantoms?size=16&num=20")
    assert (len(source), source.shape, source.dtype) == (20, (16, 16, 1), np.uint8)
    fewer = in_memory(load("phantoms", size=16, num=3))
    np.testing.assert_array_equal(source[2]["image"], fewer.images[2])
    test = load("phantoms?size=16&num=20", "test")
    assert len(test) == 2
    others = [load("phantoms?size=16", seed=1)[0], source[1], test[0]]
    assert all((source[0]["image"] != o["image"]).any() for o in others)


def test_volumes():
    source = load("phantoms?size=16&depth=8&num=4")
    assert source.shape == (16, 16, 8)
    volume = source[1]["image"].astype(float)
    assert np.abs(np.diff(volume, axis=2)).max() > 20 and volume.max() <= 255


def test_nothing_is_outside_of_the_disc():
    images = np.stack([load("phantoms?size=32")[i]["image"] for i in range(8)])
    corner = (np.arange(32) - 15.5) ** 2
    assert not images[:, corner[:, None] + corner > 17**2].any() and images.max() > 100


@pytest.mark.parametrize(
    "options,text",
    [
        ({"kind": "heads"}, "of kind ellipses, shepp-logan, shepp-logan-original; got 'heads'"),
        ({"size": 0}, "need size >= 1, depth >= 0 and num >= 1, got 0, 0 and 1000"),
        ({"kind": "shepp-logan", "depth": 4}, "volumes .* are of kind ellipses"),
    ],
)
def test_errors(options, text):
    with pytest.raises(ValueError, match=text):
        load("phantoms", **options)
    with pytest.raises(IndexError, match=r"phantoms are 0..999, got 1000"):
        load("phantoms")[1000]

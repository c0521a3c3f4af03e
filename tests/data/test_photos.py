"""Photographs of installed packages, and BSD400: crops, splits by photograph, errors."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxgen.data import photos
from jaxgen.data.sources import load

SKLEARN = photos.package_folder("sklearn")


@pytest.fixture
def both(tmp_path, monkeypatch):
    """scikit-image beside scikit-learn, with photographs of one grey each."""
    for i, (package, file, _) in enumerate(photos.PHOTOS.values()):
        if package == "skimage":
            path = tmp_path / file
            path.parent.mkdir(exist_ok=True)
            Image.new("L", (60 + i, 50), 100 + i).save(path)
    folders = {"sklearn": SKLEARN, "skimage": tmp_path}
    monkeypatch.setattr(photos, "package_folder", folders.get)


@pytest.fixture
def alone(monkeypatch):
    """scikit-learn only."""
    monkeypatch.setattr(photos, "package_folder", {"sklearn": SKLEARN}.get)


def test_crops_are_pieces_of_the_photograph(alone):
    with Image.open(SKLEARN / "datasets/images/china.jpg") as image:
        china = np.asarray(image)
    source = load("photos?size=200&stride=100")
    rows, columns = 1 + (427 - 200) // 100, 1 + (640 - 200) // 100
    assert source.shape == (200, 200, 3) and len(source) == rows * columns
    for i in range(len(source)):
        y, x = 100 * (i // columns), 100 * (i % columns)
        np.testing.assert_array_equal(source[i]["image"], china[y : y + 200, x : x + 200])


def test_greys_are_pillows(alone):
    with Image.open(SKLEARN / "datasets/images/flower.jpg") as image:
        grey = np.asarray(image.convert("L"))
    source = load("photos?size=128&grey=1", "test")
    assert source.shape == (128, 128, 1) and len(source) == 3 * 5, "test crops do not overlap"
    np.testing.assert_array_equal(source[6]["image"][..., 0], grey[128:256, 128:256])


def test_splits_are_by_photograph_and_stay_when_a_package_is_added(both):
    """More photographs with scikit-image, and none of them changes sides."""
    train, test = photos.paths("train"), photos.paths("test")
    assert {*train, *test} == set(photos.PHOTOS) and not {*train} & {*test}
    greys = {s: set(np.unique(load("photos?size=50&grey=1", s).images)) for s in ("train", "test")}
    flat = {i + 100: p for i, p in enumerate(photos.PHOTOS.values()) if p[0] == "skimage"}
    seen = {s: load("photos?size=50&grey=1&stride=50", s).images for s in ("train", "test")}
    for grey, (_, _, split) in flat.items():
        alike = {s: (x == grey).all((1, 2, 3)).any() for s, x in seen.items()}
        assert alike == {s: s == split for s in alike}, grey
    assert greys["train"]


def test_without_scikit_image_there_are_two(alone):
    assert set(photos.paths("train")) == {"china"} and set(photos.paths("test")) == {"flower"}


def test_nothing_of_scikit_image_is_imported():
    """Its data module would download what is not in the wheel."""
    code = "import sys; from jaxgen.data.sources import load; load('photos'); "
    code += "print({'skimage', 'pooch', 'sklearn'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("spec", "match"),
    [
        ("photos?size=500", "size is 1 to 427, the sides of china, got 500"),
        ("photos?size=0", "size is 1 to 427"),
        ("photos?grey=2", "grey is 0 or 1"),
        ("photos?stride=-1", "stride >= 0"),
        ("photos?color=1", "its options: size, stride, grey"),
    ],
)
def test_wrong_options(alone, spec, match):
    with pytest.raises(ValueError, match=match):
        load(spec)


def test_no_photographs_at_all(monkeypatch):
    monkeypatch.setattr(photos, "package_folder", lambda package: None)
    with pytest.raises(FileNotFoundError, match="scikit-learn is not installed with its images"):
        load("photos")


def test_bsd400_below_JAXGEN_DATA(tmp_path, monkeypatch):
    monkeypatch.setenv("JAXGEN_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"photos\?grey=1"):
        load("bsd400")
    array = np.random.default_rng(0).integers(0, 256, (3, 20, 30)).astype("u1")
    for name, images in (("bsd400", array[:2, :, :20]), ("bsd68", array)):
        (tmp_path / "denoise_gray" / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / "denoise_gray" / name / f"{i}.png")
    train, test = load("bsd400?size=20"), load("bsd400?size=10", "test")
    np.testing.assert_array_equal(train.images[..., 0], array[:2, :, :20])
    np.testing.assert_array_equal(test.images[..., 0], array[:, 5:15, 10:20])
    with pytest.raises(ValueError, match=r"size is 1 to 20 for .*0.png, got 180"):
        load("bsd400")

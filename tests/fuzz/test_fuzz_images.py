"""Damaged image files through every reader of images."""

import io

import numpy as np
import pytest
from fuzzing import COUNTS, damaged, fuzz, memory, tame
from hypothesis import strategies as st
from PIL import Image

from jaxgen.cli import photo_files
from jaxgen.data import folder, images, prepare


def encoded(image, form, **how):
    out = io.BytesIO()
    image.save(out, form, **how)
    return out.getvalue()


def picture(mode, size=(8, 6)):
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (*size[::-1], 4), np.uint8), "RGBA")
    return rgb.convert(mode)


EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010E] = 6, "about"
EXIF._ifds[0x8769] = {0x9286: b"comment"}
RGB, RGBA, GREY = picture("RGB"), picture("RGBA"), picture("L")
PALETTE = RGB.quantize(8)
SEEDS = {
    "grey.png": encoded(GREY, "PNG"),
    "rgba.png": encoded(RGBA, "PNG", exif=EXIF),
    "palette.png": encoded(PALETTE, "PNG", transparency=1),
    "bits.png": encoded(picture("1"), "PNG"),
    "base.jpg": encoded(RGB, "JPEG", exif=EXIF, dpi=(72, 72)),
    "more.jpg": encoded(RGB, "JPEG", progressive=True),
    "cmyk.jpg": encoded(RGB.convert("CMYK"), "JPEG"),
    "lossy.webp": encoded(RGB, "WEBP", exif=EXIF),
    "alpha.webp": encoded(RGBA, "WEBP", lossless=True),
    "film.webp": encoded(RGB, "WEBP", save_all=True, append_images=[RGBA]),
    "a.bmp": encoded(RGB, "BMP"),
    "p.bmp": encoded(PALETTE, "BMP"),
    "film.gif": encoded(PALETTE, "GIF", save_all=True, append_images=[GREY]),
    "raw.tif": encoded(RGB, "TIFF", exif=EXIF),
    "lzw.tiff": encoded(RGBA, "TIFF", compression="tiff_lzw"),
    "zip.tiff": encoded(GREY, "TIFF", compression="tiff_adobe_deflate", exif=EXIF),
    "jpeg.tiff": encoded(RGB, "TIFF", compression="jpeg"),
    "fax.tif": encoded(picture("1"), "TIFF", compression="group4"),
    "pages.tif": encoded(RGB, "TIFF", save_all=True, append_images=[RGB]),
    "a.ppm": encoded(RGB, "PPM"),
    "a.pgm": encoded(GREY, "PPM"),
}
PHOTOS = {n: d for n, d in SEEDS.items() if "." + n.partition(".")[2] in photo_files.SUFFIXES}


pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A limit of pixels that keeps what is allowed small enough to be measured."""
    monkeypatch.setenv(images.VARIABLE, "250000")


def check(x, h=None):
    assert x.dtype == np.uint8 and x.ndim == 3 and x.shape[2] in (1, 3)
    assert x.shape[0] * x.shape[1] <= 250_000


@COUNTS
def test_image_reader(count, tmp_path):
    def body(example):
        name, data = example
        path = tmp_path / name
        path.write_bytes(data)
        x, _ = tame(lambda: images.read(path), tmp_path, str(path))
        y, _ = tame(lambda: images.read(data, 3), tmp_path, "image")
        assert x is None or (check(x), y is None or y.shape[:2] == x.shape[:2])[1]
        look, error = tame(lambda: images.look(path, True), tmp_path)
        assert error is None and (look.error != "") >= (look.size == (0, 0))
        tame(lambda: images.read_exact(path, (6, 8, 3)), tmp_path, str(path))

    with memory(100):
        fuzz(count, damaged(SEEDS), body)


@COUNTS
def test_photos_are_read_and_written_back(count, tmp_path):
    inside = tmp_path / "in"
    inside.mkdir()

    def body(example):
        name, data = example
        path = inside / name
        path.write_bytes(data)
        photo, _ = tame(lambda: photo_files.read(path), inside, str(path))
        if photo is not None:
            check(photo.pixels)
            out = inside / "out" / name
            tame(lambda: photo_files.write(out, photo, photo.pixels), inside, str(out))
            assert not list(out.parent.glob(".*")), "a part of a file was left"

    with memory(100):
        fuzz(count, damaged(PHOTOS), body)
    assert list(tmp_path.iterdir()) == [inside]


@COUNTS
def test_folders_of_images(count, tmp_path):
    root = tmp_path / "set"
    for c in "ab":
        (root / c).mkdir(parents=True)
        (root / c / "good.png").write_bytes(encoded(RGB, "PNG"))

    def body(example):
        (name, data), where = example
        path = root / where / name
        path.write_bytes(data)

        def read():
            source = folder.load(str(root), "train", holdout=0.0)
            return [source[i] for i in range(len(source))]

        items, _ = tame(read, tmp_path, str(root))
        assert items is None or len(items) == 3
        path.unlink()

    with memory(100):
        fuzz(count, st.tuples(damaged(SEEDS), st.sampled_from("ab")), body)


def test_a_bad_image_is_left_out_of_a_prepared_set(tmp_path):
    """Damaged in many ways at once: each is named, none is written, nothing else is touched."""
    root, out = tmp_path / "set", tmp_path / "out"
    root.mkdir()
    for k, (name, data) in enumerate(SEEDS.items()):
        (root / f"{k}{name}").write_bytes(data[: len(data) // 3])
    (root / "good.png").write_bytes(encoded(RGB, "PNG"))
    made = prepare.prepare(root, out, size=4, skip_bad=True, progress=False)
    assert made.num + len(made.skipped) == len(SEEDS) + 1 and len(made.skipped) >= 15
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "set"]

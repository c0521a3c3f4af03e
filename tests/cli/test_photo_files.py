"""Files of photos: upright for the network and as they were on disk, whatever the format."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from jaxgen.cli import photo_files

MAKER, DATE = 0x010F, 0x9003
LOSSLESS = {"png": {}, "webp": {"lossless": True, "exact": True}, "tif": {}}


def noise(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("u1")


def exif(orientation):
    found = Image.Exif()
    found[0x0112], found[MAKER] = orientation, "a maker"
    found[0x8769] = {DATE: "2020:01:02 03:04:05"}
    return found.tobytes()


def stored(path):
    """Pixels as they lie in the file, unturned, and EXIF."""
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        tags = image.getexif()
        tags, inner = dict(tags), dict(tags.get_ifd(0x8769))
        array = np.asarray(image)
        if image.format == "TIFF":  # Pillow turns these itself
            array = photo_files.BACK[tags.get(0x0112, 1)](array)
    return array, tags, inner


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_and_kept(tmp_path, suffix, orientation):
    """The pixels stand upright by Pillow's own rule; the file written is the file read."""
    array, path = noise(5, 8, 3), tmp_path / f"a.{suffix}"
    how = {"exif": exif(orientation), **LOSSLESS[suffix]}
    Image.fromarray(array).save(path, **how)
    photo = photo_files.read(path)
    with Image.open(path) as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(photo.pixels, upright)
    photo_files.write(tmp_path / f"b.{suffix}", photo, photo.pixels)
    got, tags, inner = stored(tmp_path / f"b.{suffix}")
    np.testing.assert_array_equal(got, array)
    assert tags[0x0112] == orientation and tags[MAKER] == "a maker"
    assert inner[DATE] == "2020:01:02 03:04:05"


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_jpeg_keeps_its_orientation_too(tmp_path, orientation):
    smooth = np.add.outer(np.arange(16) * 8, np.arange(24) * 4).astype("u1")
    Image.fromarray(smooth).save(tmp_path / "a.jpg", exif=exif(orientation), quality=98)
    photo = photo_files.read(tmp_path / "a.jpg")
    photo_files.write(tmp_path / "b.jpg", photo, photo.pixels, quality=98)
    got, tags, inner = stored(tmp_path / "b.jpg")
    assert got.shape == smooth.shape and np.abs(got.astype(int) - smooth).max() <= 4
    assert tags[0x0112] == orientation and inner[DATE] == "2020:01:02 03:04:05"


@pytest.mark.parametrize("suffix", [*LOSSLESS, "jpg"])
def test_the_colour_profile_is_kept(tmp_path, suffix):
    profile = b"a profile " * 30
    Image.fromarray(noise(4, 6, 3)).save(tmp_path / f"a.{suffix}", icc_profile=profile)
    photo = photo_files.read(tmp_path / f"a.{suffix}")
    photo_files.write(tmp_path / f"b.{suffix}", photo, photo.pixels)
    with Image.open(tmp_path / f"b.{suffix}") as image:
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("suffix", LOSSLESS)
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_alpha_is_left_alone(tmp_path, suffix, mode):
    """Identical alpha, colours under it changed as any others, in any orientation."""
    array = noise(5, 8, len(mode))
    image = Image.fromarray(array)
    image.save(tmp_path / f"a.{suffix}", exif=exif(6), **LOSSLESS[suffix])
    photo = photo_files.read(tmp_path / f"a.{suffix}")
    assert photo.alpha.shape == photo.pixels.shape[:2] == (8, 5)
    photo_files.write(tmp_path / f"b.{suffix}", photo, 255 - photo.pixels)
    got, _, _ = stored(tmp_path / f"b.{suffix}")
    np.testing.assert_array_equal(got[..., -1], array[..., -1])
    np.testing.assert_array_equal(got[..., 0], 255 - array[..., 0])


def test_palettes_and_colour_keys(tmp_path):
    palette = Image.fromarray(noise(6, 6, 3)).convert("P", palette=Image.Palette.ADAPTIVE)
    palette.save(tmp_path / "p.png", transparency=3)
    want = np.asarray(palette.convert("RGB"))
    photo = photo_files.read(tmp_path / "p.png")
    np.testing.assert_array_equal(photo.pixels, want)
    np.testing.assert_array_equal(photo.alpha == 0, np.asarray(palette) == 3)
    Image.fromarray(np.arange(12, dtype="u1").reshape(3, 4)).save(
        tmp_path / "k.png", transparency=5
    )
    photo = photo_files.read(tmp_path / "k.png")
    assert photo.pixels.shape == (3, 4, 1) and np.argwhere(photo.alpha == 0).tolist() == [[1, 1]]


def test_another_format(tmp_path):
    """EXIF goes along where the suffix changes; alpha cannot go to JPEG."""
    Image.fromarray(noise(5, 8, 3)).save(tmp_path / "a.jpg", exif=exif(8))
    photo = photo_files.read(tmp_path / "a.jpg")
    for suffix in LOSSLESS:
        photo_files.write(tmp_path / f"b.{suffix}", photo, photo.pixels)
        assert np.array_equal(photo_files.read(tmp_path / f"b.{suffix}").pixels, photo.pixels) or (
            suffix == "webp"  # of a lossy photo it is lossy
        )
        assert stored(tmp_path / f"b.{suffix}")[1][0x0112] == 8
    clear = photo._replace(alpha=np.zeros(photo.pixels.shape[:2], "u1"))
    with pytest.raises(ValueError, match="JPEG has no alpha"):
        photo_files.write(tmp_path / "c.jpg", clear, photo.pixels)
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob(".*"))


def test_of_a_jpeg_with_a_preview_the_first_picture_is_read(tmp_path):
    """Cameras write such files; their pages are told, since the others are not kept."""
    first, second = Image.new("RGB", (8, 6), (200, 10, 10)), Image.new("RGB", (4, 3))
    first.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[second])
    photo = photo_files.read(tmp_path / "a.jpg")
    assert photo.pages == 2 and photo.pixels.shape == (6, 8, 3)
    photo_files.write(tmp_path / "b.jpg", photo, photo.pixels)
    assert photo_files.read(tmp_path / "b.jpg").pages == 1


def deep_png():
    """A PNG of 16 bits a colour, which Pillow cuts to 8 without a word."""
    part = lambda t, d: struct.pack(">I", len(d)) + t + d + struct.pack(">I", zlib.crc32(t + d))
    rows = b"".join(b"\0" + bytes(6 * 4) for _ in range(3))
    head = struct.pack(">IIBBBBB", 4, 3, 16, 2, 0, 0, 0)
    body = part(b"IHDR", head) + part(b"IDAT", zlib.compress(rows)) + part(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def saved(suffix, image, **how):
    f = io.BytesIO()
    image.save(f, suffix, **how)
    return f.getvalue()


REFUSED = {
    "colours of 16 bits": ("a.png", deep_png, "more than 8 bits a channel"),
    "greys of 16 bits": (
        "a.png",
        lambda: saved("PNG", Image.fromarray(np.zeros((3, 4), "u2"))),
        "more than 8 bits a channel",
    ),
    "inks": (
        "a.jpg",
        lambda: saved("JPEG", Image.new("CMYK", (4, 4))),
        "Pillow mode CMYK, and not grey or RGB",
    ),
    "pages": (
        "a.tif",
        lambda: saved(
            "TIFF", Image.new("L", (4, 4)), save_all=True, append_images=[Image.new("L", (4, 4))]
        ),
        "2 pages, and not one photo",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_8_bits_cannot_hold_is_refused(tmp_path, case):
    name, make, match = REFUSED[case]
    (tmp_path / name).write_bytes(make())
    with pytest.raises(ValueError, match=match) as caught:
        photo_files.read(tmp_path / name)
    assert name in str(caught.value)


def test_damage_names_the_file(tmp_path):
    whole = saved("JPEG", Image.fromarray(noise(64, 64, 3)))
    (tmp_path / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no photo")
    for name in ("cut.jpg", "text.png"):
        with pytest.raises(OSError, match=f"{name}: cannot be read"):
            photo_files.read(tmp_path / name)


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    photo = photo_files.Photo(noise(4, 4, 3), None, 1, {})
    photo_files.write(tmp_path / "a.png", photo, photo.pixels)
    before = (tmp_path / "a.png").read_bytes()

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(OSError, match="disk full"):
        photo_files.write(tmp_path / "a.png", photo, 255 - photo.pixels)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before

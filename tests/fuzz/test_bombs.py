"""Small files that would become large, slow or something else: refused before that happens."""

import gzip
import io
import json
import os
import struct
import zipfile
import zlib

import numpy as np
import pytest
from fuzzing import memory, tame
from PIL import Image

from jaxgen.cli import photo_files
from jaxgen.common import npz
from jaxgen.data import arrays, folder, idx, images, labels, source
from jaxgen.interop import reader


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, rows=b"", before=b""):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, 8, 0, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(rows, 9))
    return b"\x89PNG\r\n\x1a\n" + head + before + pixels + chunk(b"IEND", b"")


def encoded(form, image=None, **how):
    out = io.BytesIO()
    (image or Image.new("RGB", (8, 8))).save(out, form, **how)
    return out.getvalue()


def with_size(data, old, new):
    assert data.count(old) >= 1
    return data.replace(old, new)


def tiff(w, h):
    tags = [(256, 4, 1, w), (257, 4, 1, h), (258, 3, 1, 8), (259, 3, 1, 5), (262, 3, 1, 1),
            (273, 4, 1, 200), (277, 3, 1, 1), (278, 4, 1, h), (279, 4, 1, 8)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", *t) for t in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(200)


TOO_LARGE = {
    "png": png(60_000, 60_000),
    "filled.png": png(10_000, 10_000, bytes(10_001 * 10_000)),
    "gif": with_size(encoded("GIF"), b"GIF87a\x08\0\x08\0", b"GIF87a\xff\xff\xff\xff"),
    "bmp": with_size(
        encoded("BMP"), struct.pack("<ii", 8, 8), struct.pack("<ii", 2**30, 2**30)
    ),
    "tif": tiff(2**17, 2**17),
    "ppm": b"P6 100000 100000 255\n" + bytes(9),
    "webp": b"RIFF\x2a\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + b"\xff\x3f\0" * 2 + bytes(12),
    "jpg": with_size(
        encoded("JPEG"), b"\x08\x00\x08\x00\x08\x03", b"\x08\xff\xdc\xff\xdc\x03"
    ),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", TOO_LARGE)
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path, name):
    path = tmp_path / f"x.{name.rpartition('.')[2]}"
    path.write_bytes(TOO_LARGE[name])
    readers = [images.read, lambda p: images.read_exact(p, (8, 8, 3))]
    if path.suffix in photo_files.SUFFIXES:
        readers.append(photo_files.read)
    with memory(32):
        for read in readers:
            _, error = tame(lambda r=read: r(path), tmp_path, str(path))
            assert isinstance(error, ValueError | OSError)
            if name not in ("webp", "tif"):  # whose parsers see that the rest is missing
                assert isinstance(error, ValueError) and images.VARIABLE in str(error)
        assert images.look(path, True).error


def test_the_limit_of_pixels_can_be_changed(tmp_path, monkeypatch):
    path = tmp_path / "x.png"
    Image.new("L", (100, 50)).save(path)
    for text in ("4999", "1"):
        monkeypatch.setenv(images.VARIABLE, text)
        with pytest.raises(ValueError, match="100x50 pixels, more than"):
            images.read(path)
    monkeypatch.setenv(images.VARIABLE, "5000")
    assert images.read(path).shape == (50, 100, 1)
    for wrong in ("many", "-1", "0", "1e9", ""):
        monkeypatch.setenv(images.VARIABLE, wrong)
        with pytest.raises(ValueError, match="is a number of pixels"):
            images.read(path)


def test_more_than_pillow_warns_of_can_be_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    monkeypatch.setenv(images.VARIABLE, "10000")
    path = tmp_path / "x.png"
    Image.new("L", (100, 100)).save(path)
    assert images.read(path).shape == (100, 100, 1)


FOREIGN = {
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(x) run\n",
    "psd": b"8BPS\0\x01" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(20),
    "ico": encoded("ICO"),
    "tga": encoded("TGA"),
    "pcx": encoded("PCX"),
    "icns": b"icns\0\0\0\x10ic07\0\0\0\x08",
    "pdf": b"%PDF-1.4\n",
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "wmf": b"\xd7\xcd\xc6\x9a\0\0" + bytes(40),
    "jp2": encoded("JPEG2000"),
    "dds": encoded("DDS"),
    "im": encoded("IM"),
    "spider": encoded("SPIDER", Image.new("F", (8, 8))),
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_only_the_listed_formats_are_looked_for(tmp_path, name, suffix):
    """A suffix says nothing: Pillow would start ghostscript for the first of them."""
    path = tmp_path / f"x{suffix}"
    path.write_bytes(FOREIGN[name])
    for read in (images.read, photo_files.read, lambda p: images.read_exact(p, (8, 8, 3))):
        _, error = tame(lambda r=read: r(path), tmp_path, str(path))
        assert error is not None
    assert "cannot identify" in images.look(path, True).error


def test_texts_in_a_png_do_not_unpack_without_end(tmp_path):
    text = b"Comment\0\0" + zlib.compress(bytes(2**25), 9)
    path = tmp_path / "x.png"
    path.write_bytes(png(8, 8, bytes(72), chunk(b"zTXt", text)))
    with memory(32):
        _, error = tame(lambda: images.read(path), tmp_path, str(path))
        _, second = tame(lambda: photo_files.read(path), tmp_path, str(path))
    assert error is not None and second is not None


def test_a_jpeg_of_very_many_scans_is_refused(tmp_path):
    """Each scan of a few bytes passes over all pixels."""
    data = encoded("JPEG", Image.effect_noise((64, 64), 50), progressive=True)
    first = data.index(b"\xff\xda")
    last = data.rindex(b"\xff\xda")
    path = tmp_path / "x.jpg"
    path.write_bytes(data[:last] + data[last:-2] * 500 + data[-2:])
    assert images.scans(data) == data.count(b"\xff\xda") and first != last
    _, error = tame(lambda: images.read(path), tmp_path, str(path))
    assert "scans, more than 100" in str(error)
    path.write_bytes(data + b"\xff\xda" * 500)  # what follows the picture, such as a film
    assert images.read(path).shape == (64, 64, 1)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_not_read(tmp_path, kind):
    """A pipe would wait and a device never end."""
    path = tmp_path / "x.png"
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        path.mkdir()
    for read in (images.read, photo_files.read):
        _, error = tame(lambda r=read: r(path), tmp_path, str(path))
        assert isinstance(error, OSError)
    assert images.look(path, True).error


@pytest.mark.parametrize("links", [{"a/again": ".."}, {"b": "a"}, {"a/x": "../b", "b/x": "../a"}])
def test_links_in_a_circle_end(tmp_path, links):
    """Two that point at each other would be followed 2^40 times."""
    for c in "ab" if "b" not in links else "a":
        (tmp_path / c).mkdir()
        Image.new("L", (4, 4)).save(tmp_path / c / "1.png")
    for name, to in links.items():
        (tmp_path / name).symlink_to(to)
    with pytest.raises(ValueError, match="is the same folder as"):
        folder.scan(tmp_path)


@pytest.fixture
def limit(monkeypatch):
    """What an archive may unpack to, small so that the bombs are made quickly."""
    monkeypatch.setattr(npz, "UNPACKED", 2**22)


def bomb(size, method=zipfile.ZIP_DEFLATED, shape=None, name="image.npy"):
    """An archive of one array of zeros; shape: what the header says."""
    head = str({"descr": "|u1", "fortran_order": False, "shape": shape or (size, 1, 1)})
    head = head.ljust(117).encode() + b"\n"
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z, z.open(name, "w", force_zip64=True) as f:
        f.write(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head)
        for _ in range(size >> 20):
            f.write(bytes(2**20))
    return out.getvalue()


ARRAYS = {
    "a bomb": (bomb(2**25), "unpacks to"),
    "a shape without bytes": (bomb(0, shape=(2**40, 1, 1)), "says it has shape"),
    "an overflowing shape": (bomb(0, shape=(2**62, 4, 1)), "says it has shape"),
    "a negative shape": (bomb(0, shape=(-1, -1, -1)), "."),
    "another array beside it": (bomb(2**25, name="other.npy"), "unpacks to"),
    "lzma": (bomb(2**25, zipfile.ZIP_LZMA), "unpacks to"),
}  # fmt: skip


@pytest.mark.parametrize("name", ARRAYS)
def test_npz_bombs(tmp_path, limit, name):
    data, text = ARRAYS[name]
    path = tmp_path / "x.npz"
    path.write_bytes(data)
    with memory(16):
        for read in (lambda: arrays.load_npz(str(path), "train"), lambda: reader.read(path)):
            _, error = tame(read, tmp_path, str(path))
            assert isinstance(error, ValueError)
    assert text in str(tame(lambda: npz.read(path), tmp_path, str(path))[1]) or text == "."


def test_a_lying_size_of_a_member_is_found(tmp_path):
    """The directory says 100 bytes, and 16 MB come out."""
    data = bomb(2**24)
    size = struct.pack("<I", 2**24 + 128)
    place = data.rindex(b"PK\x01\x02")
    lying = bytearray(data)
    lying[place + 24 : place + 28] = struct.pack("<I", 128 + 100)
    assert data[place + 24 : place + 28] == size
    path = tmp_path / "x.npz"
    path.write_bytes(lying)
    with memory(8):
        _, error = tame(lambda: npz.read(path), tmp_path, str(path))
    assert isinstance(error, ValueError)


def test_npz_that_are_only_compressible_are_read(tmp_path):
    path = tmp_path / "x.npz"
    np.savez_compressed(path, image=np.zeros((1000, 64, 64, 1), np.uint8))
    assert path.stat().st_size * 500 < 64 * 64 * 1000
    assert len(arrays.load_npz(str(path), "train", holdout=0.0)) == 1000


IDX = {
    "a shape without bytes": bytes([0, 0, 8, 3]) + b"\xff" * 12,
    "many dimensions": bytes([0, 0, 8, 255]) + b"\0\0\0\x01" * 255 + b"x",
    "a cut header": bytes([0, 0, 8, 3, 0]),
    "more than it says": bytes([0, 0, 8, 1, 0, 0, 0, 1]) + b"xy",
}


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize("name", IDX)
def test_idx_headers_that_lie(tmp_path, name, pack):
    path = tmp_path / "x"
    path.write_bytes(gzip.compress(IDX[name]) if pack else IDX[name])
    with memory(32):
        _, error = tame(lambda: idx.read(path), tmp_path, str(path))
    assert isinstance(error, ValueError)


@pytest.mark.parametrize("shape", [(2**9, 2**8, 2**8), (8,)])
def test_idx_bombs(tmp_path, limit, shape):
    """32 MiB of zeros in 32 kB, whether its header says so or not."""
    packer, path = zlib.compressobj(9, wbits=31), tmp_path / "x.gz"
    with path.open("wb") as f:
        f.write(
            packer.compress(bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape))
        )
        for _ in range(2**5):
            f.write(packer.compress(bytes(2**20)))
        f.write(packer.flush())
    with memory(16):
        _, error = tame(lambda: idx.read(path), tmp_path, str(path))
    assert isinstance(error, ValueError)


LABELS = {
    "deep.json": b"[" * 100_000,
    "deep value.json": b'{"a.png": ' + b"[" * 900 + b"]" * 900 + b"}",
    "many classes.json": b'{"a.png": 2147483646}',
    "many classes.csv": b"a.png,2147483646\n",
    "a long number.json": b'{"a.png": ' + b"9" * 100_000 + b"}",
    "a long number.csv": b"a.png," + b"9" * 4000,
    "a long cell.csv": b"a.png," + b"x" * 200_000,
    "null.csv": b"a.png,\0\n",
    "no name.json": b'{"labels": [[1, 2]]}',
    "elsewhere.json": b'{"../../a.png": 1, "/etc/passwd": 2, "a.png": 3}',
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_that_hurt(tmp_path, name):
    path = tmp_path / name.replace(" ", "_")
    path.write_bytes(LABELS[name])
    with memory(64):
        found, error = tame(lambda: labels.from_file(path, ["a.png"]), tmp_path, str(path))
    if name in ("a long cell.csv", "null.csv"):  # a class of a strange name, in newer Pythons
        assert error is not None or found.dim == 1
    else:
        assert isinstance(error, ValueError) and len(str(error)) < 2000


def test_class_numbers_are_not_cut_to_32_bits():
    x = np.zeros((2, 4, 4, 1), np.uint8)
    for wrong in ([0, 2**32], [0, -1], [0, source.CLASSES]):
        with pytest.raises(ValueError, match=r"must be in 0\.\.999999"):
            source.ArraySource(x, np.array(wrong))
    with pytest.raises(ValueError, match="finite"):
        source.ArraySource(x, np.array([[0.0], [1e300]]))


def test_weights_that_say_they_are_large(tmp_path):
    """A safetensors header of a terabyte, and one of a name a million times."""
    path = tmp_path / "x.safetensors"
    entry = {"dtype": "F32", "shape": [2**38], "data_offsets": [0, 2**40]}
    for header in (json.dumps({"a": entry}).encode(), b'{"a":' * 500_000, b" " * 2**20):
        path.write_bytes(struct.pack("<Q", len(header)) + header)
        with memory(64):
            _, error = tame(lambda: reader.read(path), tmp_path, str(path))
        assert isinstance(error, ValueError)

"""Files of photos: pixels upright with alpha beside them, and what else the file says kept.

A photo is read so that it stands upright, as its EXIF orientation says, and is turned back when it
is written: pixels are stored as they were, under the same orientation.
"""

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxgen.data import images

SUFFIXES = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF",
    ".tiff": "TIFF",
}  # fmt: skip
ORIENTATION = 0x0112
TURNS = {  # stored pixels -> upright; of 5 to 8 the sides change places
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}
BACK = {**TURNS, 6: TURNS[8], 8: TURNS[6]}
# Pillow's mode -> the modes to convert it to, without alpha and with.
MODES = {
    "1": ("L", "LA"), "L": ("L", "LA"), "LA": ("L", "LA"), "La": ("L", "LA"),
    "RGB": ("RGB", "RGBA"), "RGBA": ("RGB", "RGBA"), "RGBa": ("RGB", "RGBA"),
    "RGBX": ("RGB", "RGBA"), "P": ("RGB", "RGBA"), "PA": ("RGB", "RGBA"),
}  # fmt: skip
# What a TIFF's first directory says of the photo; the rest is about how its pixels are stored.
INNER = (0x8769, 0x8825)  # directories of their own: EXIF's, GPS's
ABOUT = (0x010E, 0x010F, 0x0110, 0x0112, 0x011A, 0x011B, 0x0128, 0x0131, 0x0132, 0x013B, 0x8298,
         *INNER, *range(0x9C9B, 0x9CA0))  # fmt: skip
KEPT = ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate", "zstd")  # lossless


class Photo(NamedTuple):
    """A photo: pixels (h, w, 1 or 3) and alpha (h, w) or None, uint8 and upright.

    orientation: EXIF's, 1 to 8. how: the keywords of Pillow's `save` that keep the rest. pages: in
    the file, of which this is the first; cameras put previews beside a JPEG.
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    orientation: int
    how: Mapping[str, Any]
    pages: int = 1


def jobs(source: str | Path, out: str | Path) -> tuple[list[tuple[str, Path, Path]], int]:
    """(name, file to read, file to write) of a photo or of all below a folder, and files left out.

    OUT of one photo is a file, or with another suffix than an image's a folder. Hidden files are
    not looked at.

    Raises:
      ValueError: nothing to restore, another format, or an output that would be an input.
    """
    source, out = Path(source), Path(out)
    if source.is_file():
        if source.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{source}: photos are {', '.join(SUFFIXES)}, got {source.suffix!r}")
        single = out.suffix.lower() in SUFFIXES and not out.is_dir()
        found = [(source.name, source, out if single else out / source.name)]
        others = 0
    elif source.is_dir():
        if out.resolve().is_relative_to(source.resolve()):
            raise ValueError(f"--out {out} lies in {source}, whose photos are read: name another")
        files = [
            p.relative_to(source)
            for p in sorted(source.rglob("*"))
            if p.is_file() and not any(part.startswith(".") for part in p.relative_to(source).parts)
        ]
        photos = [f for f in files if f.suffix.lower() in SUFFIXES]
        found = [(f.as_posix(), source / f, out / f) for f in photos]
        others = len(files) - len(photos)
        if not found:
            raise ValueError(f"no photos ({', '.join(SUFFIXES)}) in {source} or below it")
    else:
        raise ValueError(f"there is no photo or folder {source}")
    inputs = {_identity(path) for _, path, _ in found}
    for _, _, target in found:
        if target.exists() and _identity(target) in inputs:
            raise ValueError(f"--out {target} is a photo that is read, and is not overwritten")
    return found, others


def _identity(path: Path) -> tuple[int, int]:
    """What two names of one file share."""
    at = path.stat()
    return at.st_dev, at.st_ino


def read(path: Path) -> Photo:
    """A photo.

    Raises:
      OSError: unreadable; names the file.
      ValueError: more than 8 bits a channel, several pages, colours that are neither grey nor
        RGB, or too many pixels.
    """
    try:
        images.check_file(path)
        data = path.read_bytes()  # Pillow does not turn all TIFFs that it maps into memory
        with images.opened(data, sorted(set(SUFFIXES.values()))) as image:
            _check(image)
            exif = image.getexif()  # before a TIFF is decoded, which turns it
            orientation = exif.get(ORIENTATION, 1)
            how = _how(image, exif, data)
            image.load()
            opaque, with_alpha = MODES[image.mode]
            clear, pages = image.has_transparency_data, getattr(image, "n_frames", 1)
            array = np.asarray(image.convert(with_alpha if clear else opaque))
            tiff = image.format == "TIFF"
    except FileNotFoundError:
        raise
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    except Exception as e:  # Pillow's decoders raise many kinds, SyntaxError among them
        raise OSError(f"{path}: cannot be read ({e})") from e
    orientation = orientation if orientation in TURNS else 1
    array = array.reshape(*array.shape[:2], -1)
    array = array if tiff else TURNS[orientation](array)
    alpha = array[..., -1] if clear else None
    return Photo(array[..., :-1] if clear else array, alpha, orientation, how, pages)


def _check(image: Any) -> None:
    """Raises ValueError for photos that 8-bit grey or RGB pixels cannot hold."""
    deep = image.mode.startswith(("I", "F")) or ";16" in str([t.args for t in image.tile])
    if hasattr(image, "tag_v2"):
        bits = image.tag_v2.get(258, 8)
        deep |= max(bits if isinstance(bits, tuple) else (bits,)) > 8
    if deep:
        raise ValueError("more than 8 bits a channel, which are not kept; convert it to 8 bits")
    if image.mode not in MODES:
        raise ValueError(f"Pillow mode {image.mode}, and not grey or RGB; convert it to RGB")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise ValueError(f"{image.n_frames} pages, and not one photo")


def _how(image: Any, exif: Any, data: bytes) -> dict[str, Any]:
    """What `write` hands to Pillow: metadata, and how the file was compressed."""
    from PIL import Image, JpegImagePlugin

    info, found = image.info, {}
    if image.format == "TIFF":
        kept = Image.Exif()
        for tag in ABOUT:
            if tag in exif:
                kept[tag] = exif.get_ifd(tag) if tag in INNER else exif[tag]
        found["exif"] = kept.tobytes() if len(kept) else b""
        found["compression"] = info.get("compression", "raw")
    else:
        found["exif"] = info.get("exif") or (exif.tobytes() if len(exif) else b"")
    if image.format in ("JPEG", "MPO"):
        sampling = JpegImagePlugin.get_sampling(image)
        found["subsampling"] = sampling if sampling in (0, 1, 2) else 0
        found["progressive"] = bool(info.get("progressive"))
    if image.format == "WEBP":
        found["lossless"] = b"VP8L" in data
    found |= {n: info[n] for n in ("icc_profile", "dpi", "xmp") if info.get(n)}
    return {n: v for n, v in found.items() if v != b""}


def write(path: Path, photo: Photo, pixels: np.ndarray, quality: int = 95) -> None:
    """Writes `pixels`, upright as `photo.pixels`, in the format of the suffix, whole or not at all.

    Alpha, orientation, EXIF and colour profile are the photo's. quality: of JPEG, and of WebP that
    came from a lossy file.

    Raises:
      ValueError: alpha in a format that has none.
    """
    from PIL import Image

    form = SUFFIXES[path.suffix.lower()]
    if photo.alpha is not None:
        if form == "JPEG":
            raise ValueError(f"{path}: JPEG has no alpha, and the photo has; write another format")
        pixels = np.concatenate([pixels, photo.alpha[..., None]], -1)
    array = np.ascontiguousarray(BACK[photo.orientation](pixels))
    image = Image.fromarray(array[..., 0] if array.shape[-1] == 1 else array)
    how = {n: photo.how[n] for n in _keywords(form) if n in photo.how}
    if form == "TIFF":
        how["compression"] = _compression(how)
    if form == "JPEG" or (form == "WEBP" and not how.setdefault("lossless", False)):
        how["quality"] = quality
    if form == "WEBP":
        how["exact"] = True  # colours under transparent pixels too
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, part = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "w+b") as file:
            image.save(file, form, **how)
        os.chmod(part, 0o644)
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise


def _compression(how: Mapping[str, Any]) -> str:
    """A TIFF's: as it was if that loses nothing; none beside inner EXIF, which libtiff refuses."""
    from PIL import Image

    exif = Image.Exif()
    exif.load(how.get("exif", b""))
    if any(tag in exif for tag in INNER):
        return "raw"
    found = how.get("compression")
    return found if found in KEPT else "tiff_adobe_deflate"


def _keywords(form: str) -> tuple[str, ...]:
    """The keywords that Pillow's `save` knows for a format."""
    return {
        "PNG": ("exif", "icc_profile", "dpi"),
        "JPEG": ("exif", "icc_profile", "dpi", "xmp", "subsampling", "progressive"),
        "WEBP": ("exif", "icc_profile", "xmp", "lossless"),
        "TIFF": ("exif", "icc_profile", "dpi", "compression"),
    }[form]

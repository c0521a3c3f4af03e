"""Image files to uint8 arrays: one rule for channels, transparency and deep pixels.

All image files that jaxgen reads are opened by `opened` here, which looks only for formats that are
decoded within Pillow, and refuses too many pixels before any is decoded.
"""

import contextlib
import io
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
# Pillow's names of these. Others would start programs (EPS: ghostscript) or are hardly ever read.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
PIXELS = 89_478_485  # at which Pillow warns: 256 MiB of RGB
SCANS = 100  # of a JPEG, each of which passes over all pixels; cameras write at most about 10
VARIABLE = "JAXGEN_MAX_PIXELS"


def max_pixels() -> int:
    """The most pixels that an image may have: PIXELS, unless JAXGEN_MAX_PIXELS says more or less.

    Raises:
      ValueError: it says no positive number.
    """
    text = os.environ.get(VARIABLE, str(PIXELS))
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < 2**40:
        raise ValueError(f"{VARIABLE} is a number of pixels such as {PIXELS}, got {text[:40]!r}")
    return int(text)


def check_file(path: str | pathlib.Path) -> None:
    """Looks at a file before it is opened.

    Raises:
      OSError: not there, or not a regular file. ValueError: larger than any image may be.
    """
    found = os.stat(path)
    if not stat.S_ISREG(found.st_mode):  # a pipe would wait, a device never end
        raise OSError("not a regular file")
    if found.st_size > 8 * max_pixels() + 2**20:
        raise ValueError(
            f"a file of {found.st_size} bytes; images have at most {max_pixels()} pixels "
            f"({VARIABLE})"
        )


@contextlib.contextmanager
def opened(
    file: str | pathlib.Path | bytes, formats: Sequence[str] = FORMATS, decode: bool = True
) -> Iterator["Image.Image"]:
    """An image of one of these formats, of which only the header has been read.

    Args:
      file: a path, or the bytes. decode: its pixels are wanted: a JPEG's scans are counted first.
    Raises:
      OSError, and what Pillow raises: no regular file, another format.
      ValueError: more pixels, scans or bytes than an image may have.
    """
    from PIL import Image

    limit = max_pixels()
    if Image.MAX_IMAGE_PIXELS is not None and limit > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = limit
    if not isinstance(file, bytes):
        check_file(file)
    try:
        image = Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=formats)
    except Image.DecompressionBombError as e:
        raise ValueError(f"more than {limit} pixels ({e}); set {VARIABLE} to read it") from e
    with image:
        if image.width * image.height > limit:
            raise ValueError(
                f"{image.width}x{image.height} pixels, more than {limit}; if it is no trick, set "
                f"{VARIABLE}"
            )
        if decode and image.format in ("JPEG", "MPO"):
            place = image.fp.tell()
            image.fp.seek(0)
            found = scans(image.fp.read())
            image.fp.seek(place)
            if found > SCANS:
                raise ValueError(f"a JPEG of {found} scans, more than {SCANS}")
        yield image


def scans(data: bytes) -> int:
    """The scans of a JPEG up to its end; what comes after it, such as a film, is not looked at."""
    at = count = 0
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1:
        kind = data[at + 1]
        if kind == 0xD9:
            break
        if kind in (0x00, 0x01, 0xFF) or 0xD0 <= kind <= 0xD8:  # within a scan, or without a length
            at += 1 if kind == 0xFF else 2
        else:
            count += kind == 0xDA
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return count


def channels_of(mode: str) -> int:
    """1 for grey Pillow modes, 3 for the others.

    Raises:
      ValueError: for modes deeper than 8 bits, which would be cut to 0..255.
    """
    if mode.startswith(("I", "F")):
        raise ValueError(f"pixels deeper than 8 bits (Pillow mode {mode}); convert it to 8 bits")
    return 1 if mode in ("1", "L") else 3


def flatten(image: "Image.Image", channels: int) -> "Image.Image":
    """The image in mode L (1 channel) or RGB (3); transparent pixels are laid over white."""
    from PIL import Image

    channels_of(image.mode)
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = Image.alpha_composite(white, rgba)
    return image.convert("L" if channels == 1 else "RGB")


def read(file: str | pathlib.Path | bytes, channels: int | None = None) -> np.ndarray:
    """uint8 (h, w, c) of an image file or its bytes; c is as stored (1 or 3) when None.

    Raises:
      OSError: unreadable, or none of FORMATS; names the file.
      ValueError: pixels deeper than 8 bits, or too many of them.
    """
    name = "image" if isinstance(file, bytes) else str(file)
    try:
        with opened(file) as image:
            c = channels or channels_of(image.mode)
            array = np.asarray(flatten(image, c))
    except FileNotFoundError:
        raise
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e
    except Exception as e:  # Pillow's decoders raise many kinds, SyntaxError among them
        raise OSError(f"{name}: cannot be read ({e})") from e
    return array.reshape(*array.shape[:2], -1)


def read_exact(path: str | pathlib.Path, shape: tuple[int, ...]) -> np.ndarray:
    """uint8 (h, w, c) of a picture that has this shape and mode L or RGB: nothing is converted.

    Raises:
      ValueError: no picture, or another; names the file.
    """
    h, w, c = shape
    if (mode := {1: "L", 3: "RGB"}.get(c)) is None:
        raise ValueError(f"images or measurements of shape {shape} (h, w, c) are no pictures")
    try:
        with opened(path) as image:
            got = image.mode, image.size
            x = np.asarray(image) if got == (mode, (w, h)) else None
    except FileNotFoundError:
        raise ValueError(f"there is no file {path}") from None
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    except Exception as e:  # as in read
        raise ValueError(f"{path} is no picture: {e}") from e
    if x is None:
        raise ValueError(
            f"{path} has {got[1][0]}x{got[1][1]} pixels of mode {got[0]}, {w}x{h} of mode {mode} "
            "are needed; crop, resize and convert it"
        )
    return x.reshape(shape)


class Look(NamedTuple):
    """What was found in a file: pixels (h, w), Pillow's mode and format, and what is wrong."""

    size: tuple[int, int] = (0, 0)
    mode: str = ""
    format: str = ""
    turned: bool = False
    plain: bool = False
    error: str = ""


def look(path: pathlib.Path, decode: bool) -> Look:
    """Reads the header, and with `decode` every pixel; never raises for a bad file.

    `turned`: the file carries an EXIF orientation. `plain`: mode L or RGB without transparency.
    """
    try:
        with opened(path, decode=decode) as image:
            channels_of(image.mode)
            if decode:
                image.load()
            plain = image.mode in ("L", "RGB") and "transparency" not in image.info
            turned = decode and image.getexif().get(0x0112, 1) != 1
            size = (image.height, image.width)
            return Look(size, image.mode, image.format or "", turned, plain)
    except Exception as e:  # as in read
        return Look(error=str(e).replace(str(path), path.name) or type(e).__name__)


def look_all(
    paths: list[pathlib.Path], decode: bool, num_threads: int = 16, progress: bool = False
) -> list[Look]:
    """`look` at many files, several at a time."""
    with ThreadPoolExecutor(num_threads) as pool:
        found = pool.map(lambda p: look(p, decode), paths)
        if progress:
            from tqdm import tqdm

            found = tqdm(found, total=len(paths), desc="checking", unit="image")
        return list(found)

"""Image files to uint8 arrays: one rule for channels, transparency and deep pixels."""

import io
import pathlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")


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
      OSError: unreadable; names the file.
      ValueError: pixels deeper than 8 bits.
    """
    from PIL import Image

    name = "image" if isinstance(file, bytes) else str(file)
    try:
        with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
            c = channels or channels_of(image.mode)
            array = np.asarray(flatten(image, c))
    except FileNotFoundError:
        raise
    except ValueError as e:
        raise ValueError(f"{name}: {e}") from e
    except Exception as e:  # Pillow's decoders raise many kinds, SyntaxError among them
        raise OSError(f"{name}: cannot be read ({e})") from e
    return array.reshape(*array.shape[:2], -1)


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
    from PIL import Image

    try:
        with Image.open(path) as image:
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

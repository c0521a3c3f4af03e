"""A folder of images to an ArrayRecord data set that any tfds reads, with or without TensorFlow.

Every image is decoded before anything is written. What has the right size and is a plain PNG or
JPEG keeps its bytes; the rest becomes PNG. The result is written beside `out`, then renamed.
"""

import contextlib
import dataclasses
import io
import os
import pathlib
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jaxgen.data import images
from jaxgen.data.folder import explain, faults, scan
from jaxgen.data.images import Look
from jaxgen.data.labels import Labels

FILTERS = ("lanczos", "bicubic", "bilinear", "box", "nearest")
_THREADS = 16


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What was written. kept: images whose bytes are the source's. skipped: {file: why}."""

    path: pathlib.Path
    name: str
    num: int
    shape: tuple[int, int, int]
    kept: int
    enlarged: int
    skipped: dict[str, str]


@dataclasses.dataclass(frozen=True)
class _Job:
    path: pathlib.Path
    size: tuple[int, int]
    channels: int
    filter: str
    keep: bool
    turn: bool


def prepare(
    folder: str | os.PathLike,
    out: str | os.PathLike,
    size: int | tuple[int, int] | None = None,
    resize: str = "lanczos",
    labels: str = "",
    name: str = "",
    skip_bad: bool = False,
    progress: bool = True,
) -> Prepared:
    """Writes the images of a folder as a tfds set with one split, "train", in order of file name.

    Args:
      folder: images at any depth; labels as in `jaxgen.data.folder.load`.
      out: a new folder; the set lies in out/name/1.0.0. `load("tfds_dir:OUT")` opens it.
      size: side, or (h, w), in pixels: the middle of each image is cut to that shape and resized,
        after its EXIF orientation. None keeps all as they are; they must then be of one size.
      resize: one of FILTERS.
      labels: a CSV or JSON file; labels.csv or labels.json in the folder, or the subfolders, when
        empty.
      name: name of the set for tfds; the folder's when empty.
      skip_bad: leave unreadable images, and without `size` those of another size, out.
      progress: show bars.
    Raises:
      FileExistsError: `out` exists.
      ValueError: naming every unreadable or odd-sized image; nothing is written then.
    """
    folder, out = pathlib.Path(folder), pathlib.Path(out)
    name = name or re.sub(r"\W+", "_", folder.resolve().name.lower()).strip("_")
    if not re.fullmatch(r"[a-z]\w*", name):
        raise ValueError(
            f"the name of a set is letters, digits and _, first a small letter; got {name!r}; "
            "give one with name= (--name)"
        )
    if resize not in FILTERS:
        raise ValueError(f"resize must be one of {', '.join(FILTERS)}; got {resize!r}")
    if isinstance(size, int):
        size = (size, size)
    if size is not None and min(size) < 1:
        raise ValueError(f"size must be positive, got {size}")
    if out.exists():
        raise FileExistsError(f"{out} exists already; choose another folder or remove it first")

    files, found = scan(folder, labels)
    looks = images.look_all([folder / f for f in files], True, _THREADS, progress)
    good, skipped, size_in = _sift(folder, files, looks, size, skip_bad)
    looks = [looks[i] for i in good]
    channels = max(images.channels_of(x.mode) for x in looks)
    jobs = [
        _Job(
            path=folder / files[i],
            size=size or size_in,
            channels=channels,
            filter=resize,
            keep=_keep(x, size, channels),
            turn=size is not None,
        )
        for i, x in zip(good, looks)
    ]
    if found.values is not None:
        found = found._replace(values=found.values[good])
    shape = (*jobs[0].size, channels)
    _write(out, name, shape, jobs, found, progress)
    enlarged = sum(size is not None and (x.size[0] < size[0] or x.size[1] < size[1]) for x in looks)
    return Prepared(out, name, len(jobs), shape, sum(j.keep for j in jobs), enlarged, skipped)


def _sift(
    folder: pathlib.Path, files: list[str], looks: list[Look], size: Any, skip_bad: bool
) -> tuple[list[int], dict[str, str], tuple[int, int]]:
    """Indices of the images to write, {file: why} of the others, and the commonest size."""
    bad, odd = faults(files, looks, any_size=size is not None)
    sizes = Counter(x.size for x in looks if not x.error).most_common(1)
    common = sizes[0][0] if sizes else (0, 0)
    if (bad or odd) and not (skip_bad and sizes):
        advice = "nothing was written; mend or remove them, or leave them out with --skip_bad"
        if odd:
            advice += ", or make all images one size with --size"
        raise ValueError(explain(folder, bad, odd, common, advice))
    skipped = bad | {f: f"{h}x{w}, not {common[0]}x{common[1]}" for f, (h, w) in odd.items()}
    return [i for i, f in enumerate(files) if f not in skipped], skipped, common


def _keep(x: Look, size: tuple[int, int] | None, channels: int) -> bool:
    """Whether the stored bytes can serve: any decoder reads the same h, w, c from them."""
    fits = size is None or (x.size == size and not x.turned)
    return (
        fits and x.plain and x.format in ("PNG", "JPEG") and images.channels_of(x.mode) == channels
    )


def _encode(job: _Job) -> bytes:
    """The bytes to store: the file's own, or a PNG of the cut and resized image."""
    if job.keep:
        return job.path.read_bytes()
    from PIL import Image, ImageOps

    with images.opened(job.path) as image:
        h, w = job.size
        image = ImageOps.exif_transpose(image) if job.turn else image
        image = images.flatten(image, job.channels)
        if (image.height, image.width) != job.size:
            scale = min(image.width / w, image.height / h)
            width, height = round(w * scale), round(h * scale)
            left, top = (image.width - width) // 2, (image.height - height) // 2
            # Cropped first: resize(box=...) lets pixels outside of the box into the filter.
            image = image.crop((left, top, left + width, top + height))
            image = image.resize((w, h), Image.Resampling[job.filter.upper()])
        buffer = io.BytesIO()
        image.save(buffer, "PNG")
    return buffer.getvalue()


def _encoded(jobs: list[_Job], progress: bool) -> Iterator[bytes]:
    """Bytes of all images in order, some at a time."""
    from tqdm import tqdm

    window = 8 * _THREADS
    with (
        ThreadPoolExecutor(_THREADS) as pool,
        tqdm(total=len(jobs), desc="writing", unit="image", disable=not progress) as bar,
    ):
        for first in range(0, len(jobs), window):
            for data in pool.map(_encode, jobs[first : first + window]):
                yield data
                bar.update()


def _write(
    out: pathlib.Path,
    name: str,
    shape: tuple[int, int, int],
    jobs: list[_Job],
    found: Labels,
    progress: bool,
) -> None:
    """Prepares the set in a folder beside `out`, reads its ends back, and renames it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = out.parent / f".{out.name}.{os.getpid()}.part"
    try:
        builder = _builder(part, name, shape, jobs, found, progress)
        with _quiet():
            builder.download_and_prepare()
        shutil.rmtree(part / "downloads", ignore_errors=True)
        _read_back(part, jobs)
        if out.exists():
            raise FileExistsError(f"{out} appeared while it was being written; it was left alone")
        part.rename(out)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _builder(
    part: pathlib.Path,
    set_name: str,
    shape: tuple[int, int, int],
    jobs: list[_Job],
    found: Labels,
    progress: bool,
) -> Any:
    import numpy as np
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=shape)}
    if found.kind == "class":
        names = list(found.class_names) if found.class_names else None
        count = None if names else found.dim
        features["label"] = tfds.features.ClassLabel(num_classes=count, names=names)
    elif found.kind == "vector":
        features["label"] = tfds.features.Tensor(shape=(found.dim,), dtype=np.float32)

    class Folder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        name = set_name
        VERSION = tfds.core.Version("1.0.0")
        url_infos = None  # no downloads; tfds' search for them needs importlib_resources

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                disable_shuffling=True,
            )

        def _split_generators(self, dl_manager):
            del dl_manager
            return {"train": self._generate_examples()}

        def _generate_examples(self):
            for i, data in enumerate(_encoded(jobs, progress)):
                # Already encoded: tfds needs TensorFlow to encode an array.
                example = {"image": io.BytesIO(data)}
                if found.kind == "class":
                    example["label"] = int(found.values[i])
                elif found.kind == "vector":
                    example["label"] = found.values[i]
                yield i, example

    return Folder(data_dir=str(part), file_format="array_record")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without tfds' own bars and notes on standard output."""
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def _read_back(part: pathlib.Path, jobs: list[_Job]) -> None:
    from jaxgen.data import tfds

    source = tfds.load_dir(str(part), "train", holdout=0.0)
    for i in {0, len(jobs) - 1}:
        if len(source) != len(jobs) or (source[i]["image"] != images.read(_encode(jobs[i]))).any():
            raise OSError(
                f"{part}: image {i} does not read back as it was written; is the disk full?"
            )

"""`--video`: a closed way through images of a generator with styles, as MP4 or GIF."""

import argparse
import importlib.util
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from jaxgen.cli import common, styles, values

THROUGH = "0-7"
LEAST = 256  # pixels of a video's longer side; smaller images are enlarged


def add_flags(group: Any) -> None:
    """The flags, for the group of `styles.add_flags`."""
    group.add_argument("--video", metavar="FILE", help="in place of --out: .mp4 or .gif")
    group.add_argument(
        "--through", metavar="IMAGES", help=f"and back to the first (default {THROUGH})"
    )
    group.add_argument("--frames", type=int, default=60, help="from one to the next (default 60)")
    group.add_argument("--fps", type=int, default=30, help="frames a second (default 30)")
    group.add_argument(
        "--space", choices=("w", "z"), default="w", help="lines in w, or great circles in z"
    )


def check(args: argparse.Namespace) -> list[int]:
    """The numbers of --through.

    Raises:
      ValueError: flags that make no video, or one that cannot be written here.
    """
    path = Path(args.video)
    if path.suffix not in (".mp4", ".gif"):
        raise ValueError(f"--video must end in .mp4 or .gif, got {path}")
    if path.suffix == ".mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise ValueError(
            f"--video {path} needs imageio-ffmpeg: pip install 'jaxgen[video]', or name a .gif"
        )
    if args.frames < 1 or not 1 <= args.fps <= 100:
        raise ValueError(
            f"--frames must be at least 1 and --fps from 1 to 100, got {args.frames} and {args.fps}"
        )
    return styles.numbers(args.through or THROUGH, "--through")


def write_way(run: common.Run, average: Any, args: argparse.Namespace, through: list[int]) -> None:
    """Draws the frames and writes the video, and its facts beside it.

    Raises:
      ValueError: several classes in z, where labels cannot change little by little.
    """
    from jaxgen.common import provenance, units
    from jaxgen.samplers.styles import around
    from jaxgen.train.store import write_json

    known = dict(run.plan.sample.options)
    options = known | values.parse_options(args.option, known)
    rows, n = styles.rows_of(run, through, args.seed, args.classes), len(through)
    if args.space == "w":
        find = styles.Tool(run, lambda g, r: styles.styles_of(g, r, options), n)
        ws = find.whole(average.params, rows, n)
        way = around(ws.reshape(n, -1), args.frames, "w").reshape(-1, *ws.shape[1:])
        draw = lambda g, ws: g.synthesis(ws)
    else:
        if "label" in rows and (rows["label"] != rows["label"][:1]).any():
            raise ValueError("--space z keeps one class: name it by --classes, or take --space w")
        find = styles.Tool(run, lambda g, r: g.latents(r["key"]), n)
        z = find.whole(average.params, rows, n)
        label = {k: x[:1].repeat(n * args.frames, 0) for k, x in rows.items() if k == "label"}
        way = {"z": around(z, args.frames, "z"), **label}

        def draw(g: Any, r: Any) -> Any:
            cond = styles.cond_of(r)
            return g.synthesis(g.truncate(g.mapping(r["z"], cond), cond, **options))

    total, path = n * args.frames, Path(args.video)
    images = styles.Tool(run, draw, min(args.batch, total))(average.params, way, total)
    save(path, (x for part in images for x in units.to_uint8(part)), args.fps)
    facts = {"through": through, "frames": args.frames, "fps": args.fps, "space": args.space}
    facts |= {"seed": args.seed, "options": options, **average.facts, **provenance.facts()}
    write_json(path.with_suffix(".json"), facts)
    print(f"{total} frames, {total / args.fps:.1f} s: {path}")


def save(path: Path, images: Iterator[Any], fps: int) -> None:
    """Writes images uint8 (h, w, c) as .mp4 or .gif, first beside `path` and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        (_mp4 if path.suffix == ".mp4" else _gif)(part, map(frame, images), fps)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def frame(image: Any) -> Any:
    """The image in RGB, enlarged by a whole number, of even sides, as MP4 needs."""
    import numpy as np

    scale = max(1, LEAST // max(image.shape[:2]))
    image = image.repeat(scale, 0).repeat(scale, 1)
    h, w, c = image.shape
    image = np.pad(image, ((0, h % 2), (0, w % 2), (0, 0)), "edge")
    return np.ascontiguousarray(image.repeat(3, -1) if c == 1 else image)


def _gif(path: Path, frames: Iterator[Any], fps: int) -> None:
    from PIL import Image

    pictures = (Image.fromarray(f) for f in frames)
    options = {"save_all": True, "duration": 1000 / fps, "loop": 0}  # 0: for ever
    next(pictures).save(path, "GIF", append_images=pictures, **options)


def _mp4(path: Path, frames: Iterator[Any], fps: int) -> None:
    import imageio_ffmpeg

    first = next(frames)
    size = first.shape[1], first.shape[0]
    writer = imageio_ffmpeg.write_frames(str(path), size, fps=fps, quality=8, macro_block_size=2)
    writer.send(None)
    try:
        for f in itertools.chain([first], frames):
            writer.send(f)
    finally:
        writer.close()

"""jaxgen data: Look at a data set, or make one from a folder of images."""

import argparse
import sys

INSPECT = """examples:
  jaxgen data inspect digits --out sheet.png
  jaxgen data inspect folder:pictures --split test
  jaxgen data inspect tfds_dir:prepared

sources:
{kinds}
  options follow as ?key=value&key=value, such as npz:x.npz?holdout=0.2
"""
PREPARE = """examples:
  jaxgen data prepare photos --out data/photos64 --size 64
  jaxgen data prepare photos --out data/photos --labels labels.csv --skip_bad

The result is tfds_dir:OUT for every command, and any tfds can read it.
"""


def parser() -> argparse.ArgumentParser:
    """The parser of `jaxgen data`."""
    from jaxgen.data.sources import describe

    form = argparse.RawDescriptionHelpFormatter
    top = argparse.ArgumentParser(
        prog="jaxgen data",
        description=__doc__.partition(": ")[2],
        epilog="example:\n  jaxgen data inspect digits --out sheet.png",
        formatter_class=form,
    )
    commands = top.add_subparsers(dest="command", required=True, metavar="inspect | prepare")

    look = commands.add_parser(
        "inspect",
        help="facts and a contact sheet",
        formatter_class=form,
        epilog=INSPECT.format(kinds=describe()),
    )
    look.add_argument("source", metavar="SOURCE", help="a data set, such as digits or folder:DIR")
    look.add_argument("--split", default="train", choices=("train", "test"), help="default: train")
    look.add_argument("--out", metavar="PNG", help="write a contact sheet here")

    make = commands.add_parser(
        "prepare", help="a folder of images to ArrayRecord", formatter_class=form, epilog=PREPARE
    )
    make.add_argument("folder", metavar="FOLDER", help="images at any depth")
    make.add_argument("--out", metavar="DIR", required=True, help="new folder for the data set")
    make.add_argument("--name", default="", help="its name in tfds (default: the folder's name)")
    group = make.add_argument_group("images")
    group.add_argument(
        "--size", type=_size, metavar="N | HxW", help="cut the middle and resize (default: keep)"
    )
    group.add_argument(
        "--resize",
        default="lanczos",
        metavar="FILTER",
        help="lanczos, bicubic, bilinear, box, nearest",
    )
    group.add_argument(
        "--skip_bad", action="store_true", help="leave bad images out, and say which"
    )
    group = make.add_argument_group("labels")
    group.add_argument(
        "--labels", default="", metavar="FILE", help="CSV or JSON (default: labels.csv, subfolders)"
    )
    return top


def _size(text: str) -> tuple[int, int]:
    try:
        h, _, w = text.lower().partition("x")
        return int(h), int(w or h)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected 64 or 64x96, got {text!r}") from None


def main(argv: list[str]) -> int:
    """Runs `jaxgen data ARGV`; returns the exit code (2 after an error in files or arguments)."""
    args = parser().parse_args(argv)
    try:
        return _inspect(args) if args.command == "inspect" else _prepare(args)
    except (ValueError, OSError) as e:
        print(f"error: {e}", file=sys.stderr)
        return 2


def _inspect(args: argparse.Namespace) -> int:
    from jaxgen.common.pictures import save_png
    from jaxgen.data.inspect import facts
    from jaxgen.data.sources import load

    found, picture = facts(load(args.source, args.split))
    for key, value in found.items():
        if key == "histogram":
            continue
        print(f"{key:<10} {_text(value)}")
    if "histogram" in found:
        width = max(len(str(k)) for k in found["histogram"])
        for k, count in found["histogram"].items():
            print(f"  {k!s:<{width}} {count}")
    if args.out:
        save_png(picture, args.out)
        print(f"wrote {args.out} ({picture.shape[0]}x{picture.shape[1]})")
    return 0


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return "x".join(map(str, value))
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _prepare(args: argparse.Namespace) -> int:
    from jaxgen.data.prepare import prepare

    done = prepare(
        args.folder,
        args.out,
        size=args.size,
        resize=args.resize,
        labels=args.labels,
        name=args.name,
        skip_bad=args.skip_bad,
        progress=sys.stderr.isatty(),
    )
    for file, why in done.skipped.items():
        print(f"left out {file}: {why}")
    h, w, c = done.shape
    print(
        f"wrote {done.num} images of {h}x{w}x{c} to {done.path} ({done.kept} with their own bytes, "
        f"{done.num - done.kept} as new PNG)"
    )
    if done.enlarged:
        print(f"note: {done.enlarged} images were smaller than {h}x{w} and were enlarged")
    print(f"use it as tfds_dir:{done.path}")
    return 0

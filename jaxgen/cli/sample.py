"""`jaxgen sample`: images from an average of a run's weights."""

import argparse
from pathlib import Path
from typing import Any

from jaxgen.cli import common, guiding, styles, values, video


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "sample",
        "Draw samples with an average of the weights. Image i depends on the seed and i only.",
        "jaxgen sample --workdir runs/digits --num 100 --classes 0-9 --average 0.1 --out grid.png\n"
        "  jaxgen sample --workdir runs/digits --guide runs/weak@0.05 --guidance 1.7 "
        "--interval 0.2,3 --out guided.png\n"
        "  jaxgen sample --workdir runs/faces --mix 0-3,10-14 --layers 0-3 --option psi=0.7 "
        "--out mix.png\n"
        "  jaxgen sample --workdir runs/faces --video walk.mp4 --through 0-3+17",
    )
    common.add_run_flags(p)
    what = p.add_argument_group("samples")
    what.add_argument("--num", type=int, default=64, help="how many (default 64)")
    what.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    what.add_argument("--classes", help="0-9 or 1,3,5-7, in order (default: all)")
    what.add_argument("--batch", type=int, default=256, help="images at a time (default 256)")
    what.add_argument(
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="sampler option of the run, such as steps=32 or psi=0.7; may be repeated",
    )
    guiding.add_flags(p)
    video.add_flags(styles.add_flags(p))
    out = p.add_argument_group("output")
    out.add_argument("--out", help="a grid.png, an images.npz, or a folder of PNGs")
    out.add_argument("--columns", type=int, help="of the grid (default: about a square)")
    return p


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    if args.num < 1 or args.batch < 1:
        parser().error("--num and --batch must be at least 1")
    if (args.out is None) == (args.video is None):
        parser().error("one of --out and --video is needed")
    if args.video:
        return film(args)
    out = Path(args.out)
    check_out(out)
    if args.layers and not args.mix:
        raise ValueError("--layers says which layers --mix takes from the columns; give --mix too")
    mixed = styles.check_rows(args, out) if args.mix else None
    common.setup_jax()
    run = common.Run.open(args.workdir, verify=not args.no_verify)
    if run.plan.sample is None:
        raise ValueError("this run's plan has nothing to sample")
    if run.config.data.get("latents") and out.suffix != ".npz":
        raise ValueError(
            f"--out {out}: this run draws latents of an autoencoder, not pictures; write them to "
            "an .npz and decode them"
        )
    if mixed:
        styles.check(run, "--mix")
        guiding.open_guide(run, args)  # refuses one: this is no score network
        styles.write_mix(run, run.average(args.average, args.nimg), args, out, mixed)
        return 0
    average = run.average(args.average, args.nimg)
    write(run, average, args, out)
    print(f"{args.num} images, seed {args.seed}: {out}")
    return 0


def film(args: argparse.Namespace) -> int:
    """Runs the command with --video."""
    if args.mix or args.layers:
        raise ValueError("--video goes from image to image; --mix and --layers make a picture")
    through = video.check(args)
    common.setup_jax()
    run = common.Run.open(args.workdir, verify=not args.no_verify)
    styles.check(run, "--video")
    guiding.open_guide(run, args)
    video.write_way(run, run.average(args.average, args.nimg), args, through)
    return 0


def check_out(out: Path) -> None:
    """Raises ValueError unless samples can be written to `out`."""
    if out.is_dir() and any(out.iterdir()):
        raise ValueError(f"--out {out} is a folder with files in it; name a new or empty one")
    if out.suffix not in ("", ".png", ".npz"):
        raise ValueError(f"--out must end in .png or .npz, or name a folder, got {out}")


def write(
    run: common.Run, average: object, args: argparse.Namespace, out: Path, measured: Any = None
) -> None:
    """Draws and writes the files; of an invert.Measured also what was seen, and the targets."""
    import numpy as np

    from jaxgen.cli import sampling
    from jaxgen.common import pictures, units
    from jaxgen.train.store import write_json

    from jaxgen.common import provenance  # isort: skip

    guide = guiding.open_guide(run, args)
    labels = None
    dim = run.facts["label_dim"] if run.facts["label_kind"] == "class" else 0
    if dim := dim or (guide.classes if guide else 0):
        classes = values.parse_classes(args.classes, dim)
        labels = sampling.class_labels(args.num, classes, ordered=True)
        if measured and not args.classes:
            labels = measured.own_labels(dim)
    elif args.classes:
        raise ValueError("--classes: this run has no classes")
    batch = sampling.inputs(
        run.plan, run.facts, args.num, labels=labels, source=run.held_out(), guide=guide
    )
    options = values.parse_options(args.option, dict(run.plan.sample.options))
    batch |= measured.batch if measured else {}
    chunk = min(args.batch, args.num)
    sampler = sampling.Sampler(run.plan, run.mesh, chunk, options, guide, measured)
    images = sampling.collect(sampler(average.params, batch, args.num, args.seed))
    facts = {"num": args.num, "seed": args.seed, **average.facts, **provenance.facts()}
    facts |= {"options": options, **(guide.facts if guide else {})}
    if measured:
        images |= measured.images
        facts |= measured.facts | measured.scores(images["image"])
    if out.suffix == ".png":
        pictures.save_png(sampling.picture(images, args.columns), out)
        write_json(out.with_suffix(".json"), facts)
    elif out.suffix == ".npz":
        plain = run.config.data.get("latents")
        arrays = {n: v if plain else units.to_uint8(v) for n, v in images.items()}
        if labels is not None:
            arrays["label"] = labels.astype(np.int32)
        sampling.save_npz(out, arrays)
        write_json(out.with_suffix(".json"), facts)
    else:
        for i, image in enumerate(units.to_uint8(images["image"])):
            tail = "" if labels is None else f"_class{labels[i]}"
            pictures.save_png(image, out / f"{i:06d}{tail}.png")
        write_json(out / "samples.json", facts)

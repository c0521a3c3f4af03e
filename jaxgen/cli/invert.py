"""`jaxgen invert`: posterior samples, images of a score network that a measurement tells of."""

import argparse
import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from jaxgen.cli import common, guiding, sample


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "invert",
        "Draw images that agree with the measurement of a picture by a linear operator.\n"
        "Sample i is of picture i mod n, and depends on it, on the seed and on i only.",
        "jaxgen invert --workdir runs/digits --operator downsample,factor=4,sigma=0.05 "
        "--num 16 --out seen_drawn_true.png\n"
        "  jaxgen invert --workdir runs/digits --operator mask,box=0.5 --measured hole.png "
        "--classes 3 --out filled.png",
    )
    common.add_run_flags(p)
    what = p.add_argument_group("measurement")
    what.add_argument(
        "--operator",
        required=True,
        metavar="NAME,KEY=VALUE,...",
        help="blur, downsample, mask or kspace, and settings, such as blur,std=1.5,sigma=0.1",
    )
    what.add_argument(
        "--measure", nargs="+", metavar="IMAGE", help="pictures to measure (default: test split)"
    )
    what.add_argument(
        "--measured", nargs="+", metavar="IMAGE", help="pictures that are measurements already"
    )
    what.add_argument(
        "--steer",
        default="pigdm",
        metavar="HOW,KEY=VALUE,...",
        help="pigdm (default), dps or tweedie, and settings, such as dps,zeta=10",
    )
    what = p.add_argument_group("samples")
    what.add_argument("--num", type=int, default=16, help="how many (default 16)")
    what.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    what.add_argument("--classes", help="0-9 or 1,3,5-7, in order (default: the pictures')")
    what.add_argument("--batch", type=int, default=256, help="images at a time (default 256)")
    what.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="as in jaxgen sample"
    )
    guiding.add_flags(p)
    out = p.add_argument_group("output")
    out.add_argument("--out", required=True, help="a grid.png, an images.npz, or a folder of PNGs")
    out.add_argument("--columns", type=int, help="of the grid (default: about a square)")
    return p


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    if args.num < 1 or args.batch < 1:
        parser().error("--num and --batch must be at least 1")
    if args.measure and args.measured:
        raise ValueError("pictures are measured (--measure) or measurements (--measured), not both")
    out = Path(args.out)
    sample.check_out(out)
    common.setup_jax()
    run = common.Run.open(args.workdir, verify=not args.no_verify)
    measured = measure(run, args)
    sample.write(run, run.average(args.average, args.nimg), args, out, measured)
    print(f"{args.num} images, seed {args.seed}: {out}")
    return 0


@dataclasses.dataclass(frozen=True)
class Measured:
    """Measurements, one a sample, and how they steer.

    wrap(denoise, y) -> denoise. batch: the rows y (num, ...) float32 by name. images: what is shown
    beside the samples, "input", the operator's `start` of y, and "target", if it is known.
    labels: of the targets, (num,) or None. facts: what a result file records.
    """

    ROWS: ClassVar[str] = "measurement"
    wrap: Callable[[Callable, Any], Callable]
    batch: Mapping[str, Any]
    images: Mapping[str, Any]
    labels: Any
    facts: Mapping[str, Any]

    def own_labels(self, dim: int) -> Any:
        """The classes (num,) of the measured images, for a run that needs some.

        Raises:
          ValueError: when they are not known.
        """
        if self.labels is None:
            raise ValueError(
                f"this run has {dim} classes and those of the pictures are not known; say them "
                "with --classes"
            )
        return self.labels

    def scores(self, images: Any) -> dict[str, float]:
        """Mean PSNR of samples (num, h, w, c) and of what was seen, where the targets are known."""
        from jaxgen.metrics.psnr import psnr_8bit

        if "target" not in self.images:
            return {}
        target = self.images["target"]
        found = {"psnr": images, "psnr_input": self.images["input"]}
        scores = {name: float(psnr_8bit(x, target).mean()) for name, x in found.items()}
        print("PSNR {psnr:.2f} dB, of what was measured {psnr_input:.2f} dB".format(**scores))
        return scores


def measure(run: common.Run, args: argparse.Namespace) -> Measured:
    """What the flags ask for, checked against the run.

    Raises:
      ValueError: a run that cannot be steered, pictures of another size, settings that make no
        sense.
    """
    if "denoise" not in run.plan.exports or run.config.data.get("latents"):
        raise ValueError(f"{run.workdir} is no score network of pictures; only those are steered")
    import jax
    import numpy as np

    from jaxgen.common import rng
    from jaxgen.samplers import posterior

    name, settings = common.parse_named("--operator", args.operator)
    operator = posterior.linear(name, **settings)
    method, tuning = common.parse_named("--steer", args.steer)
    try:
        wrap = lambda d, y: posterior.steer(d, operator, y, method, **tuning)
        wrap(None, None)
    except TypeError as e:
        raise ValueError(f"--steer {args.steer}: {str(e).removeprefix('steer() ')}") from e
    shape = tuple(run.facts["shape"])
    seen = jax.eval_shape(operator.forward, jax.ShapeDtypeStruct((1, *shape), np.float32))
    x = labels = None
    if args.measured:
        y = read(args.measured, seen.shape[1:])
    else:
        x, labels = (read(args.measure, shape), None) if args.measure else held_out(run, args.num)
        keys = rng.image_keys(rng.fold(jax.random.key(args.seed), "measure"), len(x))
        y = np.asarray(jax.jit(operator.corrupt)(keys, x))
    rows = np.arange(args.num) % len(y)
    images = {"input": np.asarray(operator.start(y))[rows]}
    if x is not None:
        images["target"] = x[rows]
    facts = {"operator": dataclasses.asdict(operator) | {"name": name}, "steer": [method, tuning]}
    facts["measured"] = args.measured or args.measure or "test split"
    labels = None if labels is None else labels[rows]
    return Measured(wrap, {Measured.ROWS: y[rows]}, images, labels, facts)


def read(paths: list[str], shape: tuple[int, ...]) -> Any:
    """Pictures (n, h, w, c) float32 in [-1, 1], of a shape.

    Raises:
      ValueError: no pictures, or others.
    """
    import numpy as np

    from jaxgen.common import units
    from jaxgen.data import images

    found = [images.read_exact(path, shape) for path in paths]
    return np.asarray(units.from_uint8(np.stack(found)))


def held_out(run: common.Run, num: int) -> tuple[Any, Any]:
    """The first images of the run's test split, at most num, and their classes or None."""
    import numpy as np

    from jaxgen.common import units

    source = common.load_source(run.config.data.source, "test")
    rows = [source[i] for i in range(min(num, len(source)))]
    x = np.asarray(units.from_uint8(np.stack([r["image"] for r in rows])))
    labels = run.facts["label_kind"] == "class"
    return x, np.stack([r["label"] for r in rows]) if labels else None

"""`jaxgen project`: the style with which a run's generator makes a given image."""

import argparse
import itertools
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from jaxgen.cli import common, styles

PLANES = r"noise_const$"
SAMPLES = 10_000  # styles whose mean and spread are taken


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser(
        "project",
        "Find the style w, and the noise, with which a run's generator makes an image.",
        "jaxgen project face.png --workdir runs/faces --out projected/face --steps 1000",
    )
    p.add_argument("image", metavar="IMAGE", help="a picture of the size of the run's images")
    common.add_run_flags(p)
    what = p.add_argument_group("search")
    what.add_argument("--steps", type=int, default=1000, help="of Adam (default 1000)")
    what.add_argument("--seed", type=int, default=0, help="random seed (default 0)")
    what.add_argument("--classes", help="begin at these classes' mean style (default: all)")
    what.add_argument("--features", help="feature net of the distance (default: the config's)")
    what.add_argument(
        "--pixels", type=float, default=1.0, help="weight of squared pixel differences (default 1)"
    )
    what.add_argument(
        "--noise_weight", type=float, help="of the regulariser of noise planes (default 1e5)"
    )
    out = p.add_argument_group("output")
    out.add_argument("--out", required=True, help="new or empty folder")
    out.add_argument("--strip", type=int, default=8, help="pictures of progress (default 8)")
    return p


def main(argv: list[str]) -> int:
    """Runs the command."""
    args = parser().parse_args(argv)
    if args.steps < 1 or not 1 <= args.strip <= args.steps:
        parser().error("--steps must be at least 1, and --strip between 1 and --steps")
    out = Path(args.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out} is there already; name a new or empty folder")
    common.setup_jax()
    run = common.Run.open(args.workdir, verify=not args.no_verify)
    styles.check(run, "jaxgen project")
    target = read_target(args.image, tuple(run.facts["shape"]))
    net = net_of(run, args.features)
    average = run.average(args.average, args.nimg)
    search = Search(run, average.params, target, net, args)
    write(out, search, target, args, {**average.facts, "feature_net": net.facts()})
    return 0


def read_target(path: str, shape: tuple[int, int, int]) -> Any:
    """The picture (h, w, c) float32 in [-1, 1].

    Raises:
      ValueError: no picture, or another size or mode than the run's images have.
    """
    import numpy as np

    from jaxgen.common import units
    from jaxgen.data import images

    return np.asarray(units.from_uint8(images.read_exact(path, shape)))


def net_of(run: common.Run, name: str | None) -> Any:
    """The feature net by its name, or the run's."""
    from jaxgen.cli import nets
    from jaxgen.metrics import features

    name = name or run.config.features
    if name == "auto":
        name = features.default_for(run.facts["name"], tuple(run.facts["shape"]))
    return nets.open_net(name)


class Search:
    """The search for one image, compiled once.

    Args:
      run: whose generator it is. params: by player. target: (h, w, c). net: a feature net. args: of
      the command.
    """

    def __init__(
        self,
        run: common.Run,
        params: Mapping[str, Any],
        target: Any,
        net: Any,
        args: argparse.Namespace,
    ):
        import jax
        import jax.numpy as jnp

        from jaxgen.common import rng, trees
        from jaxgen.samplers import invert

        rows = styles.rows_of(run, range(SAMPLES), args.seed, args.classes)
        find = lambda g, r: g.mapping(g.latents(r["key"]), styles.cond_of(r))
        ws = styles.Tool(run, find, 1000).whole(params, rows, SAMPLES)
        mean, sigma_w = invert.centre(jnp.asarray(ws))
        settings = invert.Settings(steps=args.steps)
        if args.noise_weight is not None:
            settings = settings._replace(alpha=args.noise_weight)
        make, frozen = run.plan.exports["generator"].fn, dict(run.plan.frozen)
        key = rng.fold(jax.random.key(args.seed), "project")

        def distances(images: Any, x: Any, features: Any) -> dict[str, Any]:
            return {
                "features": jnp.square(net(images) - features).mean(-1),
                "pixels": jnp.square(images - x).mean((1, 2, 3)),
            }

        def advance(params: Any, wanted: Any, state: Any, first: Any, last: Any) -> Any:
            def synthesis(w: Any, planes: Mapping[str, Any]) -> Any:
                changed = trees.map_named(lambda n, p: planes.get(n, p), params)
                return make(changed, frozen).synthesis(w)

            def distance(images: Any) -> Any:
                d = distances(images, *wanted)
                return d["features"] + args.pixels * d["pixels"]

            state = invert.advance(state, first, last, key, sigma_w, synthesis, distance, settings)
            images = synthesis(state.w[None], state.planes)
            return state, images[0], {n: d[0] for n, d in distances(images, *wanted).items()}

        # One image is the work of one device.
        x = jnp.asarray(target)[None]
        here = jax.device_put((dict(params), (x, net(x))), jax.local_devices()[0])
        self.call, self.settings, self.start = partial(jax.jit(advance), *here), settings, mean
        leaves = trees.leaves(here[0])
        planes = {n: p for n, p in leaves.items() if re.search(PLANES, n)}
        self.state = invert.start(mean, planes, rng.fold(key, "planes"))

    def __call__(self, first: int, last: int) -> tuple[Any, dict[str, float]]:
        """Does steps first..last - 1; the image (h, w, c) then, and its distances.

        Raises:
          ValueError: when the image is not finite.
        """
        import numpy as np

        self.state, image, distances = self.call(self.state, first, last)
        if not np.isfinite(image).all():
            raise ValueError(
                f"after {last} steps the generator's image is not finite; look at its samples, "
                "and take an earlier snapshot (--nimg)"
            )
        return np.asarray(image), {n: float(d) for n, d in distances.items()}


def write(out: Path, search: Search, target: Any, args: argparse.Namespace, facts: dict) -> None:
    """Searches, and writes the files."""
    import numpy as np

    from jaxgen.cli import sampling
    from jaxgen.common import pictures, provenance, units
    from jaxgen.metrics import psnr
    from jaxgen.train.store import write_json

    image, begin = search(0, 0)
    ends = np.rint(np.linspace(0, args.steps, args.strip + 1)).astype(int).tolist()
    strip, end = [image], begin
    for first, last in itertools.pairwise(ends):
        image, end = search(first, last)
        strip.append(image)
        print(
            f"{last:>6} of {args.steps}: features {end['features']:.4g}, pixels {end['pixels']:.4g}"
        )
    state = search.state
    decibels = float(psnr.psnr(image[None], target[None])[0])
    pictures.save_png(units.to_uint8(image), out / "projected.png")
    tiles = units.to_uint8(np.stack([*strip, target]))
    pictures.save_png(pictures.grid(tiles, len(tiles)), out / "strip.png")
    planes = {f"noise/{n}": np.asarray(x) for n, x in state.planes.items()}
    sampling.save_npz(
        out / "w.npz", {"w": np.asarray(state.w), "mean": np.asarray(search.start), **planes}
    )
    facts = {
        "image": Path(args.image).name,
        "steps_shown": ends,
        "before": begin,
        "after": end,
        "psnr": decibels,
        "pixels_weight": args.pixels,
        "seed": args.seed,
        "classes": args.classes,
        "search": search.settings._asdict(),
        **facts,
        **provenance.facts(),
    }
    write_json(out / "facts.json", facts)
    print(f"{decibels:.2f} dB after {args.steps} steps: {out}")

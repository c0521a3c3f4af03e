"""Times what evaluation is made of: feature nets, Frechet distances, precision and recall.

    python scripts/bench.py evaluate --nets random,pixels --rows 10000 --dim 2048 --json e.json

Nets: images a second of each net whose weights are at hand, on uint8 images of its own size, or 32
pixels wide colour where it takes any. Frechet distance: from features and from moments, beside the
matrix square root that pytorch-fid calls. Precision and recall: beside the plain products of the
same sizes, real x real, fake x fake and fake x real in float32 in one program each. Functions that
are compared take turns.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import measure
import numpy as np

from jaxgen.cli import common, nets
from jaxgen.metrics import features, neighbours
from jaxgen.metrics.frechet import frechet, frechet_from_moments
from jaxgen.metrics.precision_recall import precision_recall, radii
from jaxgen.train.store import write_json


def parser() -> common.Parser:
    """The flags."""
    p = common.Parser("bench", __doc__.partition("\n")[0], "scripts/bench.py evaluate --repeats 3")
    p.prog = "scripts/bench.py evaluate"
    p.add_argument("--nets", help="comma-separated, or none (default: all that can be had)")
    p.add_argument("--images", type=int, default=32, help="of a net's batch (default 32)")
    p.add_argument("--rows", type=int, default=10_000, help="features of each set (default 10000)")
    p.add_argument("--dim", type=int, default=2048, help="their width (default 2048)")
    p.add_argument("--repeats", type=int, default=3, help="timed repeats (default 3)")
    p.add_argument("--json", metavar="FILE", help="write everything that was measured here")
    return p


def sets(rows: int, dim: int) -> list[np.ndarray]:
    """Two sets (rows, dim) float32 that look like features: not negative, few wide directions."""
    rng = np.random.default_rng(0)
    width = np.arange(1, dim + 1) ** -0.5
    draw = lambda scale: np.abs(scale * rng.standard_normal((rows, dim), np.float32) * width)
    return [draw(s).astype(np.float32) for s in (1.0, 1.05)]


def of_nets(names: list[str] | None, images: int, repeats: int) -> dict[str, Any]:
    """{net: {"images_per_second", ...}}, or why it cannot be timed."""
    found: dict[str, Any] = {}
    for name in features.names() if names is None else names:
        try:
            net = nets.open_net(name)
        except ValueError as e:
            if names is not None:
                raise
            found[name] = {"not timed": str(e)}
            continue
        shape = (images, *(net.input_shape or (32, 32, 3)))
        x = jnp.asarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
        (seconds,) = measure.repeat(lambda net=net, x=x: net(x), repeats=repeats, warmup=2)
        rate = images / seconds["median"]
        found[name] = {"seconds": seconds, "images_per_second": rate, "shape": list(shape)}
        found[name] |= {"weights_sha256": net.weights_sha256[:16]}
    return found


def of_frechet(x: np.ndarray, y: np.ndarray, repeats: int) -> dict[str, Any]:
    """Seconds of the distance, from features and from moments, and of a matrix square root."""
    from scipy.linalg import sqrtm

    wide = [z.astype(np.float64) for z in (x, y)]
    moments = [(z.mean(0), np.cov(z.T)) for z in wide]
    product = moments[0][1] @ moments[1][1]
    seconds = measure.repeat(
        lambda: frechet(x, y) and None,
        lambda: [np.cov(z.T) for z in wide] and None,
        lambda: frechet_from_moments(*moments[0], *moments[1]) and None,
        lambda: sqrtm(product).shape and None,
        repeats=repeats,
        warmup=1,
    )
    names = ("features", "covariances alone", "moments", "sqrtm")
    return dict(zip(names, seconds)) | {
        "baseline": "scipy.linalg.sqrtm(C1 @ C2), after covariances"
    }


def of_precision_recall(x: np.ndarray, y: np.ndarray, repeats: int) -> dict[str, Any]:
    """Seconds of precision and recall, of counting who lies in whose ball, of plain products."""
    plain = jax.jit(lambda a, b: jnp.dot(a, b, precision="highest"))
    pair = jax.device_put((x, y))
    turned = [jax.block_until_ready(jnp.array(z.T)) for z in pair]
    r2 = [radii(z, 3) for z in (x, y)]
    seconds = measure.repeat(
        lambda: precision_recall(x, y) and None,
        lambda: [plain(a, b) for a, b in zip((*pair, pair[0]), (*turned, turned[1]))],
        lambda: neighbours.count_inside(x, y, *r2) and None,
        lambda: plain(pair[0], turned[1]),
        repeats=repeats,
        warmup=1,
    )
    names = ("precision and recall", "three products", "counting in balls", "one product")
    return dict(zip(names, seconds))


def main(argv: list[str]) -> int:
    """Measures, prints, writes."""
    args = parser().parse_args(argv)
    common.setup_jax()
    where, repeats = measure.machine(), args.repeats
    print(f"machine             {where['device']}; {where['machine']}")
    names = None if args.nets is None else [n for n in args.nets.split(",") if n != "none"]
    found: dict[str, Any] = {"nets": of_nets(names, args.images, repeats)}
    for name, r in found["nets"].items():
        if "seconds" in r:
            shape = "x".join(map(str, r["shape"]))
            print(f"{name:<19} {r['images_per_second']:,.1f} images/s ({shape})")
        else:
            print(f"{name:<19} {r['not timed'][:78]}")
    x, y = sets(args.rows, args.dim)
    print(f"features            two sets of {args.rows} x {args.dim}", flush=True)
    ms = lambda s: f"{s['median'] * 1e3:,.4g} ms ({s['min'] * 1e3:,.4g} to {s['max'] * 1e3:,.4g})"
    f = found["frechet"] = of_frechet(x, y, repeats)
    theirs = f["sqrtm"]["median"] + f["covariances alone"]["median"]
    print(f"frechet             {ms(f['features'])} from features, {ms(f['moments'])} from moments")
    print(f"                    {ms(f['sqrtm'])} {f['baseline']} of {ms(f['covariances alone'])}")
    print(f"                    theirs takes {theirs / f['features']['median']:.2f} times as long")
    p = found["precision_recall"] = of_precision_recall(x, y, repeats)
    for ours, other in (
        ("precision and recall", "three products"),
        ("counting in balls", "one product"),
    ):
        ratio = p[ours]["median"] / p[other]["median"]
        print(f"{ours:<20}{ms(p[ours])}; {other} {ms(p[other])}: {ratio:.2f} times as long")
    if args.json:
        spec = {"mode": "evaluate", **{k: getattr(args, k) for k in ("rows", "dim", "images")}}
        write_json(Path(args.json), {**spec, **found, "repeats": repeats, "machine": where})
    return 0

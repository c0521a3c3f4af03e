"""Tools of generators with styles: their functions compiled for rows of images; `--mix`."""

import argparse
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxgen.cli import common, values

MIX_LAYERS = "0-3"


def add_flags(parser: common.Parser) -> Any:
    """The flags, for `jaxgen sample`; their group."""
    group = parser.add_argument_group("styles (image i has class i mod k)")
    group.add_argument(
        "--mix",
        metavar="ROWS,COLUMNS",
        help="a grid: images ROWS with styles of images COLUMNS, as 0-3,17+20",
    )
    group.add_argument(
        "--layers", metavar="LAYERS", help=f"of these layers, 0 the coarsest (default {MIX_LAYERS})"
    )
    return group


def numbers(text: str, what: str) -> list[int]:
    """Numbers of images or layers from "0-3", "5" or "5+17+20-22".

    Raises:
      ValueError: not of that form; `what` begins the message.
    """
    found: list[int] = []
    for part in text.split("+"):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
        if last < first:
            raise ValueError(f"{what} must look like 0-3, 5 or 5+17+20-22, got {text!r}")
        found += range(first, last + 1)
    return found


def check(run: common.Run, flag: str) -> None:
    """Raises ValueError when the run's plan has no generator with styles; `flag` asked for it."""
    if "generator" not in run.plan.exports:
        raise ValueError(
            f"{flag} needs a generator with styles, and {run.workdir} is a run of recipe "
            f"{run.config.recipe!r} without them"
        )


def check_rows(args: argparse.Namespace, out: Path) -> tuple[list[int], list[int], list[int]]:
    """The numbers of rows, columns and layers of --mix.

    Raises:
      ValueError: for flags that are not of their forms, or another output than a picture.
    """
    rows, comma, columns = args.mix.partition(",")
    if not comma:
        raise ValueError(f"--mix is ROWS,COLUMNS such as 0-3,17+20, got {args.mix!r}")
    if out.suffix != ".png":
        raise ValueError(f"--mix makes one picture; --out must end in .png, got {out}")
    return (
        numbers(rows, "--mix: rows"),
        numbers(columns, "--mix: columns"),
        numbers(args.layers or MIX_LAYERS, "--layers"),
    )


class Tool:
    """A function of a run's generator with styles, compiled for chunks of rows.

    f(generator, rows) -> a tree of arrays with the rows' leading axis; generator: a
    samplers.styles.Generator, rows: as from `rows_of`, or any tree of arrays.
    """

    def __init__(self, run: common.Run, f: Callable[[Any, Any], Any], chunk: int = 256):
        import jax

        from jaxgen.common import mesh as meshes

        export = run.plan.exports["generator"]
        self.mesh, self.chunk = run.mesh, -(-chunk // run.mesh.size) * run.mesh.size
        whole, rows = meshes.replicated(run.mesh), meshes.batch_sharding(run.mesh)
        self.put = lambda params: jax.device_put((dict(params), dict(run.plan.frozen)), whole)
        self.call = jax.jit(
            lambda weights, rows: f(export.fn(*weights), rows),
            in_shardings=(whole, rows),
            out_shardings=rows,
        )

    def __call__(self, params: Mapping[str, Any], rows: Any, num: int) -> Iterator[Any]:
        """Chunks of f of the rows 0..num-1 on the host, in order."""
        from jaxgen.cli import sampling

        weights = self.put(params)
        call = lambda part: self.call(weights, part)
        return sampling.in_chunks(call, rows, num, self.mesh, self.chunk)

    def whole(self, params: Mapping[str, Any], rows: Any, num: int) -> Any:
        """All chunks joined."""
        import jax
        import numpy as np

        parts = list(self(params, rows, num))
        return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def rows_of(
    run: common.Run, which: Sequence[int], seed: int, classes: str | None = None
) -> dict[str, Any]:
    """Rows of the images of these numbers: "key" (n,) and, of conditional runs, "label" (n, k).

    Image i has the i-th class in turn, or the i-th vector of held-out data.

    Raises:
      ValueError: classes of a run that has none, or that are unknown.
    """
    import numpy as np

    from jaxgen.cli import sampling
    from jaxgen.common import rng

    which, labels = np.asarray(which), None
    total = int(which.max()) + 1
    if run.facts["label_kind"] == "class":
        chosen = values.parse_classes(classes, run.facts["label_dim"])
        labels = sampling.class_labels(total, chosen, ordered=False)
    elif classes:
        raise ValueError("--classes: this run has no classes")
    found = sampling.inputs(run.plan, run.facts, total, labels=labels, source=run.held_out())
    return {"key": rng.seed_keys(seed, which), **{n: x[which] for n, x in found.items()}}


def cond_of(rows: Mapping[str, Any]) -> dict[str, Any] | None:
    """The condition of rows from `rows_of`."""
    return {"label": rows["label"]} if "label" in rows else None


def styles_of(generator: Any, rows: Mapping[str, Any], options: Mapping[str, Any]) -> Any:
    """Truncated styles (n, num_ws, w_dim) of rows from `rows_of`."""
    cond = cond_of(rows)
    w = generator.mapping(generator.latents(rows["key"]), cond)
    return generator.truncate(w, cond, **options)


def write_mix(
    run: common.Run,
    average: Any,
    args: argparse.Namespace,
    out: Path,
    which: tuple[list[int], list[int], list[int]],
) -> None:
    """The picture of --mix: sources along the left and upper edges, mixtures between them."""
    import numpy as np

    from jaxgen.common import pictures, provenance, units
    from jaxgen.samplers import styles
    from jaxgen.train.store import write_json

    rows, columns, layers = which
    known = dict(run.plan.sample.options)
    options = known | values.parse_options(args.option, known)
    num = len(rows) + len(columns)
    find = Tool(run, lambda g, r: styles_of(g, r, options), num)
    ws = find.whole(average.params, rows_of(run, rows + columns, args.seed, args.classes), num)
    mixed = np.asarray(styles.mix(ws[: len(rows)], ws[len(rows) :], layers))
    ws = np.concatenate([ws, mixed.reshape(-1, *ws.shape[1:])])
    draw = Tool(run, lambda g, ws: g.synthesis(ws), min(args.batch, len(ws)))
    images = units.to_uint8(draw.whole(average.params, ws, len(ws)))
    picture = mix_picture(images, len(rows), len(columns))
    pictures.save_png(picture, out)
    facts = {"rows": rows, "columns": columns, "layers": layers, "seed": args.seed}
    facts |= {"options": options, **average.facts, **provenance.facts()}
    write_json(out.with_suffix(".json"), facts)
    print(f"{len(rows)} x {len(columns)} mixtures in layers {layers}: {out}")


def mix_picture(images: Any, rows: int, columns: int) -> Any:
    """A grid uint8 (h, w, c) of images (n, h, w, c): row sources, column sources, mixtures by row.

    The tile above the row sources is white.
    """
    import numpy as np

    from jaxgen.common import pictures

    left, top, inner = np.split(images, [rows, rows + columns])
    inner = inner.reshape(rows, columns, *images.shape[1:])
    lines = [np.full_like(images[:1], 255), top]
    for source, line in zip(left, inner, strict=True):
        lines += [source[None], line]
    return pictures.grid(np.concatenate(lines), columns + 1)

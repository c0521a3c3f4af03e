"""Features or moments of real images, computed once and kept: see `find`."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

LOOKED_AT = 512  # images that the fingerprint of a set too large for memory reads


def add_flags(group: Any) -> None:
    """--cache and --reference."""
    group.add_argument(
        "--cache",
        metavar="DIR",
        help="where real images' features are kept, or none (default: ~/.cache/jaxgen/reference)",
    )
    group.add_argument(
        "--reference", metavar="FILE.npz", help="take them from there, or write them there"
    )


def folder() -> Path:
    """The user's: $XDG_CACHE_HOME/jaxgen/reference."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home, "jaxgen", "reference")


def choose(source: Any, num: int | None) -> Any:
    """So many images of a source, of every class its share; None: all.

    Raises:
      ValueError: not 2 to all of them.
    """
    from jaxgen.data import source as sources

    if num is not None and not 2 <= num <= len(source):
        raise ValueError(f"num_real must be 2 to {len(source)}, the images, got {num}")
    return source if num in (None, len(source)) else sources.limited(source, num)


def images(source: Any, rows: slice) -> Iterator[Any]:
    """The source's images of these rows, in chunks."""
    import numpy as np

    from jaxgen.data import pipeline
    from jaxgen.data.source import subset

    if rows.stop - rows.start < len(source):
        source = subset(source, np.arange(rows.start, rows.stop))
    for batch in pipeline.epoch(source, 256):
        yield batch["image"]


def data_facts(source: Any) -> dict[str, Any]:
    """What names a source, and a hash of its images (of LOOKED_AT of them if not in memory)."""
    import numpy as np

    n, digest = len(source), hashlib.sha256()
    if source.arrays is not None:
        digest.update(np.ascontiguousarray(source.arrays[0]).data)
    else:
        for i in np.unique(np.linspace(0, n - 1, LOOKED_AT).astype(int)):
            digest.update(np.ascontiguousarray(source[int(i)]["image"]).data)
    return {
        "name": source.name,
        "split": source.split,
        "images": n,
        "shape": list(source.shape),
        "dtype": str(source.dtype),
        "sha256": digest.hexdigest(),
    }


def find(
    source: Any,
    net: Any,
    moments: bool,
    mesh: Any,
    *,
    cache: str | Path | None = None,
    file: str | Path | None = None,
) -> Any:
    """Features (n, d) float32 of all images of a source, in order, or their metrics.Moments.

    They are taken from `file` if it is there, or from the folder `cache`, under a key of the data's
    facts, the net's facts and what is asked for; else they are computed and written there. With
    several processes each computes its share, and the first one writes.

    Args:
      cache: a folder; None: none. file: instead of a file there.
    Raises:
      ValueError: `file` is damaged or was made of something else. A file in `cache` of which that
      is so is named, and made anew.
    """
    import json

    import jax

    from jaxgen import __version__
    from jaxgen.metrics import reference, stream

    path, found = Path(file) if file else None, None
    if path or cache:
        facts = {
            "data": data_facts(source),
            "net": {**net.facts(), "weights_sha256": net.weights_sha256},
            "kind": "moments" if moments else "features",
            "jaxgen": __version__,
        }
        facts = json.loads(json.dumps(facts))
        path = path or Path(cache) / f"{source.name}-{net.name}-{reference.key(facts)}.npz".replace(
            ":", "-"
        )
        if path.is_file():
            try:
                found = reference.load(path, facts)
            except ValueError as e:
                if file:
                    raise ValueError(f"--reference {e}") from e
                print(f"computing the reference anew: {e}")
    if stream.agreed(found is not None):
        return found
    make = stream.moments if moments else stream.features
    found = stream.joined(make(net, images(source, stream.share(len(source))), mesh))
    if path and jax.process_index() == 0:
        reference.save(path, facts, found)
    return found

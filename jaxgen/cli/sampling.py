"""Drawing with a plan's `sample`: any number of images, in chunks, the same whatever the chunks."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxgen.common import mesh as meshes
from jaxgen.common import pictures, processes, rng, units


def class_labels(num: int, classes: list[int], ordered: bool) -> np.ndarray:
    """Labels (num,): in class order for a grid, or in turn (balanced at any prefix)."""
    turn = np.arange(num)
    return np.asarray(classes)[turn * len(classes) // num if ordered else turn % len(classes)]


def inputs(
    plan: Any,
    facts: Mapping[str, Any],
    num: int,
    *,
    labels: np.ndarray | None,
    source: Any = None,
    guide: Any = None,
) -> dict[str, np.ndarray]:
    """What the plan's sample needs for images 0..num-1.

    Args:
      labels: (num,) classes; None takes them in turn. source: held-out data, for plans that need
      images or condition vectors; image i takes its row i, wrapping around. guide: a
      guiding.Guide, whose classes a run without labels takes.
    Raises:
      ValueError: when the data that is needed was not given.
    """
    found: dict[str, np.ndarray] = {}
    rows = None
    vectors = "label" in plan.sample.needs and facts["label_kind"] == "vector"
    if "image" in plan.sample.needs or vectors:
        if source is None:
            raise ValueError("this plan samples from held-out data; a data source is needed")
        rows = [source[i % len(source)] for i in range(num)]
    if "image" in plan.sample.needs:
        found["image"] = np.stack([r["image"] for r in rows])
    if vectors:
        found["label"] = np.stack([r["label"] for r in rows]).astype(np.float32)
    elif dim := (guide.classes if guide else 0) or facts["label_dim"] * (
        "label" in plan.sample.needs
    ):
        if labels is None:
            labels = class_labels(num, list(range(dim)), ordered=False)
        found["label"] = np.eye(dim, dtype=np.float32)[labels]
    return found


class Sampler:
    """A plan's compiled `sample`, for any number of images and any weights.

    Image i depends on (seed, i), its row of `batch` and the weights; not on chunk, mesh or number.

    Args:
      chunk: images at a time. options: of the plan's sampler. guide: a guiding.Guide.
      measured: an invert.Measured, whose rows are in the batch.
    Raises:
      ValueError: unknown options.
    """

    def __init__(
        self,
        plan: Any,
        mesh: Any,
        chunk: int = 256,
        options: Mapping[str, Any] | None = None,
        guide: Any = None,
        measured: Any = None,
    ):
        options = dict(options or {})
        unknown = sorted(set(options) - set(plan.sample.options))
        if unknown:
            raise ValueError(
                f"unknown sampler options {unknown}; this run has {dict(plan.sample.options)}"
            )
        self.mesh = mesh
        self.chunk = -(-chunk // mesh.size) * mesh.size
        whole, rows = meshes.replicated(mesh), meshes.batch_sharding(mesh)
        put = lambda tree: meshes.put(dict(tree), whole)
        self.frozen = put(plan.frozen)
        self.guide = (put(guide.params), put(guide.frozen)) if guide else ()

        def draw(params: Any, keys: Any, batch: Any, frozen: Any, guide_weights: Any) -> dict:
            def wrap(denoise: Callable) -> Callable:
                guided = guide.wrap(denoise, *guide_weights) if guide else denoise
                return measured.wrap(guided, batch[measured.ROWS]) if measured else guided

            steer = {"wrap": wrap} if guide or measured else {}
            return dict(plan.sample.fn(params, keys, batch, frozen, **options, **steer))

        self.draw = jax.jit(
            draw, in_shardings=(whole, rows, rows, whole, whole), out_shardings=rows
        )

    def __call__(
        self,
        params: Mapping[str, Any],
        batch: Mapping[str, np.ndarray],
        num: int,
        seed: int,
        first: int = 0,
    ) -> Iterator[dict[str, np.ndarray]]:
        """Chunks of images first..first+num-1 by name, float32 in [-1, 1].

        batch: their rows, as from `inputs`.
        """
        params = meshes.put(dict(params), meshes.replicated(self.mesh))
        rows = {"keys": rng.seed_keys(seed, np.arange(first, first + num)), "batch": dict(batch)}
        call = lambda r: self.draw(params, r["keys"], r["batch"], self.frozen, self.guide)
        return in_chunks(call, rows, num, self.mesh, self.chunk)


def in_chunks(
    call: Callable[[Any], Any], rows: Any, num: int, mesh: Any, chunk: int
) -> Iterator[Any]:
    """call(rows start..start+chunk) on the mesh, chunk by chunk, on the host.

    Args:
      rows: a tree of arrays (num, ...). chunk: a multiple of the devices; the last one is filled up
        with rows of the beginning, which are dropped.
    """
    for start in range(0, num, chunk):
        index = np.arange(start, start + chunk) % num
        part = jax.tree.map(lambda x, index=index: x[index], rows)
        out = processes.fetch(call(meshes.put(part, meshes.batch_sharding(mesh))))
        yield jax.tree.map(lambda x, n=num - start: x[:n], out)


def collect(parts: Iterator[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """All chunks joined."""
    found = list(parts)
    return {n: np.concatenate([p[n] for p in found]) for n in found[0]}


def save_npz(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays by name, first beside `path` and then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    try:
        with temporary.open("wb") as f:
            np.savez(f, **arrays)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def picture(images: Mapping[str, np.ndarray], columns: int | None = None) -> np.ndarray:
    """A grid uint8 (h, w, c); tiles of several named images (input, image, target) side by side."""
    order = [n for n in ("input", "image", "target") if n in images] or list(images)
    tiles = np.concatenate([units.to_uint8(images[n]) for n in order], axis=2)
    return pictures.grid(tiles, columns, scale=max(1, 64 // tiles.shape[1]))


def grid_of(
    plan: Any,
    params: Mapping[str, Any],
    facts: Mapping[str, Any],
    path: str | Path,
    *,
    mesh: Any,
    num: int,
    seed: int,
    source: Any = None,
) -> None:
    """Draws `num` class-ordered images with these weights to a PNG."""
    labels = None
    if facts["label_kind"] == "class":
        labels = class_labels(num, list(range(facts["label_dim"])), ordered=True)
    batch = inputs(plan, facts, num, labels=labels, source=source)
    images = collect(Sampler(plan, mesh, min(num, 256))(params, batch, num, seed))
    if jax.process_index() == 0:
        pictures.save_png(picture(images), path)

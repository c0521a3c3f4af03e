"""Stream: image batches through a feature net on all devices, to features or moments on the host.

Every batch is cut to one fixed size (one compilation), its rows spread over the mesh, the last one
padded and the padding dropped, so the numbers do not depend on batch sizes or the device count.
With several processes each one streams its own rows (`share`) over its own devices, and `joined`
gives every one what all have found.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxgen.common.mesh import batch_sharding, make_mesh, replicated
from jaxgen.metrics.features import FeatureNet
from jaxgen.metrics.moments import Moments


def features(
    net: FeatureNet, batches: Iterable[Any], mesh: Mesh | None = None, batch: int = 256
) -> np.ndarray:
    """Features (n, d) float32 of all images, in order.

    Args:
      net: a feature net.
      batches: arrays (b, h, w, c), uint8 or float in [-1, 1], of any b; or mappings with "image".
      mesh: whose local devices share the work; None takes all local devices.
      batch: images at a time, rounded up to a multiple of the devices.
    Raises:
      ValueError: when there is no image, or image shapes differ.
    """
    parts = list(_parts(net, batches, mesh, batch))
    if not parts:
        raise ValueError(f"no images to compute {net.name} features of; the batches were empty")
    return np.concatenate(parts)


def moments(
    net: FeatureNet, batches: Iterable[Any], mesh: Mesh | None = None, batch: int = 256
) -> Moments:
    """Float64 moments of the same features, which are not kept: for sets too large to hold."""
    total, held, count = None, [], 0
    for part in _parts(net, batches, mesh, batch):
        total = total or Moments(part.shape[1])
        held, count = [*held, part], count + len(part)
        if count >= part.shape[1]:  # a merge costs as much as so many rows
            total.update(np.concatenate(held))
            held, count = [], 0
    if total is None:
        raise ValueError(f"no images to compute {net.name} moments of; the batches were empty")
    return total.update(np.concatenate(held)) if held else total


def local(mesh: Mesh | None = None) -> Mesh:
    """The part of a mesh that is this process's; None: all its devices."""
    return make_mesh(devices=jax.local_devices() if mesh is None else list(mesh.local_devices))


def share(num: int) -> slice:
    """The rows of 0..num-1 that are this process's, in order of processes."""
    p, n = jax.process_index(), jax.process_count()
    return slice(p * num // n, (p + 1) * num // n)


def joined(found: np.ndarray | Moments) -> np.ndarray | Moments:
    """Rows (n, ...) or moments of all processes, in their order; every process must call it."""
    if jax.process_count() == 1:
        return found
    if isinstance(found, np.ndarray):
        return np.concatenate(_of_all(found))
    dim, total = len(found.mean), Moments(len(found.mean))
    packed = np.concatenate([[found.count], found.mean, found.scatter.reshape(-1)])
    for other in _of_all(packed):
        part = Moments(dim)
        part.count, part.mean = int(other[0]), other[1 : 1 + dim]
        part.scatter = other[1 + dim :].reshape(dim, dim)
        total.merge(part)
    return total


def agreed(yes: bool) -> bool:
    """Whether it is so on all processes; every process must call it."""
    return bool(np.concatenate(_of_all(np.array([yes]))).all()) if jax.process_count() > 1 else yes


def _of_all(x: np.ndarray) -> list[np.ndarray]:
    """The arrays (n, ...) of all processes, as bytes: JAX would make float64 float32."""
    from jax.experimental import multihost_utils

    counts = multihost_utils.process_allgather(np.array([len(x)], np.int32)).reshape(-1)
    rows = np.zeros((int(counts.max()), *x.shape[1:]), x.dtype)
    rows[: len(x)] = x
    sent = np.frombuffer(rows.tobytes(), np.uint8)
    got = np.asarray(multihost_utils.process_allgather(sent)).reshape(len(counts), -1)
    arrays = [np.frombuffer(g.tobytes(), x.dtype).reshape(rows.shape) for g in got]
    return [a[:n] for a, n in zip(arrays, counts)]


def _parts(
    net: FeatureNet, batches: Iterable[Any], mesh: Mesh | None, batch: int
) -> Iterator[np.ndarray]:
    mesh = local(mesh)
    batch = -(-batch // mesh.size) * mesh.size
    placed = dataclasses.replace(net, params=jax.device_put(net.params, replicated(mesh)))
    waiting = None
    for images in _fixed(batches, batch):
        pad = np.zeros((batch - len(images), *images.shape[1:]), images.dtype)
        rows = jax.device_put(np.concatenate([images, pad]), batch_sharding(mesh))
        out = placed(rows), len(images)
        if waiting is not None:  # fetch the one before while the devices work on this one
            yield np.asarray(waiting[0])[: waiting[1]]
        waiting = out
    if waiting is not None:
        yield np.asarray(waiting[0])[: waiting[1]]


def _fixed(batches: Iterable[Any], size: int) -> Iterator[np.ndarray]:
    """The same rows in arrays of `size`, the last one shorter."""
    held: list[np.ndarray] = []
    count = 0
    shape = None
    for images in batches:
        images = np.asarray(images["image"] if isinstance(images, Mapping) else images)
        shape = shape or (images.shape[1:], images.dtype)
        if (images.shape[1:], images.dtype) != shape:
            raise ValueError(
                f"all images of one stream must have one shape and type, got {shape[0]} {shape[1]} "
                f"and then {images.shape[1:]} {images.dtype}"
            )
        held.append(images)
        count += len(images)
        if count >= size:
            rows = np.concatenate(held)
            whole = count // size * size
            yield from (rows[i : i + size] for i in range(0, whole, size))
            held, count = [rows[whole:]], count - whole
    if count:
        yield np.concatenate(held)

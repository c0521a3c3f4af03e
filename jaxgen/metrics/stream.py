"""Stream: image batches through a feature net on all devices, to features or moments on the host.

Every batch is cut to one fixed size (one compilation), its rows spread over the mesh, the last one
padded and the padding dropped, so the numbers do not depend on batch sizes or the device count.
With several processes each one streams its own rows over its own devices; merge their moments.
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
    total = None
    for part in _parts(net, batches, mesh, batch):
        total = (total or Moments(part.shape[1])).update(part)
    if total is None:
        raise ValueError(f"no images to compute {net.name} moments of; the batches were empty")
    return total


def _parts(
    net: FeatureNet, batches: Iterable[Any], mesh: Mesh | None, batch: int
) -> Iterator[np.ndarray]:
    mesh = make_mesh(devices=jax.local_devices() if mesh is None else list(mesh.local_devices))
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

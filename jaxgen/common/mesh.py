"""The one place that makes meshes: axes, their types, several slices, and where a batch lies.

Axes: `data` shares the batch, `fsdp` the batch and the parameters, `tensor` the channels inside a
layer. Axis types are always Auto: the Explicit default of recent jax rejects FSDP and several linen
layers. Which parameter lies how is decided by rules, see `common/sharding.py`.
"""

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")  # the axes that share the images
AnyMesh = Mesh | AbstractMesh


def in_words(axes: Mapping[str, int]) -> str:
    """Axes and their sizes: "data 4 x fsdp 2 x tensor 1"."""
    return " x ".join(f"{name} {size}" for name, size in axes.items())


def axis_sizes(n: int, data: int = -1, fsdp: int = 1, tensor: int = 1) -> tuple[int, int, int]:
    """(data, fsdp, tensor) for n devices; the one that is -1 takes all that remain.

    Raises:
      ValueError: when their product is not n.
    """
    sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
    asked = in_words(sizes)
    free = [k for k, v in sizes.items() if v == -1]
    if len(free) > 1:
        raise ValueError(f"only one of the mesh's axes can be -1, got {asked}")
    if any(v < 1 for k, v in sizes.items() if k not in free):
        raise ValueError(f"the mesh's axes are positive, or -1 for the rest, got {asked}")
    if free:
        sizes[free[0]] = n // math.prod(v for v in sizes.values() if v != -1)
    if math.prod(sizes.values()) != n:
        raise ValueError(
            f"mesh.data x mesh.fsdp x mesh.tensor must be the number of devices, got {asked} for "
            f"{n}; set one of them to -1 to use all devices"
        )
    return sizes["data"], sizes["fsdp"], sizes["tensor"]


def slices(devices: Sequence[Any]) -> int:
    """TPU slices, which only the data centre's network connects; 1 for anything else."""
    if devices[0].platform != "tpu":
        return 1
    return len({getattr(d, "slice_index", 0) for d in devices})


def device_grid(devices: Sequence[Any], data: int, fsdp: int, tensor: int) -> np.ndarray:
    """Devices (data, fsdp, tensor) so that near ones share an axis; `data` runs across slices.

    Raises:
      ValueError: when `data` is not a multiple of the number of slices.
    """
    n = slices(devices)
    if data % n:
        raise ValueError(
            f"mesh.data must be a multiple of the {n} slices, between which only it runs, got "
            f"data {data} x fsdp {fsdp} x tensor {tensor}; lower mesh.fsdp or mesh.tensor"
        )
    inner = (data // n, fsdp, tensor)
    if n > 1:
        return mesh_utils.create_hybrid_device_mesh(
            inner, (n, 1, 1), devices, allow_split_physical_axes=True
        )
    return mesh_utils.create_device_mesh(inner, devices, allow_split_physical_axes=True)


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> Mesh:
    """A mesh with axes ("data", "fsdp", "tensor"); -1 takes all remaining devices on one axis.

    Args:
      devices: all of them if None; those of a topology description, too.
    Raises:
      ValueError: sizes that do not fit the number of devices or of slices.
    """
    devices = list(jax.devices() if devices is None else devices)
    grid = device_grid(devices, *axis_sizes(len(devices), data, fsdp, tensor))
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 3)


def abstract_mesh(n: int, data: int = -1, fsdp: int = 1, tensor: int = 1) -> AbstractMesh:
    """`make_mesh` of n devices that need not exist: enough to shard and trace, not to run."""
    sizes = axis_sizes(n, data, fsdp, tensor)
    return AbstractMesh(sizes, AXES, axis_types=(AxisType.Auto,) * 3)


def batch_sharding(mesh: AnyMesh) -> NamedSharding:
    """The leading axis over data and fsdp, the same on all of tensor."""
    return NamedSharding(mesh, P(BATCH))


def replicated(mesh: AnyMesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def batch_parts(mesh: AnyMesh) -> int:
    """The parts that a batch is divided in: data x fsdp."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch: int, mesh: AnyMesh, microbatches: int = 1) -> None:
    """Raises ValueError when the global batch does not divide over devices and microbatches."""
    parts = batch_parts(mesh)
    if batch % (parts * microbatches):
        raise ValueError(
            f"config.batch must be a multiple of devices x microbatches = {parts} x "
            f"{microbatches}, got {batch}; change --config.batch or --config.microbatches"
        )


def local_rows(mesh: Mesh, batch: int) -> np.ndarray:
    """The rows (n,) of a global batch that this process's devices hold, in order.

    Processes that only share a `tensor` axis hold the same rows; on a torus of chips those of a
    process need not be neighbours.
    """
    spans = batch_sharding(mesh).addressable_devices_indices_map((batch,)).values()
    return np.unique(np.concatenate([np.arange(batch)[rows] for rows in spans]))


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Host arrays of this process's rows (`local_rows`) to global arrays over the batch axes."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def constrain_batch(tree: Any, mesh: AnyMesh | None) -> Any:
    """Inside jit: pins every leaf's leading axis to the batch sharding (no-op without a mesh)."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, batch_sharding(mesh)), tree)


def traced_for(mesh: AnyMesh | None) -> contextlib.AbstractContextManager:
    """While it lasts, `rows` and `whole_rows` work for this mesh; None: nothing changes."""
    if mesh is None:
        return contextlib.nullcontext()
    return jax.sharding.use_abstract_mesh(getattr(mesh, "abstract_mesh", mesh))


def rows(x: jax.Array) -> jax.Array:
    """In a layer that the step traces: the first axis of x is shared like the batch.

    Said of what goes into a product with a weight and of what comes out, it lets the compiler
    gather the weight's parts, which it otherwise may take as a reason to cut and move images.
    Nothing is done elsewhere, where parameters are whole, or where x has no image for each device.
    """
    return _constrain_rows(x, P.UNCONSTRAINED)


def whole_rows(x: jax.Array) -> jax.Array:
    """`rows`, and no other axis of x is shared: the end of a block whose inside `tensor` shares."""
    return _constrain_rows(x, None)


def _constrain_rows(x: jax.Array, others: Any) -> jax.Array:
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.axis_names != AXES or mesh.shape["fsdp"] * mesh.shape["tensor"] == 1:
        return x
    if x.ndim < 2 or x.shape[0] % batch_parts(mesh):
        return x
    return jax.lax.with_sharding_constraint(x, P(BATCH, *[others] * (x.ndim - 1)))


def place(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has, typed keys too, put on shardings that may span processes."""
    return jax.jit(lambda x: x, out_shardings=shardings)(tree)


def put(tree: Any, sharding: NamedSharding) -> Any:
    """`place` for one sharding, without a program where this process sees all of its devices."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return place(tree, sharding)

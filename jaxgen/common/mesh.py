"""The one place that makes meshes and shardings.

Axes: `data` (batch only) and `fsdp` (batch and parameters). Axis types are always Auto: the
Explicit default of recent jax rejects FSDP and several linen layers. Parameters, optimizer state
and averages follow one rule on shapes; nothing is boxed.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp")


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with axes ("data", "fsdp"); -1 takes all remaining devices on one axis.

    Raises:
      ValueError: when data x fsdp is not the number of devices.
    """
    devices = list(jax.devices() if devices is None else devices)
    n = len(devices)
    if data == -1 and fsdp == -1:
        raise ValueError("only one of mesh.data and mesh.fsdp can be -1")
    if data == -1:
        data = n // fsdp
    if fsdp == -1:
        fsdp = n // data
    if data * fsdp != n:
        raise ValueError(
            f"mesh.data x mesh.fsdp must be the number of devices, got {data} x {fsdp} for {n}; "
            "set one of them to -1 to use all devices"
        )
    return jax.make_mesh((data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def shape_spec(x: Any, mesh: Mesh, min_size: int = 2**12) -> P:
    """The FSDP rule: floats of at least `min_size` elements split their largest divisible axis.

    Small leaves, integers and keys are replicated.
    """
    n = mesh.shape["fsdp"]
    if n > 1 and x.size >= min_size and jnp.issubdtype(x.dtype, jnp.floating):
        for d in sorted(range(x.ndim), key=lambda i: -x.shape[i]):
            if x.shape[d] % n == 0:
                return P(*("fsdp" if i == d else None for i in range(x.ndim)))
    return P()


def tree_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedShardings for a tree of arrays or ShapeDtypeStructs by `shape_spec`."""
    return jax.tree.map(lambda x: NamedSharding(mesh, shape_spec(x, mesh)), tree)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """The leading axis over every device."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """The whole array on every device."""
    return NamedSharding(mesh, P())


def check_batch(batch: int, mesh: Mesh, microbatches: int = 1) -> None:
    """Raises ValueError when the global batch does not divide over devices and microbatches."""
    if batch % (mesh.size * microbatches):
        raise ValueError(
            f"config.batch must be a multiple of devices x microbatches = {mesh.size} x "
            f"{microbatches}, got {batch}; change --config.batch or --config.microbatches"
        )


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Host arrays of this process's rows to global arrays sharded over the batch axis."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(
        lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch
    )


def constrain_batch(tree: Any, mesh: Mesh | None) -> Any:
    """Inside jit: pins every leaf's leading axis to the batch sharding (no-op without a mesh)."""
    if mesh is None:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, batch_sharding(mesh)), tree)


def place(tree: Any, shardings: Any) -> Any:
    """Arrays that every process has, typed keys too, put on shardings that may span processes."""
    return jax.jit(lambda x: x, out_shardings=shardings)(tree)

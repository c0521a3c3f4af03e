"""The arrays of a save: values that no later step reaches, and few of them.

A state has hundreds of small arrays, each of which costs Orbax half a millisecond of work: those
that are whole and small are saved as one, `PACKED`, their bytes end to end.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any

PACKED = ":packed"
SMALL = 2**20  # bytes from which an array is saved by itself
COPIED = 2**28  # bytes a device up to which split arrays are copied there


def take(tree: Tree) -> tuple[Tree, bool]:
    """The values of a tree as they are now; whether they stay when its arrays are donated.

    Whole arrays become numpy: all transfers to the host are started before one is waited for. (On
    CPU the buffers are shared; the step to which they are donated copies them.) The first process
    writes them, so that the others have stand-ins. Arrays that are split over devices are copied on
    the devices, which is only started here, and takes their memory once more until they have been
    fetched. With more than COPIED of them nothing is copied and the second result is False: the
    caller fetches them before the next step.
    """
    leaves, structure = jax.tree.flatten(tree)
    whole, split = [], []
    for i, x in enumerate(leaves):
        if not isinstance(x, jax.Array):
            leaves[i] = np.array(x)  # its owner may change it
        else:
            (whole if x.is_fully_replicated else split).append(i)
    safe = sum(_bytes_a_device(leaves[i]) for i in split) <= COPIED
    if split and safe:
        for i, x in zip(split, _copy([leaves[i] for i in split])):
            leaves[i] = x
    if jax.process_index():
        for i in whole:
            leaves[i] = _stand_in(leaves[i])
        return jax.tree.unflatten(structure, leaves), safe
    if jax.device_count() > 1:
        for i in whole:
            leaves[i] = leaves[i].addressable_data(0)
    if jax.default_backend() != "cpu":
        for i in whole:
            leaves[i].copy_to_host_async()
    for i in whole:
        leaves[i] = np.asarray(leaves[i])
    return jax.tree.unflatten(structure, leaves), safe


_copy = jax.jit(lambda xs: [jnp.copy(x) for x in xs])


def _bytes_a_device(x: jax.Array) -> int:
    return math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize


def _stand_in(x: jax.Array) -> np.ndarray:
    """An array like x of nearly no memory."""
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)


def _packed(flat: Mapping[str, Any]) -> list[str]:
    return [n for n, x in flat.items() if isinstance(x, np.ndarray) and x.nbytes < SMALL]


def pack(flat: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays of an item by name as they are saved: small ones of numpy as one."""
    rest = dict(flat)
    small = [np.ravel(rest.pop(n)).view(np.uint8) for n in _packed(flat)]
    return {**rest, PACKED: np.concatenate(small)} if small else rest


def describe(items: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """JSON: "arrays", item -> {name: [shape, dtype]}; "packed", item -> names in `PACKED`."""
    kinds = {k: {n: [list(x.shape), str(x.dtype)] for n, x in t.items()} for k, t in items.items()}
    return {"arrays": kinds, "packed": {k: _packed(t) for k, t in items.items()}}


def described(meta: Any) -> bool:
    """Whether it holds what `describe` gives ("packed" may be missing, as before it was there)."""
    if not isinstance(meta, dict):
        return False
    arrays, packed = meta.get("arrays"), meta.get("packed", {})
    return (
        isinstance(arrays, dict)
        and all(
            isinstance(kind, list) and len(kind) == 2 and isinstance(kind[0], list)
            for names in arrays.values()
            for kind in (names.values() if isinstance(names, dict) else [None])
        )
        and isinstance(packed, dict)
        and all(
            isinstance(names, list)
            and all(isinstance(n, str) and n in arrays.get(item, ()) for n in names)
            and len(names) == len({*names})
            for item, names in packed.items()
        )
    )


def unpack(
    packed: np.ndarray, names: Sequence[str], kinds: Mapping[str, Sequence], target: Mapping
) -> dict[str, Any]:
    """What `pack` packed, with the dtypes and shardings of `target`; numpy where it has none.

    Args:
      packed: (bytes,) uint8. names: in order. kinds: name -> [shape, dtype]. target: name -> struct
      of the same shape.
    Raises:
      ValueError: the bytes are not those of these arrays.
    """
    dtypes = [_dtype(kinds[n][1]) for n in names]
    ends = np.cumsum([0, *(d.itemsize * math.prod(target[n].shape) for n, d in zip(names, dtypes))])
    if packed.dtype != np.uint8 or packed.shape != (ends[-1],):
        raise ValueError(f"{packed.shape} {packed.dtype} instead of {ends[-1]} bytes")
    found = {}
    for n, dtype, begin, end in zip(names, dtypes, ends, ends[1:]):
        like = target[n]
        x = packed[begin:end].copy().view(dtype).reshape(like.shape).astype(like.dtype, copy=False)
        sharding = getattr(like, "sharding", None)
        if sharding is not None:
            x = jax.make_array_from_callback(x.shape, sharding, lambda i, x=x: x[i])
        found[n] = x
    return found


def _dtype(name: Any) -> np.dtype:
    """A numeric dtype by name. Raises ValueError."""
    try:
        dtype = jnp.dtype(name)
    except TypeError as e:
        raise ValueError(f"{name!r} is no dtype") from e
    if not (jnp.issubdtype(dtype, np.number) or jnp.issubdtype(dtype, np.bool_)):
        raise ValueError(f"{name!r} is no dtype of numbers")
    return dtype

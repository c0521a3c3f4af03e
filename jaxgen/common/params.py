"""Parameters drawn leaf by leaf: fast initialisation that does not depend on depth or mesh.

`jax.jit(module.init)` traces and compiles the whole forward pass plus one random generator a leaf:
tens of seconds for a U-Net. Layers here declare their parameters with `param`, which also notes the
initialiser; `init` then reads the shapes from an abstract trace (instant) and draws each leaf with
a small compiled program shared by all leaves of equal shape. The key of a leaf is folded with its
name, so adding a layer does not change the others.
"""

import math
from collections.abc import Callable
from contextvars import ContextVar
from functools import lru_cache
from typing import Any

import flax.linen as nn
import jax

from jaxgen.common import rng

Initializer = Callable[..., jax.Array]
_record: ContextVar[dict | None] = ContextVar("param_initializers", default=None)


def param(module: nn.Module, name: str, init_fn: Initializer, shape: tuple[int, ...]) -> jax.Array:
    """`module.param(name, init_fn, shape)` in float32, noted for `init`.

    `init_fn(key, shape)` should be a module-level function or be cached (equal functions share a
    compilation).
    """
    record = _record.get()
    if record is not None:
        record["/".join((*module.path, name))] = init_fn
    return module.param(name, init_fn, tuple(shape))


def tracked(
    module: nn.Module, name: str, init_fn: Initializer, shape: tuple[int, ...]
) -> jax.Array:
    """A statistic kept with the params: a running mean, the vector of a power iteration.

    No gradient reaches it. Players name such leaves in `fixed`; new values come by `track`.
    """
    return jax.lax.stop_gradient(param(module, name, init_fn, shape))


def training(module: nn.Module) -> bool:
    """Whether the caller of `apply` takes new statistics, with `mutable=["tracked"]`."""
    return module.is_mutable_collection("tracked") and not module.is_initializing()


def track(module: nn.Module, name: str, value: jax.Array) -> None:
    """Reports the new value of a `tracked` leaf, at its place in the collection "tracked"."""
    if training(module):
        value = jax.lax.stop_gradient(value)
        module.sow("tracked", name, value, reduce_fn=lambda _, new: new, init_fn=lambda: None)


@lru_cache(maxsize=4096)
def _drawer(init_fn: Initializer, shape: tuple[int, ...]) -> Callable[[jax.Array], jax.Array]:
    return jax.jit(lambda key: init_fn(key, shape))


def init(module: nn.Module, key: jax.Array, *args: Any, **kwargs: Any) -> Any:
    """The params of a linen module whose layers use `param`; equal on any mesh and device count.

    Args:
      module: a linen module; every parameter in collection "params" must come from `param`.
      key: typed key.
      *args, **kwargs: example inputs (arrays or ShapeDtypeStructs) of `module.__call__`.
    Returns:
      The tree of the "params" collection.
    Raises:
      ValueError: naming parameters that were not declared through `param`.
    """
    record: dict[str, Initializer] = {}
    token = _record.set(record)
    try:
        shapes = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a, **kwargs), *args)
    finally:
        _record.reset(token)
    from jaxgen.common import trees

    names = trees.leaves(shapes["params"])
    foreign = sorted(set(names) - set(record))
    if foreign:
        raise ValueError(
            f"these parameters were not declared with jaxgen.common.params.param: {foreign[:8]}; "
            "declare them so, or initialise with jax.jit(module.init)"
        )

    def draw(name: str, leaf: Any) -> jax.Array:
        return _drawer(record[name], leaf.shape)(rng.fold(key, name))

    return trees.map_named(draw, shapes["params"])


def normal(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """N(0, 1), drawn flat: the numbers of `jax.random.normal`, compiled several times faster."""
    return jax.random.normal(key, (math.prod(shape),)).reshape(shape)


def zeros(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """0."""
    del key
    return jax.numpy.zeros(shape)


def ones(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """1."""
    del key
    return jax.numpy.ones(shape)


@lru_cache(maxsize=64)
def scaled_normal(std: float) -> Initializer:
    """N(0, std^2)."""
    return lambda key, shape: std * normal(key, shape)


@lru_cache(maxsize=64)
def he_normal(gain: float = 2.0) -> Initializer:
    """N(0, gain / fan_in); fan_in is the product of all axes but the last (HWIO or (in, out))."""

    def draw(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        fan_in = 1
        for n in shape[:-1]:
            fan_in *= n
        return (gain / fan_in) ** 0.5 * normal(key, shape)

    return draw

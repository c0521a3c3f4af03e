"""Randomness without carried state: a key is the seed folded with what it is for.

Nothing random is stored in a checkpoint. A key of step n is `step_key(seed, n, phase)`, and inside
a step every image has a key of its own, folded with its position in the *global* batch, so that the
noise an image receives does not depend on how many devices or microbatches share the work.
"""

import math
import zlib

import jax
import jax.numpy as jnp


def name_id(name: str) -> int:
    """A stable 31-bit number for a name (crc32), the same in every process and Python version."""
    return zlib.crc32(name.encode()) & 0x7FFFFFFF


def fold(key: jax.Array, *what: str | int | jax.Array) -> jax.Array:
    """Folds names and numbers into a typed key, in order."""
    for w in what:
        key = jax.random.fold_in(key, name_id(w) if isinstance(w, str) else w)
    return key


def image_keys(key: jax.Array, n: int, start: int = 0) -> jax.Array:
    """Keys (n,): one an image, key i depending on `key` and `start + i` only."""
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(start, start + n))


def seed_keys(seed: int, indices: jax.Array) -> jax.Array:
    """Keys (n,) of samples `indices` (n,) under `seed`: image 17 is image 17 in any batch."""
    key = fold(jax.random.key(seed), "sample")
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.asarray(indices))


def split(keys: jax.Array, num: int) -> list[jax.Array]:
    """Splits image keys (b,) into `num` lists of image keys (b,)."""
    parts = jax.vmap(lambda k: jax.random.split(k, num))(keys)
    return [parts[:, i] for i in range(num)]


def normal(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """Standard normal (b, *shape), row i from keys[i].

    Drawn flat: the same numbers, and XLA compiles one dimension several times faster than four.
    """
    flat = jax.vmap(lambda k: jax.random.normal(k, (math.prod(shape),)))(keys)
    return flat.reshape(len(keys), *shape)


def uniform(keys: jax.Array, shape: tuple[int, ...] = ()) -> jax.Array:
    """Uniform in [0, 1) (b, *shape), row i from keys[i]."""
    return jax.vmap(lambda k: jax.random.uniform(k, shape))(keys)

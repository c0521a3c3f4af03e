"""What the recipes share: reading labels, images and compute types from config and batch."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen import averaging
from jaxgen.common import units
from jaxgen.noise import operators


def dtype(name: str) -> Any:
    """The compute dtype: "float32", "bfloat16", or "auto" (bfloat16 on accelerators).

    Parameters, optimizer and averages stay float32 in any case.
    """
    if name == "auto":
        return jnp.float32 if jax.default_backend() == "cpu" else jnp.bfloat16
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"config.dtype must be auto, float32 or bfloat16, got {name!r}")
    return jnp.dtype(name)


def averages(config: Any) -> dict[str, Any]:
    """The trackers of `config.averages`, by name."""
    lengths = tuple(config.averages.power)
    return averaging.tracks(lengths, units.images(config.averages.halflife))


def images(batch: Mapping[str, jax.Array]) -> jax.Array:
    """The batch's images (b, h, w, c), float32 in [-1, 1]."""
    return units.from_uint8(batch["image"])


def condition(batch: Mapping[str, jax.Array], facts: Mapping[str, Any]) -> dict | None:
    """{"label": (b, k)}: one-hot classes or condition vectors; None for data without labels."""
    kind = facts["label_kind"]
    if kind == "none" or "label" not in batch:
        return None
    label = batch["label"]
    if kind == "class" and label.ndim == 1:
        label = jax.nn.one_hot(label, facts["label_dim"])
    return {"label": label.astype(jnp.float32)}


def corruption(name: str, **settings: Any) -> operators.Corruption:
    """noise.operators.make, for commands: the corruption of a name."""
    return operators.make(name, **settings)

"""Averages of weights: tracked during training (`ema`, `power`), chosen after it (`posthoc`)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.averaging.ema import HalfLife
from jaxgen.averaging.power import Power


def tracks(power: Sequence[float] = (0.05, 0.10), halflife: float = 0.0) -> dict[str, Any]:
    """Trackers by name: power-function averages of these lengths, and a half-life EMA if not 0."""
    found = [Power(float(s)) for s in power] + ([HalfLife(float(halflife))] if halflife else [])
    return {t.name: t for t in found}


def update(average: Any, params: Any, weight: jax.Array, fixed: Any = None) -> Any:
    """average + weight (params - average) by leaf; `fixed` leaves are copied from `params`."""

    def leaf(a: jax.Array, p: jax.Array, copy: bool) -> jax.Array:
        return p if copy else a + weight.astype(jnp.float32) * (p - a)

    if fixed is None:
        fixed = jax.tree.map(lambda _: False, params)
    return jax.tree.map(leaf, average, params, fixed)

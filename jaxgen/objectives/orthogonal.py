"""Orthogonal regularisation: filters of a layer should be orthogonal (arXiv:1809.11096, Eq. 3).

    R = beta |W^T W * (1 - I)|_F^2    summed over weights W

Only pairs of different filters count: their norms are free, unlike in arXiv:1609.07093.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxgen.common import trees


def penalty(params: Any, beta: float = 1e-4, skip: Sequence[str] = ()) -> jax.Array:
    """The penalty () of a network, the same for every image.

    Args:
      params: a tree; its leaves called `w` of two dimensions or more count, (in, out) or
        (kh, kw, in, out): a filter is a column, all of what one output reads.
      beta: weight. skip: regexes of names that do not count (BigGAN's shared class embedding).
    Raises:
      ValueError: when nothing is left to count, or a regex matches nothing.
    """
    skipped = trees.leaves(trees.mask(skip, params))
    counted = [
        x
        for name, x in trees.leaves(params).items()
        if re.search(r"(^|/)w$", name) and x.ndim >= 2 and not skipped[name]
    ]
    if not counted:
        raise ValueError(
            f"no weight to keep orthogonal: expected leaves called w of two dimensions or more, "
            f"not matching {list(skip)}, got {list(trees.leaves(params))[:12]}"
        )
    return beta * sum(jnp.square(correlations(w)).sum() for w in counted)


def correlations(w: jax.Array) -> jax.Array:
    """W^T W (out, out) of a weight (..., out), zero on the diagonal, in float32."""
    w = w.reshape(-1, w.shape[-1]).astype(jnp.float32)
    return jnp.matmul(w.T, w, precision="highest") * (1 - jnp.eye(w.shape[1]))

"""Noisy classifier: cross entropy at random noise levels, to guide sampling (arXiv:2105.05233)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxgen.common import rng
from jaxgen.noise.levels import Draw
from jaxgen.noise.precondition import expand

Classify = Callable[[jax.Array, jax.Array], jax.Array]


def loss(
    classify: Classify, y: jax.Array, label: jax.Array, keys: jax.Array, draw: Draw
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """-ln p(label | y + n, sigma), n ~ N(0, sigma^2 I), at a level of its own for each image.

    Args:
      classify: noisy images x (b, h, w, c) and sigma (b,) -> logits (b, k).
      y: clean images (b, h, w, c). label: (b, k), one-hot. keys: (b,) typed keys.
      draw: keys (b,) -> sigma (b,); the levels that the guided network is trained at.
    Returns:
      (per-example loss (b,); {"accuracy": 1 where the likeliest class is the label's (b,)}).
    """
    level, noise = rng.split(keys, 2)
    return loss_at(classify, y, label, draw(level), rng.normal(noise, y.shape[1:]))


def loss_at(
    classify: Classify, y: jax.Array, label: jax.Array, sigma: jax.Array, eps: jax.Array
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """`loss` at given levels sigma (b,) and unit normals eps (b, h, w, c).

    Raises:
      ValueError: when the logits have another shape than the labels.
    """
    logits = classify(y + expand(sigma, y) * eps, sigma).astype(jnp.float32)
    if logits.shape != label.shape:
        raise ValueError(
            f"the classifier must put out logits of the labels' shape {label.shape}, one-hot, got "
            f"{logits.shape}"
        )
    right = jnp.argmax(logits, -1) == jnp.argmax(label, -1)
    each = -jnp.sum(label * jax.nn.log_softmax(logits), -1)
    return each, {"accuracy": right.astype(jnp.float32)}

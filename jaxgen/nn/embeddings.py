"""Embeddings of noise level and conditions: sinusoids at fixed frequencies (arXiv:1706.03762).

All of it is float32, whatever the compute dtype of the feature maps.
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common.params import param, scaled_normal

FIXED = (r"freqs$",)


def positional(
    c_noise: jax.Array, features: int, endpoint: bool = False, max_period: float = 10000.0
) -> jax.Array:
    """[cos(f x), sin(f x)], f falling geometrically from 1 to 1 / max_period.

    Args:
      c_noise: x (b,). features: even width. endpoint: whether the last f is 1 / max_period itself.
    Returns:
      (b, features).
    """
    half = features // 2
    exponent = np.arange(half) / (half - endpoint)
    f = np.asarray(max_period**-exponent, np.float32)
    phase = jnp.outer(c_noise.astype(jnp.float32), f)
    return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], 1)


class Fourier(nn.Module):
    """[cos(2 pi f x), sin(2 pi f x)], f ~ N(0, scale^2) drawn once (arXiv:2006.10739).

    (b,) -> (b, features). `freqs` are never trained (see `FIXED`).
    """

    features: int
    scale: float = 16.0

    @nn.compact
    def __call__(self, c_noise: jax.Array) -> jax.Array:
        f = param(self, "freqs", scaled_normal(self.scale), (self.features // 2,))
        f = 2 * np.float32(np.pi) * jax.lax.stop_gradient(f)
        phase = jnp.outer(c_noise.astype(jnp.float32), f)
        return jnp.concatenate([jnp.cos(phase), jnp.sin(phase)], 1)


def conditions(
    who: str, cond: Mapping[str, jax.Array] | None, batch: int, label_dim: int, augment_dim: int
) -> tuple[jax.Array, jax.Array]:
    """label (b, label_dim) and augment (b, augment_dim) of `cond` in float32, zeros where absent.

    A network without classes ignores labels, so that it can guide one that has them.

    Raises:
      ValueError: for names that are not known and shapes that do not fit, naming the network `who`.
    """
    dims = {"label": label_dim} | ({"augment": augment_dim} if augment_dim else {})
    cond = dict(cond or {})
    if unknown := sorted(set(cond) - set(dims)):
        raise ValueError(f"{who} reads the conditions {sorted(dims)}, got also {unknown}")
    for name, width in dims.items():
        if width and name in cond and cond[name].shape != (batch, width):
            raise ValueError(
                f"cond[{name!r}] of {who} must have shape ({batch}, {width}), got "
                f"{cond[name].shape}" + ("; labels are one-hot" if name == "label" else "")
            )

    def read(name: str, width: int) -> jax.Array:
        if width and name in cond:
            return cond[name].astype(jnp.float32)
        return jnp.zeros((batch, width))

    return read("label", label_dim), read("augment", augment_dim)


def drop_labels(module: nn.Module, label: jax.Array, rate: float, train: bool) -> jax.Array:
    """Training: zeros in place of label (b, k) with probability `rate`, image by image."""
    if not (rate and train):
        return label
    keep = jax.random.bernoulli(module.make_rng("dropout"), 1 - rate, (len(label), 1))
    return label * keep

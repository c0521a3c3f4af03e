"""GAN: the first one, two perceptrons that play on digits (arXiv:1406.2661).

The generator has rectified layers and sigmoid pixels; the discriminator has maxout layers
(arXiv:1302.4389) and is trained with dropout. So much the paper says of its networks; widths,
pieces, rates and initial ranges are those that its authors published for MNIST. Two things are
otherwise: the bias of the pixels starts at 0 and not at the mean of the data, and labels are
appended to z and to the pixels (arXiv:1411.1784).
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.networks.stylegan2_mapping import Cond, label_of
from jaxgen.nn.dropout import dropout
from jaxgen.nn.layers import Dense, uniform

FIXED: tuple[str, ...] = ()


def join(x: jax.Array, label: jax.Array | None) -> jax.Array:
    """x (b, d) with label (b, k), or without."""
    return x if label is None else jnp.concatenate([x, label.astype(x.dtype)], -1)


class Generator(nn.Module):
    """z (b, z_dim) -> images (b, resolution, resolution, channels), float32, in [-1, 1].

    Args:
      features: width of each hidden layer. label_dim: 0 for no label. dtype: of the hidden layers.
    """

    resolution: int
    channels: int = 1
    label_dim: int = 0
    z_dim: int = 100
    features: tuple[int, ...] = (1200, 1200)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, z: jax.Array, cond: Cond = None, keys: jax.Array | None = None) -> jax.Array:
        del keys  # nothing but z is random
        if z.ndim != 2 or z.shape[-1] != self.z_dim:
            raise ValueError(f"expected latents z (b, {self.z_dim}), got {z.shape}")
        x = join(z, label_of(cond, self.label_dim))
        for i, width in enumerate(self.features):
            x = jax.nn.relu(Dense(width, w_init=uniform(0.05), dtype=self.dtype, name=f"fc{i}")(x))
        shape = (self.resolution, self.resolution, self.channels)
        out = Dense(math.prod(shape), w_init=uniform(0.05), dtype=self.dtype, name="out")
        x = jax.nn.sigmoid(out(x).astype(jnp.float32))
        return 2 * x.reshape(-1, *shape) - 1


class Discriminator(nn.Module):
    """Images (b, resolution, resolution, c) -> logits (b,), float32.

    Drops out where the caller of `apply` gives rngs={"dropout": key}.

    Args:
      features: units of each maxout layer. pieces: linear maps that a unit takes the largest of.
      dropout: rate before the layers; dropout_pixels: of the images, before the first.
    """

    resolution: int
    label_dim: int = 0
    features: tuple[int, ...] = (240, 240)
    pieces: int = 5
    dropout: float = 0.5
    dropout_pixels: float = 0.2
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        if x.ndim != 4 or x.shape[1:3] != (self.resolution,) * 2:
            raise ValueError(
                f"expected images of size {self.resolution}, got {x.shape}; pad or crop"
            )
        label, train = label_of(cond, self.label_dim), self.has_rng("dropout")
        # Pixels as the authors had them, so that one that drops out is black.
        x = (x.reshape(len(x), -1).astype(jnp.float32) + 1) / 2
        x = join(dropout(self, x, self.dropout_pixels, train), label)
        start = {"w_init": uniform(0.005), "dtype": self.dtype}
        for i, units in enumerate(self.features):
            x = Dense(units * self.pieces, **start, name=f"maxout{i}")(x)
            x = x.reshape(-1, units, self.pieces).max(-1)
            x = dropout(self, x, self.dropout, train)
        return Dense(1, **start, name="out")(x)[:, 0].astype(jnp.float32)

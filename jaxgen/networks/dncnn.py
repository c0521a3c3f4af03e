"""DnCNN: a stack of 3x3 convolutions that predicts the noise, x0 = x - net(x) (arXiv:1608.03981).

The form in which trained networks are used: the paper's batch normalisation is merged into the
kernels and biases of the convolutions, so that there is none here.

The stack sees images in [0, 1] and predicts noise in the same unit, as the published weights want
it; zeros pad its borders there, which is why the change of units cannot be merged into the first
convolution. With images x in [-1, 1],

    x0 = x - 2 net((x + 1) / 2) .
"""

from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nn.layers import Conv

Cond = Mapping[str, jax.Array] | None


class DnCNN(nn.Module):
    """Noisy images (b, h, w, c) to restored images of the same shape; any h and w.

    Args:
      depth: convolutions; a pixel sees those up to `depth` rows and columns away. The paper's
        network for one known noise level has 17, for a range of levels 20.
      features: channels between them.
      out_channels: 0, or as many as the images have: noise has no others.
      dtype: of activations; parameters and the result are float32.
    """

    depth: int = 17
    features: int = 64
    out_channels: int = 0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, cond: Cond = None) -> jax.Array:
        if cond:
            raise ValueError(f"dncnn knows no conditions, got {sorted(cond)}; leave them out")
        if self.depth < 2:
            raise ValueError(f"dncnn needs two convolutions at least, got depth {self.depth}")
        c = x.shape[-1]
        if self.out_channels not in (0, c):
            raise ValueError(
                f"dncnn subtracts noise from images of {c} channels, and cannot give "
                f"{self.out_channels}; take n2n_unet for methods that predict more than an image"
            )
        h = (x + 1) / 2
        for i in range(self.depth - 1):
            h = nn.relu(Conv(self.features, dtype=self.dtype, name=f"conv{i}")(h))
        noise = Conv(c, dtype=self.dtype, name=f"conv{self.depth - 1}")(h)
        return (x - 2 * noise).astype(jnp.float32)

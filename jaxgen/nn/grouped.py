"""Grouped convolution: channels in groups that do not see each other (arXiv:1611.05431).

XLA has it, but with two faults that are mended here. Where the batch is sharded, it would gather it
and do all of it on every device. And on a CPU its weight gradient is some hundred times slower than
the layer: there it is made of one ordinary convolution a group. The derivatives of a grouped
convolution, and theirs, are grouped convolutions and weight gradients: `jax.vjp` works to any
order, `jax.jvp` and `jax.vmap` are not defined.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen.common.params import Initializer, he_normal, param, zeros
from jaxgen.nn.convolution import NHWC


def plain(x: jax.Array, w: jax.Array) -> jax.Array:
    """`grouped_conv` as XLA has it."""
    groups = x.shape[-1] // w.shape[2]
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=NHWC, feature_group_count=groups
    )


def _partition(mesh: jax.sharding.Mesh, args: tuple, result: jax.ShapeDtypeStruct) -> tuple:
    """Each device convolves its part of the batch with all of the kernel."""
    spec = args[0].sharding.spec
    batch = NamedSharding(mesh, P(*spec[:1]))
    return mesh, plain, batch, (batch, NamedSharding(mesh, P()))


_by_batch = custom_partitioning(plain)
_by_batch.def_partition(partition=_partition, sharding_rule="b h w c, k l i o -> b h w p")


@jax.custom_vjp
def grouped_conv(x: jax.Array, w: jax.Array) -> jax.Array:
    """Convolution (a correlation) of equal size, with zeros beyond the border.

    Args:
      x: (b, h, w, c). w: (k, k, c / groups, o) of x's dtype, k odd. Group j of `groups` reads the
        channels from j c / groups on and makes the outputs from j o / groups on.
    Returns:
      (b, h, w, o).
    """
    return _by_batch(x, w)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def weight_gradient(x: jax.Array, y: jax.Array, k: int, groups: int) -> jax.Array:
    """The gradient (k, k, c / groups, o) of sum(y grouped_conv(x, w)) with respect to w."""
    return jax.lax.platform_dependent(
        x, y, cpu=partial(by_groups, k=k, groups=groups), default=partial(whole, k=k, groups=groups)
    )


def whole(x: jax.Array, y: jax.Array, k: int, groups: int) -> jax.Array:
    """`weight_gradient` as XLA makes it."""
    w = jnp.zeros((k, k, x.shape[-1] // groups, y.shape[-1]), x.dtype)
    return jax.vjp(lambda w: plain(x, w), w)[1](y)[0]


def by_groups(x: jax.Array, y: jax.Array, k: int, groups: int) -> jax.Array:
    """`weight_gradient` group by group."""
    parts = zip(jnp.split(x, groups, -1), jnp.split(y, groups, -1))
    return jnp.concatenate([whole(*part, k, 1) for part in parts], -1)


def _transposed(y: jax.Array, w: jax.Array, groups: int) -> jax.Array:
    """The gradient (b, h, w, c) of sum(y grouped_conv(x, w)) with respect to x."""
    k, _, i, o = w.shape
    w = w[::-1, ::-1].reshape(k, k, i, groups, o // groups).transpose(0, 1, 4, 3, 2)
    return grouped_conv(y, w.reshape(k, k, o // groups, groups * i))


def _back(saved: tuple, y: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, w = saved
    groups = x.shape[-1] // w.shape[2]
    return _transposed(y, w, groups), weight_gradient(x, y, w.shape[0], groups)


def _back_of_gradient(k: int, groups: int, saved: tuple, w: jax.Array) -> tuple:
    x, y = saved
    return _transposed(y, w, groups), grouped_conv(x, w)


grouped_conv.defvjp(lambda x, w: (grouped_conv(x, w), (x, w)), _back)
weight_gradient.defvjp(lambda x, y, *n: (weight_gradient(x, y, *n), (x, y)), _back_of_gradient)


class GroupedConv(nn.Module):
    """Grouped convolution kernel x kernel with bias, (b, h, w, c) -> (b, h, w, features).

    w_init draws w, whose fan_in is kernel^2 c / groups.
    """

    features: int
    groups: int
    kernel: int = 3
    w_init: Initializer = he_normal()
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = x.shape[-1]
        if c % self.groups or self.features % self.groups or self.kernel % 2 == 0:
            raise ValueError(
                f"a grouped convolution needs an odd kernel and groups that divide the channels, "
                f"got kernel {self.kernel} and {self.groups} groups for {c} to {self.features}"
            )
        shape = (self.kernel, self.kernel, c // self.groups, self.features)
        w = param(self, "w", self.w_init, shape)
        b = param(self, "b", zeros, (self.features,))
        return grouped_conv(x.astype(self.dtype), w.astype(self.dtype)) + b.astype(self.dtype)

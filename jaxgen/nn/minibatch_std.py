"""Minibatch standard deviation: how much a group of images varies (arXiv:1710.10196, sec. 3)."""

import jax
import jax.numpy as jnp


def minibatch_std(x: jax.Array, group_size: int | None = 4, channels: int = 1) -> jax.Array:
    """Appends `channels` maps holding the mean standard deviation within each group of images.

    Image n of a batch of N belongs to group n mod (N / G): members are N / G apart. With a sharded
    batch they lie on different devices and the statistic is that of the global batch.

    Args:
      x: (b, h, w, c). group_size: G, at most b is used; None is b. channels: the c channels are
        averaged in this many contiguous sets.
    Returns:
      (b, h, w, c + channels)
    Raises:
      ValueError: when G does not divide b, `channels` does not divide c, or one is not positive.
    """
    b, h, w, c = x.shape
    g = b if group_size is None else min(group_size, b)
    if g < 1 or channels < 1:
        raise ValueError(
            f"minibatch_std: group_size and channels are at least 1, got {group_size}, {channels}"
        )
    if b % g:
        raise ValueError(
            f"minibatch_std: the batch must be a multiple of group_size, got {b} and {g}; change "
            "the batch or the discriminator's group_size"
        )
    if c % channels:
        raise ValueError(f"minibatch_std: channels must divide {c}, got {channels}")
    y = x.astype(jnp.float32).reshape(g, b // g, h, w, channels, c // channels)
    std = jnp.sqrt(y.var(0) + 1e-8).mean((1, 2, 4))  # (b / g, channels)
    maps = jnp.broadcast_to(std[None, :, None, None, :], (g, b // g, h, w, channels))
    return jnp.concatenate([x, maps.reshape(b, h, w, channels).astype(x.dtype)], -1)

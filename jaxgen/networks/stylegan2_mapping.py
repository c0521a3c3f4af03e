"""Mapping network: latents and labels to styles, and truncation (arXiv:1812.04948).

With what StyleGAN2's generator and discriminator share: conditions, checks, activations.
"""

from collections.abc import Mapping as Dict

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxgen.nn.layers import EqualizedDense, lrelu

Cond = Dict[str, jax.Array] | None
ARCHITECTURES = ("skip", "resnet", "orig")
ACTIVATIONS = {
    "lrelu": lrelu,
    "relu": lambda x: jax.nn.relu(x) * 2.0**0.5,
    "swish": lambda x: jax.nn.swish(x) * 2.0**0.5,
}


def label_of(cond: Cond, label_dim: int) -> jax.Array | None:
    """The label (b, label_dim) of a condition, None for an unconditional network.

    Raises:
      ValueError: for unknown names, a missing label, or one of another width.
    """
    cond = cond or {}
    unknown = sorted(set(cond) - {"label"})
    if unknown:
        raise ValueError(
            f"this network knows the condition 'label' only, got {unknown}; leave them out"
        )
    if ("label" in cond) != (label_dim > 0):
        raise ValueError(
            f"a network with label_dim={label_dim} expects cond "
            + ("{'label': (b, label_dim)}" if label_dim else "None")
            + f", got {sorted(cond) or None}"
        )
    if not label_dim:
        return None
    if cond["label"].ndim != 2 or cond["label"].shape[-1] != label_dim:
        raise ValueError(
            f"expected labels (b, {label_dim}), got {cond['label'].shape}; one-hot them"
        )
    return cond["label"]


def check(resolution: int, architecture: str, *activations: str) -> None:
    """Raises ValueError unless resolution is a power of two from 8 and the names are known."""
    if resolution < 8 or resolution & (resolution - 1):
        raise ValueError(
            f"stylegan2: resolution must be a power of two and at least 8, got {resolution}; "
            "pad the images"
        )
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"stylegan2: architecture is one of {', '.join(ARCHITECTURES)}, got {architecture!r}"
        )
    for name in activations:
        if name not in ACTIVATIONS:
            raise ValueError(
                f"stylegan2: activation is one of {', '.join(ACTIVATIONS)}, got {name!r}"
            )


def second_moment_norm(x: jax.Array) -> jax.Array:
    """x / sqrt(mean(x^2) + 1e-8) over features."""
    return x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-8)


def activate(x: jax.Array, activation: str = "lrelu", clamp: float | None = None) -> jax.Array:
    """An activation times sqrt 2, then `clip` to [-clamp, clamp]."""
    return clip(ACTIVATIONS[activation](x), clamp)


def clip(x: jax.Array, clamp: float | None) -> jax.Array:
    """x within [-clamp, clamp], x itself for None; the gradient on the bound is 1, as inside."""
    return x if clamp is None else jnp.where(jnp.abs(x) <= clamp, x, jnp.sign(x) * clamp)


def block_dtype(size: int, resolution: int, dtype: jnp.dtype, half_blocks: int | None) -> jnp.dtype:
    """`dtype` for the `half_blocks` largest blocks (None: all) but the 4x4 one, float32 else."""
    smallest = 8 if half_blocks is None else max(8, 2 * resolution >> half_blocks)
    return dtype if size >= smallest else jnp.float32


def truncate(
    ws: jax.Array, w_avg: jax.Array, psi: float | jax.Array, cutoff: int | None = None
) -> jax.Array:
    """w_avg + psi (w - w_avg): less variety, fewer odd images (arXiv:1812.04948, app. B).

    Args:
      ws: (..., w_dim), with a cutoff (b, num_ws, w_dim). w_avg: (w_dim,), or any shape that
        broadcasts. psi: 1 changes nothing, 0 gives the average. cutoff: only styles of the first,
        coarsest, `cutoff` layers are moved; None for all.
    Raises:
      ValueError: a cutoff and one style for all layers.
    """
    moved = w_avg + psi * (ws - w_avg)
    if cutoff is None:
        return moved
    if ws.ndim != 3:
        raise ValueError(f"truncate with a cutoff expects ws (b, num_ws, w_dim), got {ws.shape}")
    return jnp.where(jnp.arange(ws.shape[1])[:, None] < cutoff, moved, ws)


class Mapping(nn.Module):
    """z (b, z) and label (b, k), embedded and each second-moment normalised, to w (b, w_dim).

    One of z and label may be None (the discriminator maps labels only). Always float32.
    Labels are embedded to `embed_features` and layers but the last have `features`; None is w_dim.
    """

    w_dim: int
    layers: int = 8
    lr_multiplier: float = 0.01
    features: int | None = None
    embed_features: int | None = None
    activation: str = "lrelu"

    @nn.compact
    def __call__(self, z: jax.Array | None, label: jax.Array | None) -> jax.Array:
        inputs = [] if z is None else [second_moment_norm(z)]
        if label is not None:
            embedded = EqualizedDense(self.embed_features or self.w_dim, name="embed")(label)
            inputs.append(second_moment_norm(embedded))
        x = jnp.concatenate(inputs, -1)
        for i in range(self.layers):
            width = self.w_dim if i == self.layers - 1 else self.features or self.w_dim
            x = EqualizedDense(width, lr_multiplier=self.lr_multiplier, name=f"fc{i}")(x)
            x = activate(x, self.activation)
        return x

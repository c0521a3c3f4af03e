"""Optimizer pieces that count in images, composed with optax.

The step gives every optimizer `nimg`, the images seen *before* the step, as an extra argument, so a
schedule stays right when the batch changes, in lazy phases, and after a resume.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

Schedule = Callable[[jax.Array], jax.Array]


class ScheduleState(NamedTuple):
    """The learning rate last used, kept to be logged."""

    learning_rate: jax.Array


def scale_by_images(schedule: Schedule) -> optax.GradientTransformationExtraArgs:
    """Multiplies updates by -schedule(nimg)."""

    def update(updates: Any, state: Any, params: Any = None, *, nimg: jax.Array, **_: Any):
        rate = jnp.asarray(schedule(nimg), jnp.float32)
        return jax.tree.map(lambda u: -rate * u, updates), ScheduleState(rate)

    init = lambda params: ScheduleState(jnp.zeros((), jnp.float32))
    return optax.GradientTransformationExtraArgs(init, update)


def adam(
    learning_rate: float | Schedule, b1: float = 0.9, b2: float = 0.999, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam (arXiv:1412.6980) with a learning rate that is a number or a function of images seen."""
    schedule = learning_rate if callable(learning_rate) else lambda nimg: learning_rate
    return optax.chain(optax.scale_by_adam(b1=b1, b2=b2, eps=eps), scale_by_images(schedule))


def inverse_sqrt(ref_lr: float, ref_images: float, rampup_images: float = 0) -> Schedule:
    """EDM2's schedule (arXiv:2312.02696, Eq. 67 with a linear warm-up).

    lr(n) = ref_lr / sqrt(max(n / ref_images, 1)) x min(n / rampup_images, 1), n in images. A zero
    disables its factor. In EDM2's terms, ref_images = t_ref x batch.
    """

    def schedule(nimg: jax.Array) -> jax.Array:
        rate = jnp.float32(ref_lr)
        if ref_images > 0:
            rate = rate / jnp.sqrt(jnp.maximum(nimg / ref_images, 1.0))
        if rampup_images > 0:
            rate = rate * jnp.minimum(nimg / rampup_images, 1.0)
        return rate

    return schedule


def lazy_adam(
    learning_rate: float, b1: float, b2: float, every: int, eps: float = 1e-8
) -> optax.GradientTransformationExtraArgs:
    """Adam shared by a main phase and a regulariser done every `every` steps.

    With c = every / (every + 1): learning rate c lr, betas b^c, as if the regulariser's gradient
    were part of the main one (arXiv:1912.04958, App. B). every <= 1 leaves Adam as it is.
    """
    c = every / (every + 1) if every > 1 else 1.0
    return adam(learning_rate * c, b1=b1**c, b2=b2**c, eps=eps)

"""ADA's controller: p follows how sure the discriminator is of real images (arXiv:2006.06676).

    r_t = E[sign D(x)] over real images;   p <- max(0, p + sign(r_t - target) images / speed)

r_t is 0 for a discriminator that does not tell, and tends to 1 as it learns its images by heart. It
is averaged over `every` steps before p takes a step, of a size that goes from 0 to 1 in `speed`
images. A plan holds p in its stats, where losses read context.stats["ada"]["p"]:

    Plan(stats={"ada": ada_controller.init()},
         controllers=[ada_controller.controller(("disc/real_sign",), batch=64)], ...)
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Stats = Mapping[str, Any]
TARGET, SPEED = 0.6, 500_000


def init(p: float = 0.0) -> dict[str, jax.Array]:
    """The entry of a plan's stats: p, and what was seen since it last moved."""
    names = ("signs", "reports", "steps")
    return {"p": jnp.float32(p), **{name: jnp.float32(0) for name in names}}


def adjust(
    p: jax.Array, r_t: jax.Array, images: float, target: float = TARGET, speed: float = SPEED
) -> jax.Array:
    """The new p () after `images` images with mean sign r_t: not below 0, but without upper limit.

    speed: images in which p would go from 0 to 1; the paper has 500k, and 100k to fine-tune.
    """
    return jnp.maximum(p + jnp.sign(r_t - target) * (images / speed), 0)


def controller(
    signs: Sequence[str],
    *,
    batch: int,
    every: int = 4,
    target: float = TARGET,
    speed: float = SPEED,
    name: str = "ada",
) -> Callable[[Stats, Mapping[str, jax.Array]], Stats]:
    """A plan's controller `(stats, metrics) -> stats` that moves stats[name]["p"].

    Args:
      signs: metrics, as "<phase>/<metric>", that are means of sign(real logits) of a batch. One
        that is NaN, of a phase that was not due, does not count.
      batch: images a step. every: steps from one adjustment to the next. target, speed: see
        `adjust`.
    """

    def control(stats: Stats, metrics: Mapping[str, jax.Array]) -> Stats:
        reported = jnp.stack([metrics[sign] for sign in signs])
        seen = jnp.isfinite(reported)
        old = stats[name]
        total = old["signs"] + jnp.where(seen, reported, 0).sum()
        reports, steps = old["reports"] + seen.sum(), old["steps"] + 1
        due = steps >= every
        moved = adjust(old["p"], total / jnp.maximum(reports, 1), batch * every, target, speed)
        keep = lambda x: jnp.where(due, 0, x)
        new = {
            "p": jnp.where(due & (reports > 0), moved, old["p"]),
            "signs": keep(total),
            "reports": keep(reports),
            "steps": keep(steps),
        }
        return {**stats, name: new}

    return control

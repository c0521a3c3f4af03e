"""Guidance: denoisers made of denoisers, extrapolated away from a guide (arXiv:2207.12598, Eq. 6).

    D(x; sigma, cond) = G + w (M - G)            w = 1: M alone, and the guide is not asked

with the main denoiser M and as guide G the one without the label (classifier-free guidance) or a
worse version of M (autoguidance, arXiv:2406.02507). A classifier guides by its gradient
(arXiv:2105.05233, Alg. 1). An interval limits any of them to some levels (arXiv:2404.07724).

What is returned is a denoiser again, so they nest: `interval(autoguide(main, guide, 2), main, 0.2,
1.6)`. The sampling loop looks into them for intervals; a denoiser that is wrapped in a function of
one's own hides what is inside, see `interval`.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.noise.precondition import Cond, Denoise, expand

LogProb = Callable[[jax.Array, jax.Array, Cond], jax.Array]
Weight = float | np.ndarray | jax.Array


@dataclasses.dataclass(frozen=True, eq=False)
class Combined:
    """A denoiser made of the denoisers `parts`: rule(parts, x, sigma, cond)."""

    rule: Callable[..., jax.Array]
    parts: tuple[Denoise, ...]

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Cond = None) -> jax.Array:
        return self.rule(self.parts, x, sigma, cond)


@dataclasses.dataclass(frozen=True, eq=False)
class Interval:
    """Parts (guided, plain): guided where lo < sigma <= hi, or in steps lo to hi if `by_step`."""

    parts: tuple[Denoise, Denoise]
    lo: float
    hi: float
    by_step: bool = False

    def on(self, levels: np.ndarray) -> np.ndarray:
        """Whether each of the steps that start at levels (n,) is guided, bool (n,)."""
        if self.by_step:
            i = np.arange(len(levels))
            return (self.lo <= i) & (i <= self.hi)
        return (self.lo < levels) & (levels <= self.hi)

    def __call__(self, x: jax.Array, sigma: jax.Array, cond: Cond = None) -> jax.Array:
        if self.by_step:
            raise ValueError(
                "an interval in steps only makes sense to a sampling loop, which alone knows the "
                "step; pass it to the loop unwrapped or give the interval in levels"
            )
        guided, plain = self.parts
        inside = (self.lo < sigma) & (sigma <= self.hi)
        choose = lambda: jnp.where(expand(inside, x), guided(x, sigma, cond), plain(x, sigma, cond))
        return jax.lax.cond(jnp.any(inside), choose, lambda: plain(x, sigma, cond))


def classifier_free(denoise: Denoise, weight: Weight, guide: Denoise | None = None) -> Denoise:
    """Classifier-free guidance: away from what the denoiser says without the label.

    Args:
      denoise: conditional. weight: of the paper's 1 + w; 1 is no guidance; see `autoguide`.
      guide: an unconditional denoiser; None asks `denoise` without the label, which makes sense if
      labels were dropped in training. Either is given `cond` without "label".
    Raises:
      ValueError: as `autoguide`; when the denoiser is its own guide and there is no label to drop.
    """

    def unconditional(parts, x, sigma, cond):
        if guide is None and "label" not in (cond or {}):
            raise ValueError(
                "classifier-free guidance by the denoiser itself needs cond['label'] to drop, got "
                f"conditions {sorted(cond or {})}; pass labels or another guide"
            )
        rest = {name: v for name, v in (cond or {}).items() if name != "label"}
        return parts[0](x, sigma, rest or None)

    return autoguide(denoise, Combined(unconditional, (guide or denoise,)), weight)


def autoguide(denoise: Denoise, guide: Denoise, weight: Weight) -> Denoise:
    """Autoguidance: away from a smaller, less trained or differently averaged denoiser.

    Args:
      denoise: the main one. guide: is given the same x, sigma and cond. weight: a number, or an
      array () or (b,) that may be traced. The number 1 is no guidance: `denoise` is returned.
    Raises:
      ValueError: for a weight that is not finite; when called, for a guide of another shape.
    """
    _finite("guidance weight", weight)
    if _is(weight, 1):
        return denoise

    def rule(parts, x, sigma, cond):
        main, other = (part(x, sigma, cond) for part in parts)
        if other.shape != main.shape:
            raise ValueError(
                f"the guide gives shape {other.shape} where the main denoiser gives {main.shape}; "
                "it must be made for the same images"
            )
        return other + expand(jnp.asarray(weight, main.dtype), x) * (main - other)

    return Combined(rule, (denoise, guide))


def classifier(denoise: Denoise, log_prob: LogProb, scale: Weight) -> Denoise:
    """Classifier guidance: D + sigma^2 scale grad_x log p(y | x; sigma).

    Args:
      denoise: conditional or not. log_prob: (x, sigma, cond) -> (b,), the log-probability of the
      wanted class of each noisy image. scale: a number, or an array () or (b,); the number 0 is no
      guidance.
    Raises:
      ValueError: for a scale that is not finite; when called, for log_prob of another shape.
    """
    _finite("classifier scale", scale)
    if _is(scale, 0):
        return denoise

    def rule(parts, x, sigma, cond):
        def total(x: jax.Array) -> jax.Array:
            each = log_prob(x, sigma, cond)
            if each.shape != x.shape[:1]:
                raise ValueError(
                    "log_prob must give one number an image, that of its class: shape (b,) = "
                    f"{x.shape[:1]}, got {each.shape}"
                )
            return each.sum()

        D = parts[0](x, sigma, cond)
        strength = jnp.asarray(scale, D.dtype) * sigma.astype(D.dtype) ** 2
        return D + expand(strength, x) * jax.grad(total)(x).astype(D.dtype)

    return Combined(rule, (denoise,))


def interval(guided: Denoise, plain: Denoise, lo: float, hi: float) -> Denoise:
    """`guided` at levels lo < sigma <= hi, `plain` elsewhere.

    The sampling loop decides once a step, on the level that the step starts from, for all of its
    evaluations, and runs the other steps without the guide. Called directly, or hidden in a
    function of one's own, it decides by itself at every evaluation: a corrector of another level
    than its step can then differ.

    Args:
      lo, hi: 0 <= lo < hi; hi may be infinite.
    Raises:
      ValueError: for other limits.
    """
    if not (0 <= lo < hi and math.isfinite(lo)):
        raise ValueError(f"a guidance interval needs 0 <= lo < hi, got lo={lo}, hi={hi}")
    return Interval((guided, plain), float(lo), float(hi))


def interval_steps(guided: Denoise, plain: Denoise, first: int, last: int) -> Denoise:
    """`guided` in steps first to last, both included and counted from 0, `plain` elsewhere.

    Steps 17 to 22 of EDM's 32 levels are the levels (0.19, 1.61]. For sampling loops only.

    Raises:
      ValueError: unless 0 <= first <= last.
    """
    if not 0 <= first <= last:
        raise ValueError(f"guided steps need 0 <= first <= last, got first={first}, last={last}")
    return Interval((guided, plain), first, last, by_step=True)


def segments(denoise: Denoise, levels: np.ndarray) -> list[tuple[int, int, Denoise]]:
    """Where the intervals inside a denoiser cut the steps that start at levels (n,).

    Returns:
      (start, stop, denoiser) of each run of steps, in order, its denoiser without intervals.
    """
    switches = list(_switches(denoise))
    on = np.array([s.on(levels) for s in switches]).reshape(len(switches), len(levels))
    cuts = np.flatnonzero(np.any(on[:, 1:] != on[:, :-1], axis=0)) + 1
    bounds = itertools.pairwise([0, *map(int, cuts), len(levels)])
    return [
        (a, b, _settle(denoise, {id(s): bool(v) for s, v in zip(switches, on[:, a])}))
        for a, b in bounds
    ]


def _switches(denoise: Denoise) -> Iterator[Interval]:
    if isinstance(denoise, Interval):
        yield denoise
    if isinstance(denoise, (Interval, Combined)):
        for part in denoise.parts:
            yield from _switches(part)


def _settle(denoise: Denoise, on: dict[int, bool]) -> Denoise:
    if isinstance(denoise, Interval):
        return _settle(denoise.parts[0 if on[id(denoise)] else 1], on)
    if isinstance(denoise, Combined):
        return Combined(denoise.rule, tuple(_settle(part, on) for part in denoise.parts))
    return denoise


def _is(value: Weight, number: float) -> bool:
    return not isinstance(value, (jax.Array, np.ndarray)) and value == number


def _finite(what: str, value: Weight) -> None:
    """Raises for numbers that are not finite; traced ones are not known."""
    if not isinstance(value, jax.core.Tracer) and not np.all(np.isfinite(value)):
        raise ValueError(f"{what} must be finite, got {value}")

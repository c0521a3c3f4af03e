"""EDM: the design space of ODE samplers, and the stochastic one (arXiv:2206.00364, Alg. 1, 2).

The ODE is solved in time t for scaled images s(t) x, noise sigma(t), by Euler or a second-order
step; churn goes back to a higher level before each step. With f = sigma'/sigma + s'/s and
g = sigma'/sigma, the slope of s x is s (f x - g D), so a step is linear in x and D(x; sigma), and
schedules and scalings are only weights of a table.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from jaxgen.noise import vp
from jaxgen.samplers import grids
from jaxgen.samplers.steps import Solver, Table, two_stage

LIMIT = math.sqrt(2) - 1  # of the relative rise of the level by churn


class Schedule(NamedTuple):
    """Levels over time: sigma(t), its relative slope sigma'(t) / sigma(t), and t(sigma)."""

    sigma: Callable[[np.ndarray], np.ndarray]
    slope: Callable[[np.ndarray], np.ndarray]
    time: Callable[[np.ndarray], np.ndarray]


def vp_schedule(sigma_min: float, sigma_max: float, epsilon_s: float = grids.EPSILON_S) -> Schedule:
    """sigma^2 = exp(beta_d t^2 / 2 + beta_min t) - 1, from epsilon_s to 1 over the range given."""
    beta_d, beta_min = grids.vp_betas(sigma_min, sigma_max, epsilon_s)

    def slope(t: np.ndarray) -> np.ndarray:
        sigma = vp.sigma(t, beta_d, beta_min)
        return (beta_min + beta_d * t) * (1 + 1 / sigma**2) / 2

    return Schedule(
        lambda t: vp.sigma(t, beta_d, beta_min), slope, lambda s: vp.time(s, beta_d, beta_min)
    )


SCHEDULES: dict[str, Callable[[float, float], Schedule]] = {
    "linear": lambda lo, hi: Schedule(lambda t: t, lambda t: 1 / t, lambda s: s),
    "ve": lambda lo, hi: Schedule(np.sqrt, lambda t: 1 / (2 * t), np.square),
    "vp": vp_schedule,
}
SCALINGS: dict[str, tuple[Callable, Callable]] = {  # s as a function of sigma, f / g
    "none": (np.ones_like, np.ones_like),
    "vp": (lambda s: 1 / np.sqrt(1 + s**2), lambda s: 1 / (1 + s**2)),
}


def generalized(
    solver: str = "heun",
    schedule: str | Schedule = "linear",
    scaling: str = "none",
    alpha: float = 1.0,
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    cap: bool = False,
    round_sigma: Callable[[np.ndarray], np.ndarray] = lambda sigma: sigma,
) -> Solver:
    """The generalised sampler of Algorithm 1, with the churn of Algorithm 2.

    With linear schedule and no scaling it is `steps.euler` or `steps.heun`. Churn raises level
    sigma_i of a step to (1 + gamma) sigma_i with noise of standard deviation S_noise, where
    gamma = S_churn / n if S_min <= sigma_i <= S_max, for n steps; other steps draw nothing.

    Args:
      solver: "euler" or "heun". schedule: "linear", "ve" or "vp" (over the ends of the grid), or a
      Schedule. scaling: "none" or "vp", s = 1 / sqrt(1 + sigma^2). alpha: > 0, where the second
      slope is taken, as a part of the step: Heun 1, midpoint 1/2. S_churn, S_min, S_max, S_noise:
      see the paper.
      cap: lower a gamma above sqrt(2) - 1 to it, as the paper does, and not refuse it.
      round_sigma: to the levels that a network knows (Family.round_sigma), for raised ones.
    Raises:
      ValueError: for unknown names, numbers out of range, and, when the steps are known, for an
      S_churn above (sqrt(2) - 1) n without `cap` and an alpha that reaches beyond level 0.
    """
    for what, got, known in (
        ("solver", solver, ("euler", "heun")),
        ("schedule", schedule, SCHEDULES),
        ("scaling", scaling, SCALINGS),
    ):
        if isinstance(got, str) and got not in known:
            raise ValueError(f"{what} must be one of {', '.join(known)}, got {got!r}")
    if not 0 < alpha < math.inf:
        raise ValueError(f"alpha must be > 0 and finite, got {alpha}")
    if not (0 <= S_churn < math.inf and 0 <= S_noise < math.inf):
        raise ValueError(
            f"S_churn and S_noise must be finite and >= 0, got S_churn={S_churn}, S_noise={S_noise}"
        )
    if not 0 <= S_min <= S_max:
        raise ValueError(f"churn needs 0 <= S_min <= S_max, got S_min={S_min}, S_max={S_max}")
    scale, damp = SCALINGS[scaling]

    def table(sigmas: np.ndarray) -> Table:
        n, now, end = len(sigmas) - 1, sigmas[:-1], sigmas[1:]
        positive = sigmas[sigmas > 0]
        times = schedule
        if isinstance(schedule, str):
            times = SCHEDULES[schedule](positive[-1], positive[0])
        if S_churn > LIMIT * n and not cap:
            raise ValueError(
                f"S_churn = {S_churn} is too large for {n} steps: at most (sqrt(2) - 1) n = "
                f"{LIMIT * n:.4g}; lower it or take more steps"
            )
        gamma = np.where((S_min <= now) & (now <= S_max), min(S_churn / n, LIMIT), 0)
        hat = times.time(round_sigma(now * (1 + gamma)) if S_churn else now)
        level, two = times.sigma(hat), end > 0
        h = np.where(two, times.time(np.where(two, end, now)), 0) - hat  # level 0 is at time 0
        noise = S_noise * np.sqrt(np.maximum(level**2 - now**2, 0)) if S_churn else None

        def slope(t: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            sigma, g = times.sigma(t), times.slope(t)
            return scale(sigma), g * damp(sigma), g

        s, f, g = slope(hat)
        if solver == "euler":
            x, D = _over(scale(end), s * (1 + h * f), -s * h * g)
            return Table(
                np.arange(n), level, x, D, noise=None if not S_churn else np.append(noise, 0)
            )
        middle = np.where(two, hat + alpha * h, hat)  # the step to 0 asks once, here anything
        if np.any(middle <= 0):
            raise ValueError(
                f"alpha = {alpha} takes a slope beyond level 0 in {n} steps; lower it to 1 or take "
                "more steps"
            )
        s2, f2, g2 = slope(middle)
        b, reach = 1 / (2 * alpha), np.where(two, alpha * h, h)
        y, D1 = 1 + reach * f, -reach * g
        predict = _over(np.where(two, s2, scale(end)), s * y, s * D1)
        correct = _over(
            scale(end),
            s * (1 + h * (1 - b) * f + h * b * f2 * y),
            s * h * (b * f2 * D1 - (1 - b) * g),
            -s2 * h * b * g2,
        )
        return two_stage(level, predict, np.where(two, times.sigma(middle), 0), correct, noise)

    return table


def _over(scale: np.ndarray, *weights: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(w / scale for w in weights)


def stochastic(
    S_churn: float = 0.0,
    S_min: float = 0.0,
    S_max: float = math.inf,
    S_noise: float = 1.0,
    round_sigma: Callable[[np.ndarray], np.ndarray] = lambda sigma: sigma,
) -> Solver:
    """Algorithm 2: churn, then Heun. No churn: `steps.heun`. See `generalized`, also for errors."""
    return generalized(
        S_churn=S_churn, S_min=S_min, S_max=S_max, S_noise=S_noise, round_sigma=round_sigma
    )

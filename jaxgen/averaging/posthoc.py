"""Post-hoc EMA: an average of any length, solved from stored snapshots (arXiv:2312.02696, Alg. 3).

A snapshot is a power-function average with profile p_i(t) ~ t^gamma_i on [0, t_i]. The
coefficients x of a wanted profile p_r minimise || p_r - sum_i x_i p_i ||^2 in L2: A x = b with

    A_ij = <p_i, p_j>,  b_i = <p_i, p_r>,

    <p_a, p_b> = (g_a + 1)(g_b + 1) (t_a / t_b)^e / ((g_a + g_b + 1) max(t_a, t_b)),     (Eq. 151)
    e = g_b if t_a < t_b else -g_a,

and x is divided by its sum, so that constants are kept. Everything about the coefficients is
float64.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxgen.averaging import power


def inner(t_a: np.ndarray, g_a: np.ndarray, t_b: np.ndarray, g_b: np.ndarray) -> np.ndarray:
    """<p_a, p_b> of normalised profiles (Eq. 151), broadcasting; times > 0, exponents > -1/2."""
    t_a, g_a, t_b, g_b = (np.asarray(v, np.float64) for v in (t_a, g_a, t_b, g_b))
    exponent = np.where(t_a < t_b, g_b, -g_a)
    top = (g_a + 1) * (g_b + 1) * (t_a / t_b) ** exponent
    return top / ((g_a + g_b + 1) * np.maximum(t_a, t_b))


class Solution(NamedTuple):
    """coefficients (n,) in the order of the snapshots; error: relative L2 error of the profile."""

    coefficients: np.ndarray
    error: float


def solve(times: Sequence[float], lengths: Sequence[float], time: float, length: float) -> Solution:
    """Coefficients that rebuild the average of relative length `length` at `time`.

    Args:
      times: (n,) images at which the snapshots were taken, all <= `time`.
      lengths: (n,) sigma_rel of each snapshot.
      time: images at which the wanted average ends; should be one of `times`.
      length: sigma_rel wanted.
    Raises:
      ValueError: with fewer than two snapshots, or when one is later than `time`.
    """
    t, s = np.asarray(times, np.float64), np.asarray(lengths, np.float64)
    if t.size < 2:
        raise ValueError(
            f"post-hoc EMA needs at least two snapshots, got {t.size}; train with a smaller "
            "--config.snapshot_every or with two averages (--config.averages.power='(0.05,0.1)')"
        )
    if t.max() > time:
        raise ValueError(f"snapshots at {t.max():.0f} images are later than the target {time:.0f}")
    g = np.array([power.gamma(v) for v in s])
    target = power.gamma(length)
    a = inner(t[:, None], g[:, None], t[None], g[None])
    b = inner(t, g, time, target)
    x = np.linalg.solve(a, b)
    x = x / x.sum()
    norm = inner(time, target, time, target)
    square = x @ a @ x - 2 * x @ b + norm
    return Solution(x, float(np.sqrt(max(square, 0.0) / norm)))


def reachable(
    times: Sequence[float], lengths: Sequence[float], time: float, tolerance: float = 0.25
) -> tuple[float, float]:
    """The shortest and longest sigma_rel whose profile error stays below `tolerance`.

    Searched outward from the tracked lengths, on a grid of 1 % steps.
    """
    low = high = float(np.median(lengths))

    def fine(s: float) -> bool:
        return 0 < s < power.LONGEST and solve(times, lengths, time, s).error <= tolerance

    low, high = min(lengths), max(lengths)
    while fine(low / 1.01):
        low /= 1.01
    while fine(high * 1.01):
        high *= 1.01
    return float(low), float(high)


def check_length(
    times: Sequence[float],
    lengths: Sequence[float],
    time: float,
    length: float,
    tolerance: float = 0.25,
) -> Solution:
    """`solve`, refusing a length that these snapshots cannot give.

    Raises:
      ValueError: naming the reachable range.
    """
    solution = solve(times, lengths, time, max(min(length, power.LONGEST - 1e-4), 1e-4))
    if not 0 < length < power.LONGEST or solution.error > tolerance:
        low, high = reachable(times, lengths, time, tolerance)
        raise ValueError(
            f"an EMA length of {length:g} cannot be rebuilt from these {len(times)} snapshots "
            f"(profile error {solution.error:.0%}, limit {tolerance:.0%}); reachable here: "
            f"{low:.3f} to {high:.3f}; more snapshots (--config.snapshot_every) reach shorter ones"
        )
    return solution


def reconstruct(load: Callable[[int], Any], coefficients: Sequence[float]) -> Any:
    """sum_i coefficients[i] load(i), one snapshot in memory at a time, accumulated in float32.

    Args:
      load: i -> tree of arrays (host or device, any sharding), float32 or half.
      coefficients: (n,) from `solve`.
    """
    add = jax.jit(
        lambda acc, x, c: jax.tree.map(lambda a, b: a + c * b.astype(a.dtype), acc, x),
        donate_argnums=0,
    )
    total = None
    for i, c in enumerate(coefficients):
        snapshot = load(i)
        if total is None:
            total = jax.tree.map(lambda b: (b * 0).astype("float32"), snapshot)
        total = add(total, snapshot, np.float32(c))
        del snapshot
    return total

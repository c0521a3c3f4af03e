"""DDPM: ancestral sampling, from a level to the posterior of the next (arXiv:2006.11239, Alg. 2).

In images that are not scaled, x / sqrt(abar) with 1 / abar = 1 + sigma^2, and r = sigma' / sigma,

    x' = r^2 x + (1 - r^2) D + v n

    v^2 = sigma'^2 (1 - r^2)                               the posterior's, beta~ ("small")
    v^2 = (1 + sigma'^2) / (1 + sigma^2) (sigma^2 - sigma'^2)   the forward step's, beta ("large")

Nothing is added in the last step to 0. DDPM's own levels are `grids.vp(1000)` or `grids.iddpm`.
"""

import numpy as np

from jaxgen.samplers.steps import Solver, Table


def ddpm(variance: str = "small") -> Solver:
    """Both variances have the same limit for small steps; few steps want the small one.

    Raises:
      ValueError: for another variance than "small" or "large".
    """
    if variance not in ("small", "large"):
        raise ValueError(f"variance must be 'small' or 'large', got {variance!r}")

    def table(sigmas: np.ndarray) -> Table:
        sigma, to = sigmas[:-1], sigmas[1:]
        r2 = (to / sigma) ** 2
        v2 = to**2 * (1 - r2)
        if variance == "large":
            v2 = np.where(to > 0, (1 + to**2) / (1 + sigma**2) * (sigma**2 - to**2), 0)
        noise = np.append(0.0, np.sqrt(v2))
        return Table(np.arange(len(to)), sigma, x=r2, D=1 - r2, noise=noise)

    return table

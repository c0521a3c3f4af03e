"""DDIM: deterministic to ancestral sampling by one number, eta (arXiv:2010.02502, Eq. 12, 16).

In images that are not scaled, x / sqrt(abar) with 1 / abar = 1 + sigma^2, the paper's update is

    x' = D + sqrt(sigma'^2 - v^2) (x - D) / sigma + v n,   v = eta sigma' sqrt(1 - sigma'^2/sigma^2)

and holds for any levels sigma > sigma', of whatever schedule they come.
"""

import numpy as np

from jaxgen.samplers.steps import Solver, Table


def ddim(eta: float = 0.0) -> Solver:
    """eta 0: deterministic, `steps.euler`. eta 1: DDPM's posterior, as `ddpm.ddpm("small")`.

    Raises:
      ValueError: for eta outside of [0, 1].
    """
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must be in [0, 1], got {eta}")

    def table(sigmas: np.ndarray) -> Table:
        sigma, to = sigmas[:-1], sigmas[1:]
        v = eta * to * np.sqrt(1 - (to / sigma) ** 2)
        keep = np.sqrt(to**2 - v**2) / sigma
        noise = np.append(0.0, v) if eta else None
        return Table(np.arange(len(to)), sigma, x=keep, D=1 - keep, noise=noise)

    return table

"""All solvers by name, with order and cost (arXiv:2206.00364, Alg. 1, and those in the table).

| name | evaluations a step | order | noise | options | paper |
|---|---|---|---|---|---|
| euler | 1 | 1 | no | | 2206.00364, Alg. 1 |
| heun | 2, the last 1 | 2 | no | | 2206.00364, Alg. 1 |
| edm | 2, the last 1 | 2 | yes | S_churn, S_min, S_max, S_noise | 2206.00364, Alg. 2 |
| generalized | 2, the last 1 | 2 | no | see below | 2206.00364, Alg. 1, Table 1 |
| ddim | 1 | 1 | no | eta | 2010.02502, Eq. 12 |
| ddpm | 1 | 1 | yes | variance | 2006.11239, Alg. 2 |
| dpmpp_2m | 1 | 2 | no | | 2211.01095, Alg. 2 |
| dpmpp_2m_sde | 1 | 2 | yes | | 2211.01095, SDE-DPM-Solver++(2M) |

generalized: solver, schedule, scaling, alpha and the options of edm; with solver=euler it has one
evaluation and order 1, with S_churn > 0 noise. ddim with eta > 0 has noise.

A grid of n levels and a final 0 is n steps; every solver takes it in one evaluation from the last
level to 0. Orders are of the state at a fixed level for solvers without noise, of the moments for
those with. tests/conformance/test_samplers.py measures each.
"""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from jaxgen.samplers import ddim, ddpm, dpm_solver, edm, steps
from jaxgen.samplers.steps import Solver


class Entry(NamedTuple):
    """A solver of the registry: build(**options), its order and evaluations a step by default."""

    build: Callable[..., Solver]
    order: int
    evaluations: int
    noise: bool


SOLVERS: dict[str, Entry] = {
    "euler": Entry(lambda: steps.euler, 1, 1, False),
    "heun": Entry(lambda: steps.heun, 2, 2, False),
    "edm": Entry(edm.stochastic, 2, 2, True),
    "generalized": Entry(edm.generalized, 2, 2, False),
    "ddim": Entry(ddim.ddim, 1, 1, False),
    "ddpm": Entry(ddpm.ddpm, 1, 1, True),
    "dpmpp_2m": Entry(lambda: dpm_solver.dpmpp_2m, 2, 1, False),
    "dpmpp_2m_sde": Entry(lambda: dpm_solver.dpmpp_2m_sde, 2, 1, True),
}


def make(name: str, **options: Any) -> Solver:
    """The solver of a name with its options.

    Raises:
      ValueError: for an unknown name, for options that it does not have or does not allow.
    """
    if name not in SOLVERS:
        raise ValueError(f"unknown solver {name!r}; known are {', '.join(SOLVERS)}")
    known = list(inspect.signature(SOLVERS[name].build).parameters)
    if unknown := sorted(set(options) - set(known)):
        raise ValueError(
            f"solver {name!r} has no options {unknown}; it takes {', '.join(known) or 'none'}"
        )
    return SOLVERS[name].build(**options)

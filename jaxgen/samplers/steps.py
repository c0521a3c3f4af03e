"""Solvers as tables of weights, row by row an evaluation: Euler, Heun (arXiv:2206.00364, Alg. 1).

Every solver here is linear in the state, the denoised images and the noise. So a solver is a
function from a grid of levels to a table of weights, computed in float64 on the host, and one loop
(drive.py) walks any table:

    solver(sigmas (n + 1,)) -> Table

Schedules, scalings, churn switches and multistep memory are numbers of the table, not code of the
loop. A row is one evaluation, so that a compiled program holds the network once, whatever the
solver: Heun is two rows a step.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np


class Table(NamedTuple):
    """m rows, one an evaluation of the denoiser. Columns are float64 (m,) but for `step`, `ends`.

    x is the state at the start of a step, y the point to evaluate; both are equal in a step's first
    row. Row k does, with n ~ N(0, 1) and D' the denoised images of the row before,

        x, y <- x + noise_k n, y + noise_k n        where noise_k > 0; elsewhere nothing is drawn
        D <- denoise(y; sigma_k)
        y <- x_k x + D_k D + previous_k D'
        x <- y                                      where the row ends its step

    step: int (m,), the step that a row belongs to. noise: (m + 1,), only before a step's first row;
    the last entry is added to the result. None: no previous, no noise, every row ends a step.
    """

    step: np.ndarray
    sigma: np.ndarray
    x: np.ndarray
    D: np.ndarray
    previous: np.ndarray | None = None
    noise: np.ndarray | None = None
    ends: np.ndarray | None = None


Solver = Callable[[np.ndarray], Table]


def two_stage(
    sigma: np.ndarray,
    predict: tuple[np.ndarray, np.ndarray],
    middle: np.ndarray,
    correct: tuple[np.ndarray, np.ndarray, np.ndarray],
    noise: np.ndarray | None = None,
) -> Table:
    """Steps of two evaluations; of one where the second level is 0, at which no denoiser is asked.

    Args:
      sigma: (n,) levels of the first evaluations. predict: weights (n,) of x and D, to the point of
      the second evaluation or, without one, to the end. middle: (n,) levels of the second ones, >=
      0. correct: weights (n,) of x, of the first D and of the second D, to the end of the step;
      not read where there is none. noise: (n,) standard deviations, before the first evaluations.
    """
    n, twice = len(sigma), middle > 0
    keep = np.stack([np.ones(n, bool), twice], 1)
    pair = lambda first, second: np.stack([first, np.where(twice, second, 0)], 1)[keep]
    zero = np.zeros(n)
    return Table(
        step=np.repeat(np.arange(n), keep.sum(1)),
        sigma=pair(sigma, middle),
        x=pair(predict[0], correct[0]),
        D=pair(predict[1], correct[2]),
        previous=pair(zero, correct[1]),
        noise=None if noise is None else np.append(pair(noise, zero), 0.0),
        ends=pair(~twice, True).astype(bool),
    )


def euler(sigmas: np.ndarray) -> Table:
    """One evaluation, first order: x + (sigma' - sigma) (x - D) / sigma."""
    r = sigmas[1:] / sigmas[:-1]
    return Table(np.arange(len(r)), sigmas[:-1], x=r, D=1 - r)


def heun(sigmas: np.ndarray) -> Table:
    """Euler, then the mean of both ends' slopes, second order; Euler alone to level 0."""
    r = sigmas[1:] / sigmas[:-1]
    with np.errstate(divide="ignore"):
        second = (1 / r - 1) / 2
    return two_stage(sigmas[:-1], (r, 1 - r), sigmas[1:], (r, 1 - r - second, second))

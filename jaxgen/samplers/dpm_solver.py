"""DPM-Solver++ 2M: a two-step method in log-SNR, as ODE or SDE (arXiv:2211.01095, Alg. 2).

With lambda = -ln sigma, steps h = ln(sigma / sigma'), r = sigma' / sigma = exp(-h), and the
denoised images extrapolated from the step before, of size h_before,

    D~ = D + (h / (2 h_before)) (D - D_before)
    ODE:  x' = r x + (1 - r) D~
    SDE:  x' = r^2 x + (1 - r^2) D~ + sigma' sqrt(1 - r^2) n

in images that are not scaled, for which the paper's alpha drops out. The first step and the one to
level 0, which is infinite in lambda, use D itself.
"""

import numpy as np

from jaxgen.samplers.steps import Table


def dpmpp_2m(sigmas: np.ndarray) -> Table:
    """The ODE solver, one evaluation a step, second order."""
    return _table(sigmas, sigmas[1:] / sigmas[:-1])


def dpmpp_2m_sde(sigmas: np.ndarray) -> Table:
    """The SDE solver, one evaluation a step, second order in the moments."""
    r2 = (sigmas[1:] / sigmas[:-1]) ** 2
    noise = np.append(0.0, sigmas[1:] * np.sqrt(1 - r2))
    return _table(sigmas, r2)._replace(noise=noise)


def _table(sigmas: np.ndarray, keep: np.ndarray) -> Table:
    """keep (n,): the weight of x."""
    with np.errstate(divide="ignore"):
        h = -np.diff(np.log(sigmas))
    slope = np.append(0.0, h[1:] / (2 * h[:-1]))
    slope[sigmas[1:] == 0] = 0
    new = 1 - keep
    return Table(np.arange(len(h)), sigmas[:-1], keep, new * (1 + slope), previous=-new * slope)

"""Power-function averages of the weights, EDM2's tracks for post-hoc EMA (arXiv:2312.02696).

The average at time t weights the parameters theta(tau) by tau^gamma (Eq. 120), and is updated by

    theta_hat(t) = beta theta_hat(t - 1) + (1 - beta) theta(t)
    beta = (1 - 1/t)^(gamma + 1)                                                  (Eq. 127)

with t counted in steps of equal size, or images. Its *length* is the profile's standard deviation
relative to the training time:

    sigma_rel = sqrt((gamma + 1) / ((gamma + 2)^2 (gamma + 3)))                   (Eq. 123)
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

LONGEST = 12**-0.5  # sigma_rel of gamma = 0, the plain mean over all of training


def sigma_rel(gamma: float | np.ndarray) -> np.ndarray:
    """The relative length of a power-function profile with exponent `gamma` > -1 (Eq. 123)."""
    g = np.asarray(gamma, np.float64)
    return np.sqrt((g + 1) / ((g + 2) ** 2 * (g + 3)))


def gamma(sigma_rel: float) -> float:
    """The exponent of the profile of relative length `sigma_rel`, 0 < sigma_rel < 12^-1/2.

    The largest real root of g^3 + 7 g^2 + (16 - s^-2) g + (12 - s^-2)  (Eq. 126).

    Raises:
      ValueError: outside of that range.
    """
    s = float(sigma_rel)
    if not 0 < s < LONGEST:
        raise ValueError(
            f"an EMA length (sigma_rel) must lie in (0, {LONGEST:.4f}), got {s}; try 0.05 or 0.1"
        )
    t = s**-2
    roots = np.roots([1.0, 7.0, 16.0 - t, 12.0 - t])
    return float(np.max(roots[np.abs(roots.imag) < 1e-6 * (1 + np.abs(roots.real))].real))


@dataclasses.dataclass(frozen=True)
class Power:
    """A tracked power-function average of relative length `sigma_rel`."""

    sigma_rel: float

    def __post_init__(self):
        gamma(self.sigma_rel)

    @property
    def name(self) -> str:
        """The profile's name in states, snapshots and file names, such as `power_0.050`."""
        return f"power_{self.sigma_rel:.3f}"

    def weight(self, nimg: jax.Array, batch: int) -> jax.Array:
        """1 - beta for the step that ends at `nimg` images: exact also where beta is close to 1.

        Written with log1p and expm1: in float32, (1 - 1/t)^(gamma + 1) loses all digits of 1 - beta
        by t = 10^7.
        """
        return -jnp.expm1((gamma(self.sigma_rel) + 1) * jnp.log1p(-batch / nimg))

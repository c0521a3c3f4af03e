"""The penalty of WGAN-LP: the closed form for linear critics, on both sides of slope 1."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.objectives import gradient_penalty, lipschitz_penalty


def test_slopes_below_one_are_free():
    """For D(x) = s x . e the slope is s: 0 up to 1, then as the penalty of WGAN-GP."""
    x = jnp.ones((3, 2, 2, 1))
    critic = lambda s: lambda x: s * x.sum((1, 2, 3)) / 2  # |e| = 1
    for s, want in ((0.0, 0.0), (0.7, 0.0), (1.0, 0.0), (1.5, 2.5), (3.0, 40.0)):
        of = lambda s: lipschitz_penalty.penalty(critic(s), x)
        np.testing.assert_allclose(of(s), want, atol=1e-5)
        slope = jax.grad(lambda s: of(s).mean())(s)  # noqa: B023
        np.testing.assert_allclose(slope, 20 * max(s - 1, 0), atol=1e-4)
    twice = gradient_penalty.penalty(critic(3.0), x)
    np.testing.assert_allclose(lipschitz_penalty.penalty(critic(3.0), x), twice)

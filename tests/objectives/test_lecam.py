"""LeCam regularisation: where it is 0, which way it pulls, its running means."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.objectives import lecam


def test_it_pulls_logits_towards_the_other_side():
    """It is 0 for real logits below the mean of fake ones and fake ones above that of real ones."""
    real, fake = jnp.array([-2.0, 0.5, 3.0]), jnp.array([2.0, 0.5, -1.0])
    a_real, a_fake = jnp.float32(1.0), jnp.float32(-1.0)
    value = lambda *a: lecam.penalty(*a).sum()
    got, grads = jax.value_and_grad(value, (0, 1, 2, 3))(real, fake, a_real, a_fake)
    np.testing.assert_allclose(got, 1.5**2 + 4**2 + 0.5**2 + 2**2)
    np.testing.assert_allclose(grads[0], [0, 3, 8])
    np.testing.assert_allclose(grads[1], [0, -1, -4])
    assert grads[2] == grads[3] == 0


def test_running_means():
    a = jnp.float32(2.0)
    for _ in range(300):
        a = lecam.track(a, jnp.array([0.0, 1.0]), decay=0.9)
    np.testing.assert_allclose(a, 0.5, rtol=1e-5)
    np.testing.assert_allclose(lecam.track(2.0, jnp.array([0.0, 1.0])), 0.99 * 2 + 0.01 * 0.5)

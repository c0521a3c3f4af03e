"""Total variation: closed forms of a step, its optimum in tomography, operators' norms."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.noise.corruption import Linear
from jaxgen.noise.parallel_beam import ParallelBeam
from jaxgen.samplers import total_variation as tv


@dataclasses.dataclass(frozen=True)
class Identity(Linear):
    """A x = 2 x, to see that the scale is right."""

    def forward(self, x):
        return 2 * x

    def adjoint(self, y):
        return 2 * y

    def start(self, y):
        return y / 2


def test_a_step_loses_height_at_both_sides():
    """Of 3 and 5 columns at 0 and 1: by lam / (4 k) a side, 4 being A^2; the mean stays."""
    y = jnp.zeros((2, 4, 8, 1)).at[:, :, 3:].set(2.0)
    y = y.at[1].multiply(0.5)
    x = np.asarray(jax.jit(lambda y: tv.minimise(Identity(), y, 0.6, 400))(y))[..., 0]
    for image, top in zip(x, (1, 0.5), strict=True):
        want = np.repeat([[0.6 / 12] * 3 + [top - 0.6 / 20] * 5], 4, 0)
        np.testing.assert_allclose(image, want, atol=1e-4)


def test_a_large_weight_leaves_the_mean_and_none_the_image():
    y = jnp.asarray(np.random.default_rng(0).standard_normal((1, 4, 4, 1)), jnp.float32)
    run = jax.jit(lambda lam: tv.minimise(Identity(), y, lam, 800, least=-9.0))
    np.testing.assert_allclose(run(100.0), jnp.full(y.shape, y.mean() / 2), atol=1e-3)
    np.testing.assert_allclose(run(1e-6), y / 2, atol=1e-3)


BEAM = ParallelBeam(16, 6)


@pytest.fixture(scope="module")
def scan():
    """A block, its scan from six views, and two results: 100 and 400 steps."""
    x = -jnp.ones((1, 16, 16, 1)).at[:, 4:11, 5:12].set(-0.5)
    y = BEAM.forward(x)
    run = jax.jit(lambda y, steps: tv.minimise(BEAM, y, 1e-3, steps), static_argnums=1)
    return x, y, run(y, 400)


def test_few_views_of_a_block_are_enough(scan):
    x, y, found = scan
    error = lambda v: float(jnp.sqrt(jnp.square(v - x).mean()))
    assert error(found) < 0.03 < 0.1 < error(BEAM.start(y))
    assert float(found.min()) >= -1


def test_it_is_the_optimum(scan):
    """No small change of the result has less energy by more than rounding."""
    _, y, found = scan
    energy = jax.jit(lambda x: tv.energy(BEAM, x, y, 1e-3)[0])
    least, r = float(energy(found)), np.random.default_rng(0)
    others = [r.standard_normal(found.shape) * 0.01 for _ in range(8)]
    others += [0.02 * (BEAM.start(y) - found), 0.05 * (found.mean() - found)]
    assert all(energy(jnp.maximum(found + d, -1)) > 0.999 * least for d in others)


def test_norms_and_gradients():
    x = jnp.zeros((1, 12, 12, 1))
    turned = jax.linear_transpose(tv.gradient, x)
    square = lambda v: turned(tv.gradient(v))[0]
    size = 8 * np.cos(np.pi / 24) ** 2  # of two axes of 12 pixels
    assert size**0.5 <= float(tv.norm(square, x)) < 1.06 * size**0.5
    volume = jnp.zeros((1, 3, 3, 4)).at[0, 1, 1, 1].set(1.0)
    slopes = tv.gradient(volume, (1, 2, 3))
    np.testing.assert_array_equal(slopes[0, 1, 1, 1], [-1, -1, -1])
    np.testing.assert_array_equal(slopes[0, 1, 1, 0], [0, 0, 1])
    np.testing.assert_array_equal(tv.gradient(jnp.ones((1, 3, 3, 2)), (1, 2, 3)), 0)

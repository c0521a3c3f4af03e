"""Group norm against its definition in float64, and what leaves it unchanged."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.group_norm import GroupNorm


def by_definition(x, w, b, groups, eps):
    x = np.asarray(x, np.float64)
    g = x.reshape(*x.shape[:-1], groups, -1)
    mean, var = (f(g, (1, 2, 4), keepdims=True) for f in (np.mean, np.var))
    return ((g - mean) / np.sqrt(var + eps)).reshape(x.shape) * w + b


@pytest.fixture(scope="module")
def norm():
    f = lambda p, x, scale, shift: GroupNorm(1e-5).apply({"params": p}, x, scale, shift)
    return jax.jit(f)


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def test_definition_scale_and_shift(norm):
    x, p = draw(0, 2, 5, 4, 24) * 3 + 1, {"w": draw(1, 24), "b": draw(2, 24)}
    scale, shift = draw(3, 2, 24), draw(4, 2, 24)
    want = by_definition(x, p["w"], p["b"], 6, 1e-5)
    zero = jnp.zeros((2, 24))
    np.testing.assert_allclose(norm(p, x, zero, zero), want, atol=1e-5)
    want = want * (1 + scale[:, None, None]) + shift[:, None, None]
    np.testing.assert_allclose(norm(p, x, scale, shift), want, atol=2e-5)


def test_a_constant_and_a_factor_do_not_matter(norm):
    x, p, zero = draw(0, 2, 5, 4, 24), {"w": jnp.ones(24), "b": jnp.zeros(24)}, jnp.zeros((2, 24))
    y = norm(p, x, zero, zero)
    np.testing.assert_allclose(norm(p, 10 * x, zero, zero), y, atol=2e-4)
    np.testing.assert_allclose(norm(p, x + 10, zero, zero), y, atol=2e-4)  # mean / deviation = 10
    # A constant image is not divided by zero.
    np.testing.assert_allclose(norm(p, jnp.full_like(x, 7.0), zero, zero), 0, atol=1e-2)


def test_statistics_of_bfloat16_are_float32():
    x, p = (draw(0, 1, 64, 64, 4) + 2).astype(jnp.bfloat16), {"w": jnp.ones(4), "b": jnp.zeros(4)}
    y = GroupNorm(1e-5, jnp.bfloat16).apply({"params": p}, x)
    assert y.dtype == jnp.bfloat16
    want = by_definition(x.astype(jnp.float32), 1, 0, 1, 1e-5)
    np.testing.assert_allclose(y.astype(jnp.float32), want, atol=2e-2)


def test_widths_that_groups_do_not_divide():
    for c in (3, 14, 136):
        with pytest.raises(ValueError, match=f"groups of equal width, got {c} channels"):
            jax.eval_shape(GroupNorm().init, jax.random.key(0), jnp.zeros((1, 2, 2, c)))

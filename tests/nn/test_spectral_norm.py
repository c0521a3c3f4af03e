"""Spectral normalisation: Lipschitz constant 1, scale, when u moves, layers that resample."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import params
from jaxgen.nn.convolution import conv
from jaxgen.nn.resample import down2, up2
from jaxgen.nn.spectral_norm import Conv, Dense, normalised, unit


def test_the_power_method_finds_the_largest_singular_value():
    """So x W / sigma has Lipschitz constant 1; one iteration never overestimates sigma."""
    numbers = np.random.default_rng(0)
    w = jnp.asarray(numbers.standard_normal((3, 3, 4, 6)), jnp.float32)
    u = unit(jnp.asarray(numbers.standard_normal(6), jnp.float32))
    run = jax.jit(normalised, static_argnums=2)
    values = lambda w: np.linalg.svd(np.asarray(w).reshape(-1, 6), compute_uv=False)
    one, moved = run(w, u, 1)
    assert values(one)[0] > 1 and moved.shape == (6,)
    np.testing.assert_allclose(np.linalg.norm(moved), 1, rtol=1e-5)
    many, fixed_point = one, moved
    for _ in range(100):
        many, fixed_point = run(w, fixed_point, 1)
    np.testing.assert_allclose(values(many), values(w) / values(w)[0], rtol=1e-4)
    again, same = run(w, fixed_point, 0)  # reads u and leaves it
    np.testing.assert_allclose(again, many, rtol=1e-4)
    np.testing.assert_array_equal(same, fixed_point)
    np.testing.assert_allclose(run(7 * w, u, 1)[0], one, rtol=1e-4)  # the scale is gone


def test_u_moves_in_training_only():
    """Step after step it converges; a caller without the collection reads it."""
    x, layer = jnp.ones((2, 5)), Dense(4)
    p = params.init(layer, jax.random.key(0), x)
    np.testing.assert_allclose(np.linalg.norm(p["u"]), 1, rtol=1e-5)

    @jax.jit
    def run(p, x):
        out, new = layer.apply({"params": p}, x, mutable=["tracked"])
        grad = jax.grad(lambda p: layer.apply({"params": p}, x).sum())(p)
        return out, new["tracked"], layer.apply({"params": p}, x), grad["u"]

    kept = p["u"]
    for _ in range(60):
        out, new, still, grad = run(p, x)
        assert new.keys() == {"u"} and not grad.any()
        p = {**p, **new}
    assert float(jnp.abs(p["u"] - kept).max()) > 1e-3
    np.testing.assert_allclose(out, still, rtol=1e-4)  # at the fixed point both are the same
    sigma = np.linalg.svd(p["w"], compute_uv=False)[0]
    np.testing.assert_allclose(out, np.asarray(x) @ p["w"] / sigma, rtol=1e-4)
    plain = Dense(4, spectral=False)
    shapes = jax.eval_shape(lambda: plain.init(jax.random.key(0), x))
    assert shapes["params"].keys() == {"w", "b"}


def test_convolutions_that_resample():
    """The same as repeating pixels first, and as the mean of 2x2 pixels afterwards."""
    numbers, taps = np.random.default_rng(0), (1, 1)
    draw = lambda *s: numbers.standard_normal(s).astype(np.float32)

    @jax.jit
    def run(x, p):
        up, down = (
            Conv(5, m, spectral=False).apply({"params": p}, x) - p["b"] for m in ("up", "down")
        )
        return up, conv(up2(x, taps), p["w"]), down, down2(conv(x, p["w"]), taps)

    up, by_hand, down, by_hand_too = run(draw(2, 6, 4, 3), {"w": draw(3, 3, 3, 5), "b": draw(5)})
    np.testing.assert_allclose(up, by_hand, atol=1e-5)
    np.testing.assert_allclose(down, by_hand_too, atol=1e-5)

"""The residual block: what it is at the start, and resampled skips against resampling first."""

import jax
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.networks import adm, ddpmpp
from jaxgen.nn import resample, residual
from jaxgen.nn.layers import Start


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


@pytest.fixture(scope="module")
def x():
    return draw(0, 2, 4, 4, 8)


def test_blocks_of_adm_are_their_skip_at_the_start(x):
    """The last layers start at 0: resampling alone between equal widths, attention included."""
    emb = draw(1, 2, 6)
    for mode, want in (("keep", x), ("up", resample.up2(x, (1, 1)))):
        block = residual.Block(8, adm.STYLE, mode, heads=2)
        p = params.init(block, jax.random.key(2), x, emb, False)
        np.testing.assert_allclose(block.apply({"params": p}, x, emb, False), want, atol=1e-6)
        assert "skip" not in p


def test_blocks_of_ddpmpp_nearly_halve_the_variance_at_the_start(x):
    emb = draw(1, 2, 6)
    block = residual.Block(8, ddpmpp.STYLE, heads=1)
    p = params.init(block, jax.random.key(2), x, emb, False)
    want = x / 2  # 2^-1/2 after the convolutions, and again after attention
    np.testing.assert_allclose(block.apply({"params": p}, x, emb, False), want, atol=1e-3)
    assert {n for n in trees.leaves(p) if n.endswith("b") and "norm" not in n} >= {"emb/b"}
    assert not any(np.any(v) for n, v in trees.leaves(p).items() if n.endswith("/b"))


def test_layers_without_resampling_first(x):
    """The short cuts for upsampling equal upsampling followed by the layer, for both filters."""
    start = Start(*(ddpmpp.START.w,) * 3, uniform_bias=True)
    for taps in ((1, 1), (1, 3, 3, 1)):
        up = resample.up2(x, taps)
        for cls, layer in (
            (residual.Skip, lambda p, up: up @ p["w"] + p["b"]),
            (residual.Conv, lambda p, up: resample.conv(up, p["w"]) + p["b"]),
        ):
            module = cls(5, start, "up", taps)
            p = params.init(module, jax.random.key(3), x)
            assert np.any(p["b"])
            np.testing.assert_allclose(module.apply({"params": p}, x), layer(p, up), atol=1e-5)

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
    blocks = {mode: residual.Block(8, adm.STYLE, mode, heads=2) for mode in ("keep", "up")}
    p = {m: params.init(b, jax.random.key(2), x, emb, False) for m, b in blocks.items()}

    @jax.jit
    def run(p):
        return {m: b.apply({"params": p[m]}, x, emb, False) for m, b in blocks.items()}

    want = {"keep": x, "up": resample.up2(x, (1, 1))}
    for mode, y in run(p).items():
        np.testing.assert_allclose(y, want[mode], atol=1e-6, err_msg=mode)
        assert "skip" not in p[mode]


def test_blocks_of_ddpmpp_nearly_halve_the_variance_at_the_start(x):
    emb = draw(1, 2, 6)
    block = residual.Block(8, ddpmpp.STYLE, heads=1)
    p = params.init(block, jax.random.key(2), x, emb, False)
    want = x / 2  # 2^-1/2 after the convolutions, and again after attention
    y = jax.jit(lambda p: block.apply({"params": p}, x, emb, False))(p)
    np.testing.assert_allclose(y, want, atol=1e-3)
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
            got = jax.jit(module.apply)({"params": p}, x)
            np.testing.assert_allclose(got, layer(p, up), atol=1e-5)

"""Growing: the schedule in closed form, its seams, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.objectives import growing


def test_the_papers_schedule():
    """4x4 for 800k images, then each size 800k to fade in and 800k more (App. A.1)."""
    spans = growing.spans(1024, 20_000_000)
    assert [s.size for s in spans] == [4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert [s.start for s in spans] == [0, *(800_000 * (2 * k + 1) for k in range(8))]
    assert [s.until for s in spans] == [*(s.start for s in spans[1:]), 20_000_000]
    # In closed form: size 4 2^k from k phases of 1.6M images, less the first fade.
    for nimg in range(0, 20_000_000, 123_456):
        k = min((nimg + 800_000) // 1_600_000, 8)
        alpha = min((nimg + 800_000) / 800_000 - 2 * k, 1.0) if k else 1.0
        size, got = growing.at(spans, nimg)
        assert size == 4 << k and got == pytest.approx(alpha, abs=1e-5)


def test_alpha_is_traced_and_stays_in_its_range():
    span = growing.spans(16, 10_000, first=8, fade=1000, stable=500)[1]
    assert span == (16, 500, 10_000, 1000)
    alpha = jax.jit(jax.vmap(span.alpha))(jnp.array([0.0, 500, 750, 1500, 9999]))
    np.testing.assert_allclose(alpha, [0, 0, 0.25, 1, 1])
    first = growing.spans(16, 10_000, first=16)[0]
    assert first == (16, 0, 10_000, 0) and float(first.alpha(0.0)) == 1


def test_the_last_size_has_no_end():
    spans = growing.spans(8, 50, fade=10, stable=10)
    assert growing.at(spans, 9) == (4, 1.0) and growing.at(spans, 10) == (8, 0.0)
    assert growing.at(spans, 1000) == (8, 1.0)


def test_errors():
    with pytest.raises(ValueError, match="resolution must be a power of two, got 28"):
        growing.spans(28, 100)
    with pytest.raises(ValueError, match="first is at most the resolution 8, got 16"):
        growing.spans(8, 100, first=16)
    with pytest.raises(ValueError, match="not both 0, got 0, 0"):
        growing.spans(8, 100, fade=0, stable=0)
    with pytest.raises(ValueError, match=r"from 4 to 16 takes more than 50 images .* got 50"):
        growing.spans(16, 50, fade=10, stable=15)

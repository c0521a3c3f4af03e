"""What a program holds at a time."""

import jax
import jax.numpy as jnp
import pytest

from jaxgen.planning import memory, program

IMAGES = 4


def conv(x, w):
    return jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def held(size, kernel, width=128, **rules):
    """The peak of two convolutions of images, tanh between them, with gradients."""

    def loss(ws, x):
        return jnp.square(conv(jnp.tanh(conv(x, ws[0])), ws[1])).sum()

    struct = jax.ShapeDtypeStruct
    ws = [struct((kernel, kernel, width, width), "bfloat16")] * 2
    x = struct((IMAGES * program.MARK, size, size, width), "bfloat16")
    traced = program.flatten(jax.make_jaxpr(jax.grad(loss))(ws, x))
    how = memory.Rules(memory.padded, lambda v: 1.0, lambda *a: 0.0, gathered=True, **rules)
    return memory.peak(traced, how)


def test_rows_that_are_folded_are_held_in_both_forms():
    """At the peak convolutions' results and tanh lie there: all that they read or write."""
    plain, both = held(64, 3), held(64, 3, folds=True)
    assert both.activations == pytest.approx((1 + 9 / 8) * plain.activations, rel=1e-3)
    assert (both.weights, both.gradients) == (plain.weights, plain.gradients)


@pytest.mark.parametrize("size,kernel", [(8, 3), (64, 1)])
def test_short_rows_and_single_pixels_are_not_folded(size, kernel):
    assert held(size, kernel, folds=True) == held(size, kernel)


def test_a_folded_form_has_a_pixel_more_in_every_piece():
    image = lambda w: program.Value((4, 64, w, 448), jnp.bfloat16, True)
    assert memory.folded(image(64)) == 64 * 32 * 9 * 512 * 2  # bf16[64,32,9,448] in tiles
    assert memory.folded(image(32)) == 64 * 32 * 5 * 512 * 2

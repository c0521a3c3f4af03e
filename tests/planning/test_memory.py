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
    plain, both = held(64, 3), held(64, 3, pieces=8)
    assert both.activations == pytest.approx((1 + 9 / 8) * plain.activations, rel=1e-3)
    assert (both.weights, both.gradients) == (plain.weights, plain.gradients)


@pytest.mark.parametrize("size,kernel", [(8, 3), (64, 1)])
def test_short_rows_and_single_pixels_are_not_folded(size, kernel):
    assert held(size, kernel, pieces=8) == held(size, kernel)


def test_a_folded_form_has_a_pixel_more_in_every_piece():
    image = lambda w: program.Value((4, 64, w, 448), jnp.bfloat16, True)
    assert memory.convolved(image(64), 8) == 64 * 32 * 9 * 512 * 2  # bf16[64,32,9,448] in tiles
    assert memory.convolved(image(32), 8) == 64 * 32 * 5 * 512 * 2


@pytest.mark.parametrize(
    "images, channels, pieces, times",
    [(8, 128, 1, 1), (8, 64, 1, 2), (8, 16, 1, 8), (128, 16, 1, 1), (4, 32, 8, 4), (4, 16, 8, 4)],
)
def test_lanes_hold_channels_or_images(images, channels, pieces, times):
    """As in what the TPU's compiler makes of convolutions of 256 x 256 pixels."""
    value = program.Value((images, 256, 256, channels), jnp.bfloat16, True)
    width = 256 if pieces == 1 else 8 * 33
    assert memory.convolved(value, pieces) == images * 256 * width * channels * 2 * times


def test_channels_fill_lanes_on_a_tpu():
    filled, plain = (held(128, 3, width=64, pieces=n).activations for n in (1, 0))
    assert filled == 2 * plain

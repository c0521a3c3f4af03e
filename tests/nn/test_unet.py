"""The plan of a U-Net: sizes, widths, and a skip for every block that takes one."""

import jax.numpy as jnp
import pytest

from jaxgen.nn import unet


def test_names_sizes_and_widths():
    parts = unet.encoder(16, 8, (8, 24), 1) + unet.decoder(16, (8, 24), 1)
    assert [(p.name, p.size, p.features, p.mode) for p in parts] == [
        ("enc_16_conv", 16, 8, "keep"),
        ("enc_16_block0", 16, 8, "keep"),
        ("enc_8_down", 8, 8, "down"),
        ("enc_8_block0", 8, 24, "keep"),
        ("dec_8_in0", 8, 24, "keep"),
        ("dec_8_in1", 8, 24, "keep"),
        ("dec_8_block0", 8, 24, "keep"),
        ("dec_8_block1", 8, 24, "keep"),
        ("dec_16_up", 16, 24, "up"),
        ("dec_16_block0", 16, 8, "keep"),
        ("dec_16_block1", 16, 8, "keep"),
    ]
    assert [p.name for p in parts if p.last] == ["dec_8_block1", "dec_16_block1"]


@pytest.mark.parametrize("levels, num_blocks", [(1, 1), (3, 4), (4, 3)])
def test_each_skip_is_taken_once_at_its_size(levels, num_blocks):
    widths = list(range(8, 8 * levels + 1, 8))
    skips = [p.size for p in unet.encoder(64, 8, widths, num_blocks)]
    taken = [p.size for p in unet.decoder(64, widths, num_blocks) if p.role == "block"]
    assert skips[::-1] == taken


def test_unsuitable_inputs():
    image = lambda *shape: jnp.zeros(shape)
    with pytest.raises(ValueError, match=r"Net expects images \(b, h, w, 3\), got \(2, 8, 8, 1\)"):
        unet.check("Net", image(2, 8, 8, 1), image(2), 3, 2)
    with pytest.raises(ValueError, match=r"3 resolutions .* divisible by 4, got 8 x 6; shorten"):
        unet.check("Net", image(2, 8, 6, 3), image(2), 3, 3)
    with pytest.raises(ValueError, match=r"one noise level an image, c_noise \(2,\), got \(\)"):
        unet.check("Net", image(2, 8, 8, 3), image(), 3, 2)

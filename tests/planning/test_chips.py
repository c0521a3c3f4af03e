"""Topologies from text, and rows of chips that make sense together."""

import pytest

from jaxgen.planning import chips


@pytest.mark.parametrize(
    "text, slices, count, near",
    [
        ("v5p:8x8x8", 1, 512, 512),
        ("v5e:16x16", 2, 512, 256),
        ("V6E:4x4", 1, 16, 16),
        ("h200:64", 1, 64, 8),
        ("h100:4", 1, 4, 4),
    ],
)
def test_shapes(text, slices, count, near):
    found = chips.parse(text, slices)
    assert (found.chips, found.near) == (count, near)
    assert chips.parse(str(found).split(" ")[0], slices) == found


@pytest.mark.parametrize(
    "text, slices, words",
    [
        ("v5litepod:4x4", 1, "unknown chip 'v5litepod'.*did you mean v5e"),
        ("h20:8", 1, "did you mean h200"),
        ("v5p", 1, "CHIP:SHAPE such as v5p:4x4x4, got 'v5p'; SHAPE is the torus of a slice"),
        ("v5p:4x4", 1, "a slice of v5p has 3 sides, as in v5p:4x4x4, got 4x4"),
        ("v5e:0x4", 1, "CHIP:SHAPE"),
        ("v5e:16x32", 1, "at most 256 chips, got 16x32 = 512; join several with --slices"),
        ("h200:12", 1, "come in nodes of 8, so more than 8 must be a multiple of it, got 12"),
        ("h200:8x8", 1, "takes a number of GPUs, as in h200:64, got 8x8"),
        ("h200:64", 2, "--slices joins TPU slices; for h200 give the number of all GPUs"),
        ("v5e:4x4", 0, "--slices must be 1 or more, got 0"),
    ],
)
def test_errors_say_what_to_write(text, slices, words):
    with pytest.raises(ValueError, match=words):
        chips.parse(text, slices)


def test_device_kinds_have_rows():
    kinds = {"TPU v5 lite": "v5e", "TPU v5": "v5p", "TPU v6 lite": "v6e", "NVIDIA H200": "h200",
             "NVIDIA A100-SXM4-80GB": "a100", "TPU v4": "v4", "cpu": None}  # fmt: skip
    assert {k: chips.match(k) for k in kinds} == kinds


def test_the_table_is_in_its_units():
    """Units slip easily: every chip needs 100 to 700 products for a byte that it reads."""
    for name, chip in chips.CHIPS.items():
        assert 100 < chip.bf16 * 1e12 / (chip.bandwidth * 1e9) < 700, name
        assert chip.outside < chip.link < chip.bandwidth, name
        assert 16 <= chip.hbm <= 192, name

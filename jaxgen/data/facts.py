"""Shapes and labels of published data sets, to plan a run where the data are not at hand."""

from typing import NamedTuple


class Facts(NamedTuple):
    """Of a set's training split. labels: "none", "class" or "vector", of `label_dim`."""

    shape: tuple[int, int, int]
    labels: str
    label_dim: int
    length: int
    dtype: str = "uint8"


# fmt: off
KNOWN = {
    "mnist":                          Facts((28, 28, 1), "class", 10, 60_000),
    "fashion_mnist":                  Facts((28, 28, 1), "class", 10, 60_000),
    "cifar10":                        Facts((32, 32, 3), "class", 10, 50_000),
    "tfds_dir:ffhq64":                Facts((64, 64, 3), "none", 0, 70_000),
    "tfds_dir:afhqv2_64":             Facts((64, 64, 3), "class", 3, 15_803),
    "tfds:imagenet_resized/32x32":    Facts((32, 32, 3), "class", 1000, 1_281_167),
    "tfds:imagenet_resized/64x64":    Facts((64, 64, 3), "class", 1000, 1_281_167),
    "tfds_dir:imagenet256":           Facts((256, 256, 3), "class", 1000, 1_281_167),
    "npz:imagenet512_moments.npz":    Facts((64, 64, 8), "class", 1000, 1_281_167, "float32"),
    "tfds_dir:ffhq256":               Facts((256, 256, 3), "none", 0, 70_000),
    "tfds_dir:ffhq1024":              Facts((1024, 1024, 3), "none", 0, 70_000),
    "tfds_dir:ffhqu256":              Facts((256, 256, 3), "none", 0, 69_471),
    "tfds_dir:ffhqu1024":             Facts((1024, 1024, 3), "none", 0, 69_471),
    "tfds_dir:afhq_cat512":           Facts((512, 512, 3), "none", 0, 5_153),
    "tfds_dir:afhqv2_512":            Facts((512, 512, 3), "class", 3, 15_803),
    "tfds_dir:metfaces1024":          Facts((1024, 1024, 3), "none", 0, 1_336),
}
# fmt: on


def known(spec: str) -> Facts | None:
    """The facts of a source by its spec, options aside; None for sets that are not in the table."""
    return KNOWN.get(spec.partition("?")[0])

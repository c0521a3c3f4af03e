"""Protocols: how libraries compute the numbers that papers quote (arXiv:2104.11222).

The same weights give other distances with another resizer, scaling or normalisation of the
covariance, so a number can be compared only with those of its own protocol. Each entry here says
what one library does, read from its code and checked against its numbers where it could be run.
"""

import dataclasses
import difflib


@dataclasses.dataclass(frozen=True)
class Protocol:
    """What a library does.

    net: the feature net. resizer, scaling: of its inputs (metrics.resize, metrics.nets.SCALINGS).
    ddof: 1: covariances divided by n - 1, 0: by n. What follows is None where the library has no
    such metric. kernel: (subsets, their size) of the kernel distance, whose mean is reported.
    ties: "<=" or "<": whether a point on the border of a neighbourhood is in it. neighbours: k.
    half: features and radii are rounded to float16 for precision and recall. splits: of the
    Inception Score, which reads the logits without the classifier's bias. shuffle: the seed of
    numpy's RandomState that permutes images before they are split, None: their order is kept.
    """

    net: str
    resizer: str
    scaling: str
    ddof: int
    kernel: tuple[int, int] | None = None
    ties: str | None = None
    neighbours: int | None = None
    half: bool = False
    splits: int | None = None
    shuffle: int | None = None


TF = {"net": "inception", "resizer": "tf1-bilinear", "scaling": "(x-128)/128"}
LIKE: dict[str, Protocol] = {
    "pytorch-fid": Protocol("inception", "torch-bilinear", "x/127.5-1", ddof=1),
    "torch-fidelity": Protocol(
        **TF, ddof=1, kernel=(100, 1000), ties="<=", neighbours=3, splits=10, shuffle=2020
    ),
    "clean-fid": Protocol("inception", "pil-bicubic", "(x-128)/128", ddof=1, kernel=(100, 1000)),
    "stylegan3": Protocol(
        **TF, ddof=0, kernel=(100, 1000), ties="<=", neighbours=3, half=True, splits=10
    ),
    "edm2": Protocol(**TF, ddof=1),
    "edm2-dinov2": Protocol("dinov2-vitl14", "bicubic-antialias", "imagenet mean and std", ddof=1),
}


def find(name: str) -> Protocol:
    """The protocol of that name. Raises ValueError with the nearest name."""
    if name not in LIKE:
        near = difflib.get_close_matches(name, LIKE, 1, cutoff=0.0)[0]
        raise ValueError(
            f"there is no protocol {name!r}; did you mean {near!r}? The names are {list(LIKE)}"
        )
    return LIKE[name]

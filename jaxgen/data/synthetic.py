"""Mixtures in the plane, as "images" of shape (1, 1, 2) float32, for fast checks of models.

Values are not scaled to 0..255. The centres of ring and grid have variance 1/4 a coordinate (the
sigma_data = 0.5 that EDM assumes); a Gaussian of standard deviation `std` is added.
"""

import numpy as np

from jaxgen.data.source import ArraySource, Source

NAMES = ("ring", "grid", "spiral")


def modes(name: str) -> np.ndarray:
    """Centres (k, 2) of the mixture: ring (k=8) or grid (k=25)."""
    if name == "ring":
        angle = 2 * np.pi * np.arange(8) / 8
        return np.sqrt(0.5) * np.stack([np.cos(angle), np.sin(angle)], -1)
    if name == "grid":
        axis = np.sqrt(0.125) * np.arange(-2, 3)
        return np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2)
    raise ValueError(f"the mixtures with modes are ring and grid, got {name!r}")


def load(where: str, split: str, *, num: int = 50_000, std: float = 0.02, seed: int = 0) -> Source:
    """`num` points of ring, grid or spiral; the label is the mode (8, 25) or the arm (2).

    spiral: two arms, r = sqrt(u) with u uniform in [0, 1], angle = 3 pi r (+ pi for the second).
    Train and test are different draws.
    """
    if where not in NAMES:
        raise ValueError(f"mixture2d has {', '.join(NAMES)}; got {where!r}")
    if num < 1 or std < 0:
        raise ValueError(f"mixture2d needs num >= 1 and std >= 0, got {num} and {std}")
    rng = np.random.default_rng([seed, split == "test"])
    if where == "spiral":
        dim = 2
        label = rng.integers(dim, size=num)
        r = np.sqrt(rng.random(num))
        angle = 3 * np.pi * r + np.pi * label
        centre = r[:, None] * np.stack([np.cos(angle), np.sin(angle)], -1)
    else:
        dim = len(modes(where))
        label = rng.integers(dim, size=num)
        centre = modes(where)[label]
    x = (centre + std * rng.standard_normal((num, 2))).astype(np.float32)
    name = f"mixture2d_{where}"
    return ArraySource(x[:, None, None], label, name=name, split=split, label_dim=dim)

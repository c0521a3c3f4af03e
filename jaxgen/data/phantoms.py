"""Phantoms of tomography: the Shepp-Logan head, and random ellipses in a body, 2-D or 3-D.

A phantom is a sum of ellipses on [-1, 1]^2 (x to the right, y up), 0 outside of the unit disc and
clipped to [0, 1]; a pixel is the mean over 4 x 4 places in it. Image i depends on (seed, split, i).
In 3-D the slices are channels, voxels are cubes and the middle of the volume is at z = 0.
"""

import numpy as np

from jaxgen.data.source import Item, Source

# Shepp and Logan, doi:10.1109/TNS.1974.6499235: grey level, then grey level of the variant
# with more contrast (P. Toft, The Radon Transform, 1996), semi-axes a, b, centre x, y, angle.
SHEPP_LOGAN = np.array([
    (2.00, 1.0, 0.6900, 0.920, 0.00, 0.0000, 0),
    (-0.98, -0.8, 0.6624, 0.874, 0.00, -0.0184, 0),
    (-0.02, -0.2, 0.1100, 0.310, 0.22, 0.0000, -18),
    (-0.02, -0.2, 0.1600, 0.410, -0.22, 0.0000, 18),
    (0.01, 0.1, 0.2100, 0.250, 0.00, 0.3500, 0),
    (0.01, 0.1, 0.0460, 0.046, 0.00, 0.1000, 0),
    (0.01, 0.1, 0.0460, 0.046, 0.00, -0.1000, 0),
    (0.01, 0.1, 0.0460, 0.023, -0.08, -0.6050, 0),
    (0.01, 0.1, 0.0230, 0.023, 0.00, -0.6060, 0),
    (0.01, 0.1, 0.0230, 0.046, 0.06, -0.6050, 0),
])  # fmt: skip
KINDS = ("ellipses", "shepp-logan", "shepp-logan-original")
GOLDEN = np.pi * (3 - np.sqrt(5))  # turn between a Shepp-Logan phantom and the next
SUB = 4


def shepp_logan(modified: bool = True, turn: float = 0.0) -> np.ndarray:
    """Ellipses (10, 6): value, a, b, x, y, angle in radians; turned counter-clockwise by `turn`.

    modified: the grey levels with more contrast; else the paper's, halved to fit into [0, 1].
    """
    grey, contrast, a, b, x, y, angle = SHEPP_LOGAN.T
    cos, sin = np.cos(turn), np.sin(turn)
    value = contrast if modified else grey / 2
    return np.stack([value, a, b, x * cos - y * sin, x * sin + y * cos, np.radians(angle) + turn]).T


def random_ellipses(rng: np.random.Generator, depth: float = 0.0) -> np.ndarray:
    """Ellipses (k, 6) as of `shepp_logan`, or ellipsoids (k, 8) with z and semi-axis c.

    A body and 6 to 12 parts in it, denser or thinner than it is.

    Args:
      depth: of the volume in half-widths; 0 is 2-D.
    """
    k = int(rng.integers(6, 13))
    a, b = rng.uniform(0.6, 0.85, 2)
    body = [rng.uniform(0.3, 0.5), a, b, *rng.uniform(-0.05, 0.05, 2), rng.uniform(0, np.pi)]
    size = rng.uniform(0.05, 0.3, (k, 2))
    r, phi = np.sqrt(rng.random(k)) * 0.5 * min(a, b), rng.uniform(0, 2 * np.pi, k)
    value = rng.uniform(0.08, 0.4, k) * rng.choice([-1, 1], k)
    parts = [value, *size.T, r * np.cos(phi), r * np.sin(phi), rng.uniform(0, np.pi, k)]
    found = np.concatenate([[body], np.stack(parts, 1)])
    if not depth:
        return found
    z = np.append(0, rng.uniform(-depth / 2, depth / 2, k))
    c = np.append(rng.uniform(0.6, 1) * max(depth, 1), rng.uniform(0.08, 0.3, k))
    return np.concatenate([found, z[:, None], c[:, None]], 1)


def draw(ellipses: np.ndarray, size: int, depth: int = 0) -> np.ndarray:
    """Images (size, size, 1) or volumes (size, size, depth) in [0, 1], float64.

    Args:
      ellipses: (k, 6), or (k, 8) for volumes.
    """
    n = SUB * size
    at = (np.arange(n) - (n - 1) / 2) * 2 / n
    x, y = at[:, None], -at[:, None, None]
    z = (np.arange(depth or 1) - ((depth or 1) - 1) / 2) * 2 / size
    total = np.zeros((n, n, len(z)))
    for value, a, b, x0, y0, angle, *rest in ellipses:
        z0, c = rest or (0.0, 1.0)
        cos, sin = np.cos(angle), np.sin(angle)
        u, v = (x - x0) * cos + (y - y0) * sin, (y - y0) * cos - (x - x0) * sin
        total += value * ((u / a) ** 2 + (v / b) ** 2 + ((z - z0) / c) ** 2 <= 1)
    total *= x**2 + y**2 <= 1
    return np.clip(total, 0, 1).reshape(size, SUB, size, SUB, len(z)).mean((1, 3))


class Phantoms(Source):
    """Images made when they are asked for."""

    def __init__(self, kind: str, split: str, size: int, depth: int, num: int, seed: int):
        super().__init__(name=f"phantoms_{kind}", shape=(size, size, depth or 1), split=split)
        self.kind, self.size, self.depth, self.num, self.seed = kind, size, depth, num, seed

    def __len__(self) -> int:
        return self.num

    def __getitem__(self, i: int) -> Item:
        image = draw(self.ellipses(i), self.size, self.depth)
        return {"image": np.rint(255 * image).astype(np.uint8)}

    def ellipses(self, i: int) -> np.ndarray:
        """The ellipses that image i is drawn from."""
        if not 0 <= i < self.num:
            raise IndexError(f"phantoms are 0..{self.num - 1}, got {i}")
        if self.kind == "ellipses":
            rng = np.random.default_rng([self.seed, self.split == "test", i])
            return random_ellipses(rng, 2 * self.depth / self.size)
        turn = (i + (self.split == "test") * self.num) * GOLDEN
        return shepp_logan(self.kind == "shepp-logan", turn)


def load(
    split: str,
    *,
    size: int = 64,
    depth: int = 0,
    kind: str = "ellipses",
    num: int = 1000,
    seed: int = 0,
) -> Source:
    """`num` phantoms (size, size, 1), or (size, size, depth) for depth > 0; a tenth as test split.

    kind: ellipses; shepp-logan, each turned by the golden angle from the one before, the first of
    the training split upright; shepp-logan-original, with the low contrast of the paper.

    Raises:
      ValueError: for an unknown kind, sizes or numbers below 1, a Shepp-Logan volume.
    """
    if kind not in KINDS:
        raise ValueError(f"phantoms are of kind {', '.join(KINDS)}; got {kind!r}")
    if size < 1 or depth < 0 or num < 1:
        raise ValueError(
            f"phantoms need size >= 1, depth >= 0 and num >= 1, got {size}, {depth} and {num}"
        )
    if depth and kind != "ellipses":
        raise ValueError(f"{kind} is an image here; volumes (depth > 0) are of kind ellipses")
    count = num if split == "train" else max(1, num // 10)
    return Phantoms(kind, split, size, depth, count, seed)

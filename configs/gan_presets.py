"""The published settings of GANs, one row a run; configs/gan_published.py reads them.

StyleGAN2: arXiv:1912.04958, Table 1 and App. B. ADA: arXiv:2006.06676, App. C; StyleGAN3:
arXiv:2106.12423, App. F; both with the release of StyleGAN3, which lists them. R3GAN:
arXiv:2501.05441. `halflife` is of the average, in images; `g_params` and `d_params` (millions) are
published or printed by the released programs, None where neither is known to us;
tests/configs/test_gan_presets.py compares them with ours.
"""

from typing import NamedTuple


class StyleGAN2Row(NamedTuple):
    """A configuration of the StyleGAN2 paper, for FFHQ at 1024x1024."""

    network: str
    g_arch: str
    d_arch: str
    base: int
    gamma: float
    lr: float
    r1_every: int
    path_every: int
    growing: int
    g_params: float | None
    d_params: float | None


class ADARow(NamedTuple):
    """A run of the ADA paper. batch and the rest of "auto" follow the resolution: see `auto`."""

    source: str
    size: int
    mapping: int
    base: int
    gamma: float
    batch: int
    lr: float
    group: int
    halflife: int
    rampup: float
    images: str
    mirror: bool


class StyleGAN3Row(NamedTuple):
    """A run of the StyleGAN3 paper; `augment` says whether with ADA."""

    source: str
    base: int
    gamma_t: float
    gamma_r: float
    batch: int
    d_lr: float
    augment: bool


class R3GANRow(NamedTuple):
    """A run of the R3GAN paper: values at the start, and where a cosine schedule takes them."""

    source: str
    widths: tuple[int, ...]
    cardinality: tuple[int, ...]
    gamma: tuple[float, float]
    p: float
    batch: int
    halflife: int
    decay: str


# fmt: off
# 25M images in batches of 32. B to D grow in the paper, here they have their full size at once; the
# rate of A to D is that of the largest size, lower ones before it are not kept.
STYLEGAN2 = {
    #                   network      generator discr.    base   gamma   rate  r1 path grow G      D
    "a": StyleGAN2Row("stylegan",  "",       "",       16384,  10.0, 0.003,  1, 0, 8, 26.2,  None),
    "b": StyleGAN2Row("stylegan2", "orig",   "orig",   16384,  10.0, 0.003,  1, 0, 0, None,  None),
    "c": StyleGAN2Row("stylegan2", "orig",   "orig",   16384,  10.0, 0.003, 16, 0, 0, None,  None),
    "d": StyleGAN2Row("stylegan2", "orig",   "orig",   16384,  10.0, 0.003, 16, 4, 0, None,  None),
    "e": StyleGAN2Row("stylegan2", "skip",   "resnet", 16384, 100.0, 0.002, 16, 4, 0, None,  None),
    "f": StyleGAN2Row("stylegan2", "skip",   "resnet", 32768,  10.0, 0.002, 16, 4, 0, 30.37, 29.01),
}

ADA = {
    #                       source            size  map base gamma batch rate group half-life ramp images mirror  # noqa: E501
    "cifar10":      ADARow("cifar10",                32, 2, 32768, 0.01, 64, 0.0025, 32, 500_000, 0.05, "100M", False),  # noqa: E501
    "ffhq256":      ADARow("tfds_dir:ffhq256",      256, 8, 16384, 1.00, 64, 0.0025,  8, 20_000,  0.00, "25M",  True),  # noqa: E501
    "afhq512":      ADARow("tfds_dir:afhq_cat512",  512, 8, 32768, 0.50, 64, 0.0025,  8, 20_000,  0.00, "25M",  True),  # noqa: E501
    "metfaces1024": ADARow("tfds_dir:metfaces1024", 1024, 8, 32768, 2.00, 32, 0.0020, 4, 10_000,  0.00, "25M",  True),  # noqa: E501
}

STYLEGAN3 = {  # 25M images; R has twice the channels of `base`
    #                     source              base   gamma T  R  batch d_lr     ADA
    256:  StyleGAN3Row("tfds_dir:ffhqu256",   16384,  1.0,  1.0, 64, 0.0025, False),
    512:  StyleGAN3Row("tfds_dir:afhqv2_512", 32768,  8.2, 16.4, 32, 0.0020, True),
    1024: StyleGAN3Row("tfds_dir:ffhqu1024",  32768, 32.8, 32.8, 32, 0.0020, False),
}

FFHQ = (768,) * 4 + (384,), (96,) * 4 + (48,)
R3GAN = {  # learning rates 2e-4 to 5e-5, b2 0.9 to 0.99
    #                       source                         widths       groups      gamma          p   batch half-life decay  # noqa: E501
    "cifar10":    R3GANRow("cifar10",                     (768,) * 4,  (96,) * 4, (0.05, 0.005), 0.55,  512, 5_000_000,  "20M"),  # noqa: E501
    "ffhq64":     R3GANRow("tfds_dir:ffhq64",              *FFHQ,                 (2.00, 0.200), 0.30,  256, 500_000, "20M"),  # noqa: E501
    "imagenet32": R3GANRow("tfds:imagenet_resized/32x32", (1536,) * 4, (96,) * 4, (0.50, 0.050), 0.50, 4096, 50_000_000, "200M"),  # noqa: E501
    "imagenet64": R3GANRow("tfds:imagenet_resized/64x64", (1536,) * 5, (96,) * 5, (1.00, 0.100), 0.40, 4096, 50_000_000, "200M"),  # noqa: E501
}
# fmt: on


def auto(size: int, batch: int) -> ADARow:
    """ADA's "auto" for other data: most follows from the resolution.

    Args:
      size: side of the images. batch: see `auto_batch`.
    """
    return ADARow(
        source="folder:photos",
        size=size,
        mapping=2,
        base=32768 if size >= 512 else 16384,
        gamma=0.0002 * size**2 / batch,
        batch=batch,
        lr=0.002 if size >= 1024 else 0.0025,
        group=4,
        halflife=batch * 10_000 // 32,
        rampup=0.05,
        images="25M",
        mirror=False,
    )


def auto_batch(size: int) -> int:
    """The batch that "auto" has with eight devices: 64 up to 512x512, 32 at 1024x1024."""
    return min(8 * min(4096 // size, 32), 64)

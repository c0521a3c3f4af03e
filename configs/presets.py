"""The published settings of EDM and EDM2, one row a model; configs/published.py reads them.

EDM: arXiv:2206.00364, Table 7 and App. F; "imagenet256" is ADM's own, arXiv:2105.05233, Table 11.
EDM2: arXiv:2312.02696, Tables 4 and 6. `params`
(millions) and `gflops` (one evaluation of the network, a multiplication and addition counted once)
are the published numbers, None where the paper gives none; tests/configs/test_presets.py compares
them with ours.
"""

from typing import NamedTuple


class EDMRow(NamedTuple):
    """A data set of the EDM paper; VP and VE networks (ddpmpp, ncsnpp), or ADM."""

    source: str
    size: int
    network: str
    channels: int
    mult: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    batch: int
    lr: float
    images: str
    dropout: float
    augment: float
    halflife: int
    steps: int
    params: float | None
    gflops: float | None


class EDM2Row(NamedTuple):
    """A size of EDM2. `ema` and `ema_guided`: the lengths with the best published FID."""

    channels: int
    dropout: float
    ref_lr: float
    images: str
    ema: float
    ema_guided: float | None
    guidance: float | None
    fid: float
    params: float
    gflops: float


# fmt: off
EDM = {
    #                    source                       size  network   ch   mult          blocks  attention     batch  lr    images   drop  aug   halflife   steps params gflops  # noqa: E501
    "cifar10":    EDMRow("cifar10",                    32, "song",   128, (2, 2, 2),    4,      (16,),         512, 1e-3,  "200M", 0.13, 0.12, 500_000,  18,  56,   None),  # noqa: E501
    "ffhq64":     EDMRow("tfds_dir:ffhq64",            64, "song",   128, (1, 2, 2, 2), 4,      (16,),         256, 2e-4,  "200M", 0.05, 0.15, 500_000,  40,  62,   None),  # noqa: E501
    "afhqv2_64":  EDMRow("tfds_dir:afhqv2_64",         64, "song",   128, (1, 2, 2, 2), 4,      (16,),         256, 2e-4,  "200M", 0.25, 0.15, 500_000,  40,  62,   None),  # noqa: E501
    "imagenet64": EDMRow("tfds:imagenet_resized/64x64", 64, "adm",   192, (1, 2, 3, 4), 3,      (32, 16, 8),  4096, 1e-4, "2500M", 0.10, 0.00, 50_000_000, 256,  296,  110.4),  # noqa: E501
    "imagenet256": EDMRow("tfds_dir:imagenet256",     256, "adm",    256, (1, 1, 2, 2, 4, 4), 2, (32, 16, 8), 256, 1e-4, "507M", 0.00, 0.00, 1_774_000, 250,  554,  None),  # noqa: E501
}

EDM2_512 = {  # latents 64 x 64 x 4, P_mean -0.4, P_std 1.0, learning rate falls from 70000 batches
    #             channels  dropout  ref_lr   images  ema    guided  w     fid   params  gflops
    "xs":  EDM2Row(128,     0.00,    0.0120,  "2048Mi", 0.135, 0.045,  1.4,  3.53,  125,   46),
    "s":   EDM2Row(192,     0.00,    0.0100,  "2048Mi", 0.130, 0.025,  1.4,  2.56,  280,  102),
    "m":   EDM2Row(256,     0.10,    0.0090,  "2048Mi", 0.100, 0.030,  1.2,  2.25,  498,  181),
    "l":   EDM2Row(320,     0.10,    0.0080,  "1792Mi", 0.085, 0.015,  1.2,  2.06,  777,  282),
    "xl":  EDM2Row(384,     0.10,    0.0070,  "1280Mi", 0.085, 0.020,  1.2,  1.96, 1119,  406),
    "xxl": EDM2Row(448,     0.10,    0.0065,  "896Mi" , 0.070, 0.015,  1.2,  1.91, 1523,  552),
}

EDM2_64 = {  # pixels 64 x 64 x 3, P_mean -0.8, P_std 1.6, learning rate falls from 35000 batches
    #             channels  dropout  ref_lr   images  ema    guided  w     fid   params  gflops
    "s":   EDM2Row(192,     0.00,    0.0100,  "1024Mi", 0.075, None,   None, 1.58,  280,  102),
    "m":   EDM2Row(256,     0.10,    0.0090,  "2048Mi", 0.060, None,   None, 1.43,  498,  181),
    "l":   EDM2Row(320,     0.10,    0.0080,  "1024Mi", 0.040, None,   None, 1.33,  777,  282),
    "xl":  EDM2Row(384,     0.10,    0.0070,  "640Mi" , 0.040, None,   None, 1.33, 1119,  406),
}
# fmt: on

"""R3GAN on CIFAR-10, FFHQ at 64x64, ImageNet at 32x32 and 64x64.

Claim: FID 1.96 on CIFAR-10, 1.95 on FFHQ-64, 1.27 and 2.09 on ImageNet-32 and -64
(arXiv:2501.05441).
Run: jaxgen train --config configs/r3gan/paper.py:ffhq64 --workdir runs/r3gan-ffhq64
Expected: not run here.
Arguments: cifar10, ffhq64, imagenet32 or imagenet64; uncond; debug.
"""

import ml_collections

from configs import gan_published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return gan_published.r3gan(arg)

"""StyleGAN2 with adaptive augmentation: the paper's data sets, or your own images with "auto".

Claim: FID 2.42 on CIFAR-10 with classes, 3.55 on AFHQ Cat; FFHQ of 1k images 21.3 in place of 100
(arXiv:2006.06676).
Run: jaxgen train --config configs/ada/paper.py:auto,size=128 --workdir runs/mine
         --config.data.source=folder:photos
Expected: not run here.
Arguments: cifar10, ffhq256, afhq512, metfaces1024 or auto; size (of auto, 256); noaug; debug.
"""

import ml_collections

from configs import gan_published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return gan_published.ada(arg)

"""StyleGAN3-T and -R at 256x256 (FFHQ-U), 512x512 (AFHQv2) and 1024x1024 (FFHQ-U).

Claim: FID 4.62 (T) and 4.50 (R) on FFHQ-U at 256, 3.67 and 3.66 at 1024, 4.04 and 4.40 on AFHQv2
(arXiv:2106.12423).
Run: jaxgen train --config configs/stylegan3/paper.py:r,size=512 --workdir runs/afhqv2
Expected: not run here; the paper used 8 V100 for six to eight days at 1024.
Arguments: t or r; size (256, 512, 1024); debug.
"""

import ml_collections

from configs import gan_published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return gan_published.stylegan3(arg)

"""StyleGAN2 on FFHQ at 1024x1024, configurations A (StyleGAN) to F of the paper's Table 1.

Claim: FID 4.40 (A), 4.39, 4.38, 4.34, 3.31 (E), 2.84 (F) on FFHQ (arXiv:1912.04958).
Run: jaxgen train --config configs/stylegan2/ffhq1024.py --workdir runs/ffhq1024
Expected: not run here; the paper used 8 V100 for nine days (F). B to D grow in the paper, not here.
Arguments: f, e, d, c, b or a (the configuration); debug.
"""

import ml_collections

from configs import gan_published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return gan_published.stylegan2(arg)

"""EDM2 on ImageNet at 64 x 64 at the paper's size, S to XL.

Claim: FID 1.58 (S), 1.43 (M), 1.33 (L, XL) with 63 evaluations (arXiv:2312.02696, Table 3).
Run: jaxgen train --config configs/edm2/imagenet64.py:s --workdir runs/imagenet64
Expected: not run here; the paper used 32 A100.
Arguments: s, m, l or xl; uncond (as a guide), debug.
"""

import ml_collections

from configs import presets, published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = published.edm2(arg, presets.EDM2_64, latents=False)
    c.data.source = "tfds:imagenet_resized/64x64"
    return c

"""EDM2 on ImageNet at 512 x 512, in the latents of an autoencoder, at the paper's size, XS to XXL.

Claim: FID 3.53 (XS), 2.56 (S), 2.25 (M), 2.06 (L), 1.96 (XL), 1.91 (XXL) without guidance
(arXiv:2312.02696, Table 2).
Run: jaxgen train --config configs/edm2/imagenet512.py:s --workdir runs/imagenet512
Expected: not run here. The data are means and deviations of latents, (64, 64, 8) float32 an image;
the autoencoder that makes and decodes them is not part of jaxgen yet.
Arguments: xs, s, m, l, xl or xxl; uncond (as a guide), debug.
"""

import ml_collections

from configs import presets, published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = published.edm2(arg, presets.EDM2_512, latents=True)
    c.data.source = "npz:imagenet512_moments.npz?dtype=float32"
    return c

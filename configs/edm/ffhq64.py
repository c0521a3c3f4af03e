"""EDM on FFHQ at 64 x 64 at the paper's size, VP or VE network, no classes.

Claim: FID 2.39 (VP) and 2.53 (VE) (arXiv:2206.00364).
Run: jaxgen train --config configs/edm/ffhq64.py --workdir runs/ffhq64
Expected: not run here; the paper used 8 V100 for four days.
Arguments: vp or ve (DDPM++ or NCSN++), width (base channels, the paper's 128), debug.
"""

import ml_collections

from configs import published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return published.edm(arg, "ffhq64", net=("vp", "ve"))

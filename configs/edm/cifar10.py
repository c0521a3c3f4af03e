"""EDM on CIFAR-10 at the paper's size, VP or VE network, with classes or without.

Claim: FID 1.79 with classes (VP and VE), 1.97 (VP) and 1.98 (VE) without (arXiv:2206.00364).
Run: jaxgen train --config configs/edm/cifar10.py --workdir runs/cifar10
Expected: not run here; the paper used 8 V100 for two days.
Arguments: vp or ve (DDPM++ or NCSN++), uncond, width (base channels, the paper's 128), debug.
"""

import ml_collections

from configs import published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return published.edm(arg, "cifar10", net=("vp", "ve"), uncond=False)

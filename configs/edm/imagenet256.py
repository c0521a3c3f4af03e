"""ADM on ImageNet at 256 x 256 at the paper's size, with classes, in the training of EDM.

Claim: FID 10.94 without and 4.59 with guidance by a classifier (arXiv:2105.05233, Table 5), there
with a linear schedule of 1000 levels and learned variances. Here the network has EDM's
preconditioning and noise levels.
Run: jaxgen train --config configs/edm/imagenet256.py --workdir runs/imagenet256
Expected: not run here; the paper took 914 V100 days.
Arguments: width (base channels, the paper's 256), debug.
"""

import ml_collections

from configs import published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return published.edm(arg, "imagenet256")

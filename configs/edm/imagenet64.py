"""EDM on ImageNet at 64 x 64 at the paper's size: the ADM network, with classes.

Claim: FID 1.36 with the stochastic sampler below, 511 evaluations (arXiv:2206.00364, Table 5).
Run: jaxgen train --config configs/edm/imagenet64.py --workdir runs/imagenet64
Expected: not run here; the paper used 32 A100 for thirteen days.
Arguments: width (base channels, the paper's 192), debug.
"""

import ml_collections

from configs import published


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = published.edm(arg, "imagenet64")
    churn = 40 * c.sampler.steps / 256  # 40 of 256 steps; in proportion at debug size
    c.sampler.update(
        {"solver": "edm", "S_churn": churn, "S_min": 0.05, "S_max": 50.0, "S_noise": 1.003}
    )
    return c

"""EDM2 on Fashion-MNIST, 28x28, class-conditional: the digits config at another size.

Claim: the plan of the digits runs unchanged at 28x28; clothes are recognisable after a short run.
Run: jaxgen train --config configs/edm2/fashion_mnist.py --workdir runs/fashion
Expected: a run of 24k images only gives frechet@fashion-classifier 15.6 (600 samples; real 2.0).
Arguments: debug.
"""

import ml_collections

from configs import common
from configs.edm2 import digits


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = digits.get_config(arg)
    c.data.source = "fashion_mnist"
    c.loss.sigma_data = 0.7
    if not common.parse_arg(arg).debug:
        c.images = "400k"
        c.batch = 64
        c.log_every = "4k"
        c.checkpoint_every = "20k"
        c.model.channel_mult = (1, 2, 2)
        c.model.attn_resolutions = (7,)
    return c

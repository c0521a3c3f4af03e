"""StyleGAN2 on Fashion-MNIST (28x28, padded to 32x32 for the networks), class-conditional.

Claim: the same plan as on digits learns clothes.
Run: jaxgen train --config configs/stylegan2/fashion_mnist.py --workdir runs/gan-fashion
Expected: not measured; a run of 3k images only shows that the plan runs at this size.
Arguments: debug.
"""

import ml_collections

from configs import common
from configs.stylegan2 import digits


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = digits.get_config(arg)
    c.data.source = "fashion_mnist"
    if not common.parse_arg(arg).debug:
        c.images = "500k"
        c.log_every = "5k"
        c.generator.mapping_layers = c.discriminator.mapping_layers = 4
        c.generator.channel_base = c.discriminator.channel_base = 1024
        c.loss.r1_gamma = 1.0
    return c

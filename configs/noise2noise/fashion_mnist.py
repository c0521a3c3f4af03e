"""Noise2Noise on Fashion-MNIST (28x28): Gaussian noise of sigma 10 to 50 grey levels.

Claim: trained without a clean target, the restorer comes close to the one trained with clean
targets (`:clean`), and far above the noisy input.
Run: jaxgen train --config configs/noise2noise/fashion_mnist.py --workdir runs/n2n-fashion
Expected: a run of 6k images only gives 20.7 dB from 20.2 dB at sigma 25 (EMA 0.10, 200 images).
Arguments: debug, clean.
"""

import ml_collections

from configs import common
from configs.noise2noise import digits


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    c = digits.get_config(arg)
    c.data.source = "fashion_mnist"
    if not common.parse_arg(arg, clean=False).debug:
        c.log_every = "5k"
        c.model.depth = 3
    return c

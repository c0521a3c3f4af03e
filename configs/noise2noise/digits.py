"""Noise2Noise on the 8x8 digits of scikit-learn: Gaussian noise, sigma 10 to 50 grey levels.

Claim: trained without a clean target, the restorer comes close to the one trained with clean
targets (`:clean`), and far above the noisy input.
Run: jaxgen train --config configs/noise2noise/digits.py --workdir runs/n2n-digits
Expected: at sigma 25 of 255, 20.2 dB in and 24.5 dB out after 100k images.
Arguments: debug, clean.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, clean=False)
    c = common.base("denoise", "digits")
    c.images = "100k"
    c.batch = 64
    c.log_every = "10k"
    c.checkpoint_every = "50k"
    c.snapshot_every = "25k"

    c.data.crop = 0  # train on random squares of as many pixels; 0: whole images

    c.model = ml_collections.ConfigDict()
    c.model.network = "n2n_unet"
    c.model.features = 32  # channels of the encoder; the decoder has twice as many
    c.model.depth = 2  # poolings
    c.model.last_features = (48, 32)

    c.noise = ml_collections.ConfigDict()
    c.noise.name = "gaussian"
    c.noise.sigma = (10.0, 50.0)  # grey levels of 0..255, drawn for each image
    c.noise.level_eval = 25.0  # of sampling and evaluation

    c.loss = ml_collections.ConfigDict()
    c.loss.method = "noise2clean" if args.clean else "noise2noise"
    c.loss.norm = "l2"

    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.lr = 1e-3
    c.optimizer.rampup = 0.0  # the first part of the run, over which the rate rises from 0
    c.optimizer.rampdown = 0.3  # the last part of the run, over which the rate falls to 0
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.99
    if args.debug:
        common.debug(c)
        c.model.features = 4
        c.model.last_features = (4, 4)
    return c

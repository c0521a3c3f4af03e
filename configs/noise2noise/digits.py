"""Noise2Noise on the 8x8 digits of scikit-learn: Gaussian noise, sigma 10 to 50 grey levels.

Claim: trained without a clean target, the restorer comes close to the one trained with clean
targets (`:clean`), and far above the noisy input.
Run: jaxgen train --config configs/noise2noise/digits.py --workdir runs/n2n-digits
Expected: at sigma 25 of 255, 20.2 dB in and 24.5 dB out after 100k images.
Arguments: debug, clean.
"""

import ml_collections

from configs import common, denoisers


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, clean=False)
    c = denoisers.base("digits", "noise2clean" if args.clean else "noise2noise")
    c.images = "100k"
    c.batch = 64
    c.log_every = "10k"
    c.checkpoint_every = "50k"
    c.snapshot_every = "25k"
    c.model.features = 32  # channels of the encoder; the decoder has twice as many
    c.model.depth = 2  # poolings
    c.model.last_features = (48, 32)
    if args.debug:
        common.debug(c)
        c.model.features = 4
        c.model.last_features = (4, 4)
    return c

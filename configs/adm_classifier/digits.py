"""A classifier of noisy 8x8 digits, to guide a score network of the digits.

Claim: its gradient moves samples of a network without labels to the class that is asked for.
Run: jaxgen train --config configs/adm_classifier/digits.py --workdir runs/digits_classifier
Arguments: debug.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg)
    c = common.base("adm_classifier", "digits")
    c.images = "50k"
    c.batch = 128
    c.log_every = "5k"
    c.checkpoint_every = "25k"
    c.snapshot_every = "10k"

    c.model = ml_collections.ConfigDict()
    c.model.model_channels = 16
    c.model.channel_mult = (1, 2)
    c.model.num_blocks = 1
    c.model.attn_resolutions = (4,)
    c.model.channels_per_head = 16
    c.model.dropout = 0.1

    c.precond = ml_collections.ConfigDict({"name": "edm", "sigma_data": 0.75})
    c.loss = ml_collections.ConfigDict({"levels": "lognormal", "P_mean": -0.4, "P_std": 1.0})
    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.lr = 2e-3
    c.optimizer.rampup_images = "5k"
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.99
    if args.debug:
        common.debug(c)
        c.model.model_channels = 8
        c.model.channels_per_head = 8
    return c

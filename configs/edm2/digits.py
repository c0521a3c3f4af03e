"""EDM2 on the 8x8 digits that ship with scikit-learn, class-conditional.

Claim: the whole main job (score network, snapshots, EMA length chosen afterwards, samples, metrics)
runs in minutes on two CPU cores.
Run: jaxgen train --config configs/edm2/digits.py --workdir runs/digits
Expected: frechet@digits-classifier about 0.6 (597 samples; real test images 0.44, noise 30).
Arguments: debug.
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg)
    c = common.base("edm2", "digits")
    c.images = "100k"
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
    c.model.dropout = 0.0
    c.model.uncertainty_features = 64

    c.loss = ml_collections.ConfigDict()
    c.loss.P_mean = -0.4
    c.loss.P_std = 1.0
    c.loss.label_dropout = 0.0  # share of images without their label, for classifier-free guidance
    c.loss.sigma_data = 0.75  # measured: strokes on black have a larger spread than photographs

    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.ref_lr = 0.02
    c.optimizer.ref_images = "40k"  # the learning rate falls as 1/sqrt(images) from here
    c.optimizer.rampup_images = "5k"
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.99

    c.sampler = common.sampler(steps=18)
    if args.debug:
        common.debug(c)
        c.model.model_channels = 8
        c.model.channels_per_head = 8
        c.model.uncertainty_features = 8
        c.sampler.steps = 3
    return c

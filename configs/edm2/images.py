"""EDM2 on your own images, 32x32 to 64x64, with or without classes; made for one GPU.

Claim: a starting point for a folder or a tfds set, after EDM2 at 64x64 (arXiv:2312.02696) with a
narrower network.
Run: jaxgen train --config configs/edm2/images.py:width=64 --workdir runs/mine
         --config.data.source=folder:photos
Arguments: width (base channels), blocks (per resolution), debug.
"""

import ml_collections

from configs import common
from configs.edm2 import digits


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, width=64, blocks=2)
    c = digits.get_config("debug" if args.debug else "")
    c.data.source = "folder:photos"
    c.data.hflip = True
    c.loss.P_mean, c.loss.P_std, c.loss.sigma_data = -0.8, 1.6, 0.5
    c.features = "pixels"
    c.model.remat = False  # True computes blocks again in the backward pass, to save memory
    if not args.debug:
        c.images = "20M"
        c.batch = 256
        c.log_every = "50k"
        c.checkpoint_every = "1M"
        c.snapshot_every = "500k"
        c.sample_every = "500k"
        c.model.model_channels = args.width
        c.model.num_blocks = args.blocks
        c.model.channel_mult = (1, 2, 3, 4)
        c.model.attn_resolutions = (16, 8)
        c.model.channels_per_head = 64
        c.optimizer.ref_lr = 0.01
        c.optimizer.ref_images = "5M"
        c.optimizer.rampup_images = "500k"
    return c

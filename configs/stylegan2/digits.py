"""StyleGAN2 on the 8x8 digits that ship with scikit-learn, class-conditional.

Claim: a plan of two players with a lazy regulariser learns digits in minutes on two cores.
Run: jaxgen train --config configs/stylegan2/digits.py --workdir runs/gan-digits
Expected: frechet@digits-classifier about 1.5 with seed 0 (real test images 0.44, noise 30). Labels
make GANs of little data collapse within classes (arXiv:2201.06578): with 120 images a class, seed
1 does, at 6.9. --config.data.labels=False trains without them.
Arguments: debug.
"""

import ml_collections

from configs import common, gans


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg)
    c = gans.base("digits", "stylegan2")
    c.images = "150k"
    c.batch = 32
    c.log_every = "10k"
    c.checkpoint_every = "50k"
    c.snapshot_every = "25k"

    c.generator.z_dim = 64
    c.generator.w_dim = 64
    c.generator.mapping_layers = 2
    c.generator.channel_base = 256  # channels of a block of size r: min(base // r, max)
    c.generator.channel_max = 64
    c.generator.use_noise = True

    c.discriminator.mapping_layers = 2
    c.discriminator.channel_base = 256
    c.discriminator.channel_max = 64
    c.discriminator.group_size = 8  # of the minibatch standard deviation

    c.loss.r1_gamma = 0.1
    c.loss.r1_every = 16
    c.loss.path_batch_shrink = 1

    c.optimizer.g_lr = 0.0025
    c.optimizer.d_lr = 0.0025
    if args.debug:
        common.debug(c)
        c.generator.z_dim = c.generator.w_dim = 8
        c.generator.channel_max = c.discriminator.channel_max = 8
        c.discriminator.group_size = 4
        c.loss.r1_every = 2
        c.loss.path_every = 4
    return c

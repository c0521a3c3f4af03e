"""Every key of a GAN's run (recipe gan), with its neutral value."""

import ml_collections

from configs import common


def base(source: str, generator: str, discriminator: str = "") -> ml_collections.ConfigDict:
    """A run of two networks of jaxgen/networks on data `source`; one name means both.

    Their arguments, and the learning rates, are still to be set.
    """
    c = common.base("gan", source)
    c.averages.rampup = 0.05  # the half-life is at most this share of the images seen; 0: no ramp
    c.generator = ml_collections.ConfigDict({"network": generator})
    c.discriminator = ml_collections.ConfigDict({"network": discriminator or generator})

    c.loss = ml_collections.ConfigDict()
    # nonsaturating, minimax, hinge, least_squares, wasserstein or relativistic
    c.loss.name = "nonsaturating"
    c.loss.d_steps = 1  # updates of the discriminator for one of the generator
    c.loss.r1_gamma = 0.0
    c.loss.r2_gamma = 0.0
    c.loss.r1_every = 0  # steps; 1 adds R1 and R2 to the main phase, 0 leaves them out
    c.loss.gp_weight = 0.0  # of the gradient penalty of WGAN-GP
    c.loss.epsilon_drift = 0.0  # of wasserstein
    c.loss.path_weight = 2.0
    c.loss.path_decay = 0.01
    c.loss.path_every = 0  # updates of the generator; 1: in its main phase, 0: none
    c.loss.path_batch_shrink = 2  # the share of the batch that path length is measured on is 1 / 2
    c.loss.style_mixing = 0.0  # probability
    c.loss.w_avg_decay = 0.995
    c.loss.orthogonal_weight = 0.0
    c.loss.blur_sigma = 0.0  # pixels, at the start
    c.loss.blur_images = "200k"  # until it is 0

    c.augment = ml_collections.ConfigDict()
    c.augment.kind = "none"  # ada, diffaugment
    c.augment.p = 0.0  # of ada: fixed, or where it starts
    c.augment.target = 0.0  # of the mean sign of real logits, which p follows; 0: p is fixed
    c.augment.images = "500k"  # in which p could go from 0 to 1
    c.augment.recipe = "bgc"  # of ada
    c.augment.multipliers = ml_collections.ConfigDict()  # transform: multiplier of p, else 1
    c.augment.policy = ("color", "translation", "cutout")  # of diffaugment

    c.growing = ml_collections.ConfigDict()
    c.growing.first = 0  # size of the first stage, 4 or 8; 0: networks do not grow
    c.growing.fade = "800k"  # images in which a size fades in
    c.growing.stable = "800k"  # and images for which it then stays
    c.growing.keep_optimizer = True  # False: Adam begins afresh with every stage

    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.g_lr = 0.002
    c.optimizer.d_lr = 0.002
    c.optimizer.b1 = 0.0
    c.optimizer.b2 = 0.99
    c.optimizer.eps = 1e-8

    c.cosine = ml_collections.ConfigDict()  # values at the end of cosine schedules
    c.cosine.images = "0"  # their length; 0: nothing moves. The half-life rises from 0
    c.cosine.g_lr = 0.002
    c.cosine.d_lr = 0.002
    c.cosine.b2 = 0.99
    c.cosine.r1_gamma = 0.0
    c.cosine.r2_gamma = 0.0
    c.cosine.p = 0.0

    c.sampler = ml_collections.ConfigDict()
    c.sampler.psi = 1.0  # truncation of styles
    c.sampler.cutoff = 0  # layers that are truncated; 0: all
    c.sampler.z_max = 0.0  # truncation of latents without styles; 0: none
    return c

"""The keys of a denoiser (recipe `denoise`), at the values of Noise2Noise on small images."""

import ml_collections

from configs import common


def base(source: str, method: str = "noise2noise") -> ml_collections.ConfigDict:
    """A run of `method` on data `source`, with Gaussian noise of 10 to 50 grey levels."""
    c = common.base("denoise", source)
    c.data.labels = False
    c.data.crop = 0  # train on random squares of as many pixels; 0: whole images

    c.model = ml_collections.ConfigDict()  # network, and arguments of its class
    c.model.network = "n2n_unet"  # or blindspot; jaxgen/recipes/denoise_setup.py has all

    c.noise = ml_collections.ConfigDict()  # name and settings of jaxgen/noise/operators.py
    c.noise.name = "gaussian"
    c.noise.sigma = (10.0, 50.0)  # grey levels of 0..255; of a range, each image draws its own
    c.noise.level_eval = 25.0  # of sampling and evaluation

    c.loss = ml_collections.ConfigDict()
    c.loss.method = method  # a name of recipes.denoise_methods.METHODS
    # Of noise2noise and noise2clean:
    c.loss.norm = "l2"  # l1, l0 (annealed), or hdr for radiance
    c.loss.tonemap = False  # the network sees tone-mapped radiance
    c.loss.pairs = False  # the same two corruptions of an image whenever it comes
    # Of noise2void: one masked pixel a box, replaced from within the radius.
    c.loss.box = 8
    c.loss.radius = 2
    # Of noise2self: every n-th pixel is masked; the invariant function restores, n^2 times slower.
    c.loss.grid = 4
    c.loss.invariant = False
    # Of blindspot:
    c.loss.covariance = "full"  # diagonal, or none: the mean alone
    c.loss.parameter = "known"  # of the noise; or learned: global, per_image
    c.loss.reflect = True  # restoring pads by reflection (training pads with zeros in any case)

    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.lr = 1e-3
    c.optimizer.noise_lr = 1.0  # of the learned parameter of the noise, times lr
    c.optimizer.rampup = 0.0  # the first part of the run, over which the rate rises from 0
    c.optimizer.rampdown = 0.3  # the last part of the run, over which the rate falls to 0
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.99
    return c


def noise(c: ml_collections.ConfigDict, name: str, level_eval: float, **settings: object) -> None:
    """Another noise in the place of the config's."""
    c.noise = ml_collections.ConfigDict({"name": name, **settings, "level_eval": level_eval})

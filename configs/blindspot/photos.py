"""Blind-spot denoising of photographs in grey: Gaussian, Poisson or impulse noise, known or not.

Claim: trained on single noisy photographs, with the posterior mean the restorer is nearly as good
as with clean targets, whether the noise's parameter is known or learned.
Run: jaxgen train --config configs/blindspot/photos.py:bsd400 --workdir runs/blindspot
Expected: not run at the paper's size; experiments/blindspot-posterior has the small one.
Arguments: debug, small; photos (of installed packages) or bsd400 (below JAXGEN_DATA); gaussian,
poisson or impulse; known, global or per_image (the noise's parameter); full, diagonal or none
(covariance; none is the mean alone); blindspot, or another method with the network's plain twin.
"""

import ml_collections

from configs import common, denoisers

SOURCES = {"photos": "photos?grey=1", "bsd400": "bsd400"}
NOISES = {"gaussian": ("sigma", 25.0), "poisson": ("lam", 30.0), "impulse": ("alpha", 0.5)}
METHODS = ("blindspot", "noise2noise", "noise2clean", "noise2void", "noise2self")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(
        arg,
        small=False,
        data=tuple(SOURCES),
        noise=tuple(NOISES),
        method=METHODS,
        parameter=("known", "global", "per_image"),
        covariance=("full", "diagonal", "none"),
    )
    c = denoisers.base(SOURCES[args.data], args.method)
    name, level = NOISES[args.noise]
    denoisers.noise(c, args.noise, level, **{name: level})
    c.loss.parameter = args.parameter
    c.loss.covariance = args.covariance
    c.data.crop = 128
    c.images = "2M"  # the paper's number of its crops, which have 256 x 256 pixels
    c.batch = 4
    c.model.network = "blindspot"
    c.model.blind = args.method == "blindspot"
    c.model.features = (48, 96)  # channels of encoder and decoder
    c.model.depth = 5
    c.optimizer.lr = 3e-4
    c.optimizer.rampup = 0.1
    if args.small:
        c.data.crop = 48
        c.images = "2400"
        c.log_every = "500"
        c.checkpoint_every = "2400"
        c.snapshot_every = "1200"
        c.model.features = (12, 24)
        c.model.depth = 3
        c.optimizer.lr = 4e-3
        c.optimizer.noise_lr = 20.0  # not enough yet for sigma to arrive
    if args.debug:
        common.debug(c)
        c.data.crop = 16
        c.model.features = (4, 6)
        c.model.depth = 2
    return c

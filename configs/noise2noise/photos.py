"""Noise2Noise on photographs: Gaussian, Poisson and Bernoulli noise, text, in grey.

Claim: trained on pairs of corrupted photographs, the restorer is as good as the one trained with
clean targets (`:clean`), for noise whose mean is the image, and for text whose median nearly is.
Run: jaxgen train --config configs/noise2noise/photos.py:bsd400 --workdir runs/n2n-photos
Expected: `:small,bsd400` on Set12 at sigma 25, 20.3 dB in and 28.0 dB out (`:clean` 27.9);
one seed, not run at the paper's size.
Arguments: debug, small, clean; photos (of installed packages) or bsd400 (below JAXGEN_DATA);
gaussian, poisson, bernoulli or text.
"""

import ml_collections

from configs import common, denoisers

SOURCES = {"photos": "photos?grey=1", "bsd400": "bsd400"}
NOISES = {  # levels of training and of the test, as the paper has them
    "gaussian": (25.0, {"sigma": (0.0, 50.0)}),
    "poisson": (30.0, {"lam": (5.0, 50.0)}),
    "bernoulli": (0.5, {"p": (0.05, 1.0)}),
    "text": (0.25, {"p": (0.0, 0.5)}),
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, clean=False, small=False, data=tuple(SOURCES), noise=tuple(NOISES))
    c = denoisers.base(SOURCES[args.data], "noise2clean" if args.clean else "noise2noise")
    level, settings = NOISES[args.noise]
    denoisers.noise(c, args.noise, level, **settings)
    c.loss.norm = "l1" if args.noise == "text" else "l2"
    c.data.crop = 128
    c.images = "1200k"  # the authors' number of crops, which have 256 x 256 pixels
    c.batch = 4
    c.log_every = "50k"
    c.checkpoint_every = "100k"
    c.snapshot_every = "100k"
    c.optimizer.lr = 3e-4
    c.model.features = 48
    c.model.depth = 5
    c.model.last_features = (64, 32)
    if args.small:
        c.data.crop = 64
        c.images = "4k"
        c.log_every = "1k"
        c.checkpoint_every = "4k"
        c.snapshot_every = "1k"
        c.optimizer.lr = 2e-3
        c.model.features = 16
        c.model.depth = 2
        c.model.last_features = (24, 16)
    if args.debug:
        common.debug(c)
        c.data.crop = 16
        c.model.features = 4
        c.model.depth = 2
        c.model.last_features = (4, 4)
    return c

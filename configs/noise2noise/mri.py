"""Noise2Noise on randomly sampled spectra, as of MRI: a tenth of the frequencies is measured.

Claim: trained on pairs of images of randomly undersampled spectra, the restorer is as good as the
one trained with clean targets (`:clean`).
Run: jaxgen train --config configs/noise2noise/mri.py --workdir runs/n2n-mri
Expected: not run at this size; experiments/noise2noise-mri has the small one.
Arguments: debug, small, clean; phantoms (random ellipses, 64x64), bsd400 (below JAXGEN_DATA) or
photos (of installed packages).
"""

import ml_collections

from configs import common, denoisers

SOURCES = {
    "phantoms": ("phantoms", 0),  # and the size of crops
    "bsd400": ("bsd400", 64),
    "photos": ("photos?grey=1", 64),
}


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, clean=False, small=False, data=tuple(SOURCES))
    source, crop = SOURCES[args.data]
    c = denoisers.base(source, "noise2clean" if args.clean else "noise2noise")
    denoisers.noise(c, "fourier", 0.1, rate=0.1)
    c.data.crop = crop
    c.images = "1200k"
    c.batch = 16
    c.optimizer.lr = 1e-3
    c.model.features = 48
    c.model.depth = 5
    c.model.last_features = (64, 32)
    if args.small:
        c.images = "8k"
        c.batch = 8
        c.log_every = "1k"
        c.checkpoint_every = "8k"
        c.snapshot_every = "4k"
        c.model.features = 16
        c.model.depth = 4
        c.model.last_features = (24, 16)
    if args.debug:
        common.debug(c)
        c.data.crop = 16
        c.model.features = 4
        c.model.depth = 2
        c.model.last_features = (4, 4)
    return c

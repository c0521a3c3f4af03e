"""Parallel-beam tomography of random ellipses (64x64), from noisy projections only.

Claim: trained on held-out noisy projections through a simulator, without a reference, a network
beats filtered back-projection by far and comes close to a supervised one (`:supervised`).
Run: jaxgen train --config configs/tomography/phantoms.py --workdir runs/ct
Expected: not run at this length; experiments/ct-self-supervised has shorter runs: on a noisy scan
  28.6 dB, 8 above back-projection and 0.7 below a supervised network.
Arguments: debug, simulator, noise2inverse, supervised.
"""

import ml_collections

from configs import common

METHODS = ("simulator", "noise2inverse", "supervised")


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, method=METHODS)
    c = common.base("tomography", "phantoms?size=64&num=2000")
    c.images = "20k"
    c.batch = 16
    c.log_every = "1k"
    c.checkpoint_every = "10k"
    c.snapshot_every = "5k"

    c.model = ml_collections.ConfigDict()
    c.model.network = "n2n_unet"
    c.model.features = 24  # channels of the encoder; the decoder has twice as many
    c.model.depth = 3  # poolings
    c.model.last_features = (32, 16)

    c.noise = ml_collections.ConfigDict()  # settings of jaxgen/noise/parallel_beam.py
    c.noise.name = "parallel_beam"
    c.noise.angles = 32
    c.noise.photons = 1000.0  # that enter a ray
    c.noise.density = 2.0  # attenuation of white on the way of a half-width
    c.noise.sigma = 0.0
    c.noise.window = "ram-lak"  # of the filter in the poor reconstruction

    c.loss = ml_collections.ConfigDict()
    c.loss.method = args.method
    c.loss.parts = 4  # one of so many views is held out
    c.loss.sharpen = True  # ramp-filtered squares of projections, simulator only

    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.lr = 1e-3
    c.optimizer.rampup = 0.0
    c.optimizer.rampdown = 0.3  # the last part of the run, over which the rate falls to 0
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.99
    if args.debug:
        common.debug(c)
        c.data.source = "phantoms?size=16&num=64"
        c.model.features = 4
        c.model.depth = 2
        c.model.last_features = (4, 4)
        c.noise.angles = 8
    return c

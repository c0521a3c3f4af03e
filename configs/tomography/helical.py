"""Helical cone-beam tomography of random ellipsoids (32x32, 16 slices), from projections only.

Claim: what configs/tomography/phantoms.py claims, for volumes.
Run: jaxgen train --config configs/tomography/helical.py --workdir runs/helical
Expected: not run at this length; experiments/ct-self-supervised has shorter runs, which fall short.
Arguments: debug, simulator, noise2inverse, supervised.
"""

import ml_collections

from configs import common
from configs.tomography import phantoms


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, method=phantoms.METHODS)
    c = phantoms.get_config(arg)
    c.data.source = "phantoms?size=32&depth=16&num=200"
    c.images = "2k"
    c.batch = 2
    c.log_every = "100"
    c.checkpoint_every = "1k"
    c.snapshot_every = "500"

    c.model = ml_collections.ConfigDict()
    c.model.network = "unet3d"
    c.model.features = 12  # of the first level
    c.model.depth = 2  # poolings

    c.noise = ml_collections.ConfigDict()  # settings of jaxgen/noise/helical.py
    c.noise.name = "helical"
    c.noise.turn = 32  # views a turn
    c.noise.pitch = 0.5  # travel a turn, in half-widths
    c.noise.radius = 3.0  # of the helix, in half-widths
    c.noise.photons = 1000.0
    c.noise.density = 2.0
    c.noise.sigma = 0.0
    c.noise.window = "ram-lak"
    if args.debug:
        common.debug(c)
        c.batch = 8
        c.data.source = "phantoms?size=8&depth=4&num=32"
        c.model.features = 2
        c.model.depth = 1
        c.noise.turn = 8
        c.noise.pitch = 1.0
    return c

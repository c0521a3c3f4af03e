"""Noise2Void on photographs in grey: Gaussian, Poisson or impulse noise of one level.

Claim: a network learns to restore from single noisy photographs by predicting masked pixels, less
well than from pairs of them.
Run: jaxgen train --config configs/noise2void/photos.py:bsd400 --workdir runs/noise2void
Expected: not run at full size; experiments/blindspot-posterior has the small one.
Arguments: debug, and those of configs/blindspot/photos.py: small, photos, bsd400, ...
"""

import ml_collections

from configs.blindspot import photos


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return photos.get_config(f"noise2void,{arg}")

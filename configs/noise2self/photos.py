"""Noise2Self on photographs in grey: Gaussian, Poisson or impulse noise of one level.

Claim: a network that predicts every 16th pixel from the others learns to restore from single noisy
photographs.
Run: jaxgen train --config configs/noise2self/photos.py:bsd400 --workdir runs/noise2self
Expected: not run at full size; experiments/blindspot-posterior has the small one.
Arguments: debug, and those of configs/blindspot/photos.py: small, photos, bsd400, ...
"""

import ml_collections

from configs.blindspot import photos


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    return photos.get_config(f"noise2self,{arg}")

"""The lineage of GANs, one by its name, on the 8x8 digits that ship with scikit-learn.

Claim: eleven years of generators through one recipe, from the first GAN to R3GAN.
Run: jaxgen train --config configs/gan/digits.py:stylegan2 --workdir runs/digits-stylegan2
Expected: not measured for most; configs/stylegan2/digits.py has a measured one.
Arguments: mlp, dcgan, pggan, stylegan, stylegan2, stylegan3, r3gan, biggan; debug.
"""

import ml_collections

from configs import common, lineage


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, member=lineage.MEMBERS)
    return lineage.run("digits", 8, args.member, args.debug)

"""The lineage of GANs, one by its name, on Fashion-MNIST (28x28, padded to 32x32).

Claim: for equal images seen, each step of the lineage is a gain in distance, precision or recall.
Run: jaxgen train --config configs/gan/fashion_mnist.py:r3gan --workdir runs/fashion-r3gan
Expected: not measured at this length; experiments/gan-2014-to-r3gan has "small", minutes on a CPU.
Arguments: mlp, dcgan, pggan, stylegan, stylegan2, stylegan3, r3gan, biggan; small; debug.
"""

import ml_collections

from configs import common, lineage


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(arg, member=lineage.MEMBERS, small=False)
    return lineage.run("fashion_mnist", 32, args.member, args.debug, args.small)

"""EDM on the 8x8 digits: DDPM++, NCSN++ or ADM under any preconditioning, class-conditional.

Claim: the networks, preconditionings and losses of EDM train in minutes on two CPU cores.
Run: jaxgen train --config configs/edm/digits.py:ddpmpp --workdir runs/edm_digits
Arguments: debug; ddpmpp, ncsnpp or adm; edm, vp, ve or iddpm (preconditioning and loss); vp_loss
(levels and weight of VP's training whatever the preconditioning).
"""

import ml_collections

from configs import common


def get_config(arg: str = "") -> ml_collections.ConfigDict:
    args = common.parse_arg(
        arg,
        network=("ddpmpp", "ncsnpp", "adm"),
        precond=("edm", "vp", "ve", "iddpm"),
        vp_loss=False,
    )
    loss = "vp" if args.vp_loss else args.precond
    c = common.base("edm", "digits")
    c.images = "100k"
    c.batch = 128
    c.log_every = "5k"
    c.checkpoint_every = "25k"
    c.snapshot_every = "10k"
    c.averages.halflife = "5k"

    c.model = ml_collections.ConfigDict()
    c.model.network = args.network
    c.model.model_channels = 16
    c.model.channel_mult = (1, 2)
    c.model.num_blocks = 1
    c.model.attn_resolutions = (4,)
    c.model.dropout = 0.0
    if args.network == "adm":
        c.model.channels_per_head = 16

    c.precond = ml_collections.ConfigDict({"name": args.precond})
    c.loss = ml_collections.ConfigDict()
    c.loss.levels = "lognormal" if loss == "edm" else loss
    c.loss.weight = "edm" if loss == "edm" else "noise"
    c.loss.label_dropout = 0.0  # share of images without their label, for classifier-free guidance
    sigma_data = 0.75  # measured, see configs/edm2/digits.py
    if args.precond == "edm":
        c.precond.sigma_data = sigma_data
    if loss == "edm":
        c.loss.update(sigma_data=sigma_data, P_mean=-1.2, P_std=1.2)
    c.augment = ml_collections.ConfigDict({"p": 0.0})  # EDM's augmentation, told to the network

    c.optimizer = ml_collections.ConfigDict()
    c.optimizer.lr = 2e-3
    c.optimizer.rampup_images = "5k"
    c.optimizer.b1 = 0.9
    c.optimizer.b2 = 0.999
    c.optimizer.eps = 1e-8

    c.sampler = common.sampler(steps=18)
    if args.precond == "iddpm":
        c.sampler.sigma_min = 0.0065  # the lowest level of its table is 0.00642
    if args.precond == "ve":
        c.sampler.sigma_min = 0.02
    if args.debug:
        common.debug(c)
        c.model.model_channels = 8
        c.sampler.steps = 3
        if args.network == "adm":
            c.model.channels_per_head = 8
    return c

"""Runs at the size of the papers, made from the rows of configs/presets.py."""

import ml_collections

from configs import common, presets
from configs.edm import digits as edm_digits
from configs.edm2 import digits as edm2_digits


def edm(arg: str, data: str, **choices: bool | tuple[str, ...]) -> ml_collections.ConfigDict:
    """A row of EDM's table; `choices` are further arguments (ve, uncond) of the config."""
    args = common.parse_arg(arg, width=0, **choices)
    row = presets.EDM[data]
    adm, full = row.network == "adm", not args.debug
    c = edm_digits.get_config("debug" if args.debug else "")
    c.data.source = row.source
    c.data.labels = not args.get("uncond", data in ("ffhq64", "afhqv2_64"))
    c.features = "pixels"
    c.model.network = "adm" if adm else "ncsnpp" if args.get("net") == "ve" else "ddpmpp"
    c.model.attn_resolutions = row.attention
    c.model.dropout = row.dropout if full else 0.1
    c.model.remat = False  # True computes blocks again in the backward pass, to save memory
    if adm:
        c.model.channels_per_head = 64 if full else 8
    c.precond.sigma_data = c.loss.sigma_data = 0.5
    c.augment.p = row.augment
    c.averages.power = ()
    c.averages.halflife = str(row.halflife)
    c.average = f"halflife_{row.halflife:g}"
    c.optimizer.lr = row.lr
    c.optimizer.rampup_images = "10M"
    if full:
        c.images = row.images
        c.batch = row.batch
        c.log_every = "50k"
        c.checkpoint_every = "5M"
        c.snapshot_every = "2.5M"
        c.model.model_channels = args.width or row.channels
        c.model.channel_mult = row.mult
        c.model.num_blocks = row.blocks
        c.sampler.steps = row.steps
    return c


def edm2(arg: str, table: dict[str, presets.EDM2Row], latents: bool) -> ml_collections.ConfigDict:
    """A size of EDM2; `uncond` trains without labels, to be a guide."""
    args = common.parse_arg(arg, size=tuple(table), uncond=False)
    row, full = table[args.size], not args.debug
    c = edm2_digits.get_config("debug" if args.debug else "")
    c.data.labels = not args.uncond
    c.data.latents = latents
    c.features = "pixels"
    c.model.dropout = row.dropout
    c.model.remat = False  # True computes blocks again in the backward pass, to save memory
    c.loss.sigma_data = 0.5
    c.loss.P_mean, c.loss.P_std = (-0.4, 1.0) if latents else (-0.8, 1.6)
    c.average = str(row.ema)
    if full:
        c.images = row.images
        c.batch = 2048
        c.log_every = "512ki"
        c.checkpoint_every = "16Mi"
        c.snapshot_every = "8Mi"
        c.snapshot_dtype = "float16"
        c.model.model_channels = row.channels
        c.model.channel_mult = (1, 2, 3, 4)
        c.model.num_blocks = 3
        c.model.attn_resolutions = (16, 8)
        c.model.channels_per_head = 64
        c.model.uncertainty_features = 128
        c.optimizer.ref_lr = row.ref_lr
        c.optimizer.ref_images = str((70_000 if latents else 35_000) * c.batch)
        c.optimizer.rampup_images = "10M"
        c.sampler.steps = 32
    return c

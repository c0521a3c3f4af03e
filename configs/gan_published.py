"""GANs at the size of the papers, made from the rows of configs/gan_presets.py."""

import ml_collections

from configs import common, gan_presets, gans

CLAMP, HALF_BLOCKS = 256.0, 4  # of networks in half precision


def _run(source: str, networks: tuple[str, ...], debug: bool) -> ml_collections.ConfigDict:
    c = gans.base(source, *networks)
    c.images = "25M"
    c.log_every = "50k"
    c.checkpoint_every = "1M"
    c.snapshot_every = "500k"
    c.features = "pixels"
    if debug:
        common.debug(c)
    return c


def _styles(c: ml_collections.ConfigDict, mapping: int, base: int, debug: bool) -> None:
    """Widths of two networks with styles."""
    for part in (c.generator, c.discriminator):
        part.channel_base, part.channel_max = (64, 8) if debug else (base, 512)
    c.generator.z_dim = c.generator.w_dim = 8 if debug else 512
    c.generator.mapping_layers = 2 if debug else mapping


def _half(part: ml_collections.ConfigDict) -> None:
    part.half_blocks, part.clamp = HALF_BLOCKS, CLAMP


def _average(c: ml_collections.ConfigDict, halflife: int, rampup: float) -> None:
    """The paper's average, beside the two that others are rebuilt from."""
    c.averages.halflife, c.averages.rampup = str(halflife), rampup
    c.average = f"halflife_{halflife:g}"


def stylegan2(arg: str) -> ml_collections.ConfigDict:
    """A configuration of the StyleGAN2 paper on FFHQ at 1024x1024."""
    args = common.parse_arg(arg, config=("f", "e", "d", "c", "b", "a"))
    row = gan_presets.STYLEGAN2[args.config]
    c = _run("tfds_dir:ffhq1024", (row.network,), args.debug)
    c.data.hflip = True
    _styles(c, 8, row.base, args.debug)
    _average(c, 10_000, 0.0)
    c.discriminator.group_size = 4
    if row.network == "stylegan2":
        c.generator.architecture, c.discriminator.architecture = row.g_arch, row.d_arch
    c.loss.update(r1_gamma=row.gamma, r1_every=row.r1_every, path_every=row.path_every)
    c.loss.style_mixing = 0.9
    c.growing.update(first=row.growing, fade="16" if args.debug else "600k")
    c.growing.stable = "16" if args.debug else "600k"
    c.optimizer.g_lr = c.optimizer.d_lr = row.lr
    if not args.debug:
        c.batch = 32
    return c


def ada(arg: str) -> ml_collections.ConfigDict:
    """A run of the ADA paper, or "auto" for images of any size."""
    args = common.parse_arg(arg, data=(*gan_presets.ADA, "auto"), size=256, noaug=False)
    if args.data == "auto":
        row = gan_presets.auto(args.size, gan_presets.auto_batch(args.size))
    else:
        row = gan_presets.ADA[args.data]
    cifar = args.data == "cifar10"
    c = _run(row.source, ("stylegan2",), args.debug)
    c.data.hflip = row.mirror
    c.data.labels = cifar
    _styles(c, row.mapping, row.base, args.debug)
    _average(c, row.halflife, row.rampup)
    _half(c.generator)
    _half(c.discriminator)
    c.discriminator.architecture = "orig" if cifar else "resnet"
    c.discriminator.group_size = 4 if args.debug else row.group
    c.loss.update(r1_gamma=row.gamma, r1_every=16)
    if not cifar:
        c.loss.update(path_every=4, style_mixing=0.9)
    if not args.noaug:
        c.augment.update(kind="ada", target=0.6, recipe="bgc")
    c.optimizer.g_lr = c.optimizer.d_lr = row.lr
    if not args.debug:
        c.images, c.batch = row.images, row.batch
    return c


def stylegan3(arg: str) -> ml_collections.ConfigDict:
    """A run of the StyleGAN3 paper: T or R, at 256, 512 or 1024."""
    args = common.parse_arg(arg, config=("t", "r"), size=256)
    if args.size not in gan_presets.STYLEGAN3:
        raise ValueError(f"config argument 'size' is 256, 512 or 1024, got {args.size}")
    row, radial = gan_presets.STYLEGAN3[args.size], args.config == "r"
    c = _run(row.source, ("stylegan3", "stylegan2"), args.debug)
    c.data.labels = False
    c.data.hflip = True
    _styles(c, 2, row.base, args.debug)
    _half(c.discriminator)
    if radial:
        c.generator.update(kernel=1, radial=True)
        c.generator.channel_base *= 2
        c.generator.channel_max *= 2
    c.generator.num_layers = 4 if args.debug else 14
    c.discriminator.group_size = 4
    c.loss.update(r1_gamma=row.gamma_r if radial else row.gamma_t, r1_every=16)
    c.loss.w_avg_decay = 0.998
    if radial:
        c.loss.update(blur_sigma=10.0, blur_images=str(row.batch * 200_000 // 32))
    if row.augment:
        c.augment.update(kind="ada", target=0.6, recipe="bgc")
    c.optimizer.g_lr, c.optimizer.d_lr = 0.0025, row.d_lr
    _average(c, row.batch * 10_000 // 32, 0.05)
    if not args.debug:
        c.batch = row.batch
    return c


def r3gan(arg: str) -> ml_collections.ConfigDict:
    """A run of the R3GAN paper, with classes where the data have them."""
    args = common.parse_arg(arg, data=tuple(gan_presets.R3GAN), uncond=False)
    row = gan_presets.R3GAN[args.data]
    c = _run(row.source, ("r3gan",), args.debug)
    c.data.labels = args.data != "ffhq64" and not args.uncond
    c.data.hflip = True
    stages = 3 if args.debug else len(row.widths)
    for part in (c.generator, c.discriminator):
        part.widths = (8,) * stages if args.debug else row.widths
        part.cardinality = (2,) * stages if args.debug else row.cardinality
        part.blocks = (1 if args.debug else 2,) * stages
    c.generator.z_dim = 64
    c.loss.update(name="relativistic", r1_every=1)
    c.loss.r1_gamma = c.loss.r2_gamma = row.gamma[0]
    colour = ("brightness", "contrast", "lumaflip", "hue", "saturation")
    c.augment.update(kind="ada", recipe="bgc")
    c.augment.multipliers = {**dict.fromkeys(colour, 0.5), "cutout": 1.0}
    c.optimizer.update(g_lr=2e-4, d_lr=2e-4, b2=0.9)
    c.cosine.update(images=row.decay, g_lr=5e-5, d_lr=5e-5, b2=0.99, p=row.p)
    c.cosine.r1_gamma = c.cosine.r2_gamma = row.gamma[1]
    _average(c, row.halflife, 0.0)
    if not args.debug:
        c.images, c.batch = "200M" if row.batch < 4096 else "1000M", row.batch
    return c

"""The lineage of GANs at the size of digits and clothes: one row a paper, by its own words.

Networks are small: at each size of a feature map all that are convolutional have the same width.
What a paper says of losses, rates and schedules is kept, but for R1's gamma, which follows the size
of the images, and the first GAN's momentum, for which there is Adam. Data, length and batch are the
same for all.
"""

import ml_collections

from configs import common, gans

MEMBERS = ("mlp", "dcgan", "pggan", "stylegan", "stylegan2", "stylegan3", "r3gan", "biggan")


def run(
    source: str, size: int, member: str, debug: bool, small: bool = False
) -> ml_collections.ConfigDict:
    """`member` of the lineage on square images of `size`, a power of two from 8.

    small: a run of minutes on a CPU, also of images larger than 8.
    """
    row = member_of(member, size, debug, small)
    c = gans.base(source, *row["networks"])
    share = 4000 if small else 15_000 if size == 8 else 50_000  # a tenth of the run
    c.images, c.batch = str(10 * share), 16 if small else 32
    c.log_every = str(share // 10)
    c.checkpoint_every = str(share)
    c.snapshot_every = str(share // 2)
    if debug:
        common.debug(c)
        c.images = "64" if size == 8 else "128"  # for all sizes of those that grow
    for part in ("generator", "discriminator", "loss", "optimizer", "cosine", "growing"):
        c[part].update(row.get(part, {}))
    if row.get("growing"):  # a tenth of the run for each size but the last, and to fade it in
        c.growing.fade = c.growing.stable = "16" if debug else str(share)
    if row.get("cosine"):
        c.cosine.images = c.images
    return c


def member_of(member: str, size: int, debug: bool, small: bool) -> dict[str, dict]:
    """Sections of the config of one member."""
    wide = 8 if debug else 64  # features where images are smallest
    base = wide * size if debug else 256 if small else 32 * size
    sizes = [4 << i for i in range((size // 4).bit_length())]  # 4, 8, ..., size
    widths = tuple(min(base // s, wide) for s in sizes)
    gamma = 0.1 if size == 8 else 1.0
    width = {"channel_base": base, "channel_max": wide}
    style = {"z_dim": wide, "w_dim": wide, "mapping_layers": 2, **width}
    lazy = {"r1_gamma": gamma, "r1_every": 2 if debug else 16}
    group = {"group_size": 4 if debug else 8}
    rates = lambda g, d, b1=0.0, b2=0.99, eps=1e-8: {
        "g_lr": g, "d_lr": d, "b1": b1, "b2": b2, "eps": eps,
    }  # fmt: skip
    maxout = {"features": (wide, wide)}
    strided = {"width": widths[-2], "channel_max": wide}
    residual = {
        "widths": widths, "cardinality": tuple(w // 8 for w in widths), "blocks": (1,) * len(sizes),
    }  # fmt: skip
    layers = {"num_layers": 4 if size == 8 or small else 8, "margin": 4 if small else 10}
    attention = {"attention": (size // 2,) if size > 8 else ()}
    return {
        "mlp": {
            "networks": ("gan_mlp",),
            "generator": {"z_dim": 100, "features": (4 * wide, 4 * wide)},
            "discriminator": maxout,
            "optimizer": rates(2e-4, 2e-4, b1=0.5, b2=0.999),
        },
        "dcgan": {
            "networks": ("dcgan",),
            "generator": strided,
            "discriminator": strided,
            "optimizer": rates(2e-4, 2e-4, b1=0.5, b2=0.999),
        },
        "pggan": {
            "networks": ("pggan",),
            "generator": {"z_dim": wide, **width},
            "discriminator": {**width, **group},
            "loss": {"name": "wasserstein", "gp_weight": 10.0, "epsilon_drift": 1e-3},
            "optimizer": rates(1e-3, 1e-3),
            "growing": {"first": 4},
        },
        "stylegan": {
            "networks": ("stylegan",),
            "generator": style,
            "discriminator": {**width, **group},
            "loss": {"r1_gamma": gamma, "r1_every": 1, "style_mixing": 0.9},
            "optimizer": rates(1e-3, 1e-3),
            "growing": {"first": 8} if size > 8 else {},
        },
        "stylegan2": {
            "networks": ("stylegan2",),
            "generator": style,
            "discriminator": {"mapping_layers": 2, **width, **group},
            "loss": {**lazy, "path_every": 4, "style_mixing": 0.9},
            "optimizer": rates(2.5e-3, 2.5e-3),
        },
        "stylegan3": {
            "networks": ("stylegan3", "stylegan2"),
            "generator": {**style, **layers},
            "discriminator": {"mapping_layers": 2, **width, **group},
            "loss": {**lazy, "w_avg_decay": 0.998},
            "optimizer": rates(2.5e-3, 2e-3),
        },
        "r3gan": {
            "networks": ("r3gan",),
            "generator": {"z_dim": 64, **residual},
            "discriminator": residual,
            "loss": {
                "name": "relativistic", "r1_gamma": gamma, "r2_gamma": gamma, "r1_every": 1,
            },
            "optimizer": rates(2e-4, 2e-4, b2=0.9),
            "cosine": {
                "g_lr": 5e-5, "d_lr": 5e-5, "b2": 0.99,
                "r1_gamma": 0.1 * gamma, "r2_gamma": 0.1 * gamma,
            },
        },
        "biggan": {
            "networks": ("biggan",),
            "generator": {
                "z_dim": 20 * len(sizes), "shared_dim": wide, "widths": widths, **attention,
            },
            "discriminator": {"down": len(sizes) - 1, "widths": widths[::-1], **attention},
            "loss": {"name": "hinge", "d_steps": 2, "orthogonal_weight": 1e-4},
            "optimizer": rates(1e-4, 4e-4, b2=0.999, eps=1e-6),
        },
    }[member]  # fmt: skip

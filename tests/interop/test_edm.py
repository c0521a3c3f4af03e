"""EDM's names and keywords: the round trip, errors that name everything, vanishing attention.

Parity with the reference is in tests/parity/test_edm1_vs_reference.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.interop import edm
from jaxgen.networks.adm import ADM
from jaxgen.networks.ddpmpp import UNet
from jaxgen.noise import precondition

BASE = {
    "img_resolution": 4,
    "img_channels": 2,
    "label_dim": 3,
    "augment_dim": 5,
    "model_channels": 4,
    "channel_mult": [1, 2],
    "channel_mult_emb": 3,
    "num_blocks": 0,
    "attn_resolutions": [2],
}
INITS = {
    "adm": {**BASE, "precond": "EDMPrecond"},
    "ddpmpp": {**BASE, "precond": "VPPrecond", "model_type": "SongUNet"},
    "ncsnpp": {
        **BASE,
        "precond": "ve",
        "model_type": "SongUNet",
        "embedding_type": "fourier",
        "encoder_type": "residual",
        "channel_mult_noise": 2,
        "resample_filter": [1, 3, 3, 1],
    },
}


def official_shapes(kind):
    """{official name: shape} of the networks above, written out by hand."""
    adm, taps = kind == "adm", 4 if kind == "ncsnpp" else 2
    noise, emb = 8 if kind == "ncsnpp" else 4, 12

    def layer(name, *shape):
        return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}

    def block(name, i, o, resampled=False, attention=False):
        found = {**layer(f"{name}.norm0", i), **layer(f"{name}.conv0", o, i, 3, 3)}
        found |= {**layer(f"{name}.norm1", o), **layer(f"{name}.conv1", o, o, 3, 3)}
        found |= layer(f"{name}.affine", o * (1 + adm), emb)
        if i != o or (resampled and not adm):
            found |= layer(f"{name}.skip", o, i, 1, 1)
        if resampled:
            found |= {f"{name}.{x}.resample_filter": (1, 1, taps, taps) for x in ("conv0", "skip")}
        if attention and not adm:  # 8 channels are less than one head of ADM
            found |= layer(f"{name}.norm2", o)
            found |= {**layer(f"{name}.qkv", 3 * o, o, 1, 1), **layer(f"{name}.proj", o, o, 1, 1)}
        return found

    found = {
        "map_augment.weight": (noise, 5),
        **layer("map_layer0", emb, noise),
        **layer("map_layer1", emb, emb),
        **({"map_label.weight": (emb, 3)} if adm else layer("map_label", noise, 3)),
        **layer("enc.4x4_conv", 4, 2, 3, 3),
        **block("enc.2x2_down", 4, 4, True),
        **block("dec.2x2_in0", 4, 8, attention=True),
        **block("dec.2x2_in1", 8, 8),
        **block("dec.2x2_block0", 12, 8, attention=True),
        **block("dec.4x4_up", 8, 8, True),
        **block("dec.4x4_block0", 12, 4),
        **layer("out_norm" if adm else "dec.4x4_aux_norm", 4),
        **layer("out_conv" if adm else "dec.4x4_aux_conv", 2, 4, 3, 3),
    }
    if kind == "ncsnpp":
        found |= {"map_noise.freqs": (4,), **layer("enc.2x2_aux_residual", 4, 2, 3, 3)}
        found["enc.2x2_aux_residual.resample_filter"] = (1, 1, 4, 4)
    return found


def draw(kind, prefix=""):
    rng, f = np.random.default_rng(0), np.float32([1, 3, 3, 1] if kind == "ncsnpp" else [1, 1])
    kernel = np.outer(f, f)[None, None] / f.sum() ** 2
    return {
        prefix + n: kernel if n.endswith("filter") else rng.standard_normal(s).astype("f4")
        for n, s in official_shapes(kind).items()
    }


@pytest.mark.parametrize("kind, prefix", [("adm", "model."), ("ddpmpp", ""), ("ncsnpp", "model.")])
def test_the_round_trip_is_the_identity(kind, prefix):
    arrays = draw(kind, prefix)
    D = edm.load(arrays, **INITS[kind])
    assert isinstance(D.module, ADM if kind == "adm" else UNet)
    assert D.family.name == {"adm": "edm", "ddpmpp": "vp", "ncsnpp": "ve"}[kind]
    back = edm.dump(D)
    assert back.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x, strict=True, err_msg=name)


def test_attention_of_official_heads():
    """q, k and v of one channel are neighbours there; here all of q comes first."""
    arrays = draw("ddpmpp")
    w = edm.load(arrays, **INITS["ddpmpp"]).variables["params"]["dec_2_in0"]["attention"]["qkv"][
        "w"
    ]
    theirs = arrays["dec.2x2_in0.qkv.weight"][:, :, 0, 0]
    np.testing.assert_array_equal(w[:, :8].T, theirs[0::3])
    np.testing.assert_array_equal(w[:, 8:16].T, theirs[1::3])
    np.testing.assert_array_equal(w[:, 16:].T, theirs[2::3])


def test_attention_vanishes_from_blocks_narrower_than_a_head():
    """As there, where the number of heads is channels // 64."""
    init = edm.complete({**INITS["adm"], "model_channels": 48, "channel_mult": [1, 2, 1]})
    net = edm.network({**init, "img_resolution": 16, "attn_resolutions": (16, 8, 4)})
    assert net.attn_resolutions == (8,) and not net.middle_attention
    init = edm.complete({**INITS["adm"], "model_channels": 64, "channel_mult": [1, 2]})
    assert edm.network(init).attn_resolutions == (2,) and edm.network(init).middle_attention


def test_defaults_and_fields():
    init = edm.complete({"img_resolution": 64, "img_channels": 3})
    assert init["precond"] == "edm" and edm.network(init) == ADM(3, dtype=jnp.float32)
    init = edm.complete({"precond": "VPPrecond", "img_resolution": 32, "img_channels": 3})
    assert edm.network(init) == UNet(3, channel_mult=(1, 2, 2, 2))
    assert edm.family(init) == precondition.VP()
    twice = edm.complete({"precond": "iDDPMPrecond", "img_resolution": 64, "img_channels": 3})
    assert edm.network(twice).out_channels == 6 and edm.family(twice) == precondition.IDDPM()
    other = {"dropout": 0.3, "label_dropout": 0.2, "sigma_data": 0.7, "sigma_max": 80.0}
    init = edm.complete({**INITS["ncsnpp"], "precond": "edm", **other})
    net, family = edm.network(init), edm.family(init)
    assert (net.dropout, net.label_dropout, net.taps) == (0.3, 0.2, (1, 3, 3, 1))
    assert (family.sigma_data, family.sigma_min, family.sigma_max) == (0.7, 0.0, 80.0)
    hash((net, family))  # static arguments of the compiled call


def test_all_that_is_wrong_is_listed_at_once():
    arrays = draw("adm", "model.")
    del arrays["model.out_norm.bias"], arrays["model.dec.4x4_up.skip.resample_filter"]
    arrays["model.extra"] = np.zeros(2)
    arrays["model.dec.2x2_in1.conv0.weight"] = np.zeros((8, 8, 1, 1))
    with pytest.raises(ValueError) as e:
        edm.load(arrays, **INITS["adm"])
    assert str(e.value).splitlines() == [
        "edm.load: the arrays are not of a network made with this init",
        "  unknown: extra",
        "  missing: dec.4x4_up.skip.resample_filter, out_norm.bias",
        "  shape of dec.2x2_in1.conv0.weight: expected (8, 8, 3, 3), got (8, 8, 1, 1)",
    ]


def test_constants_are_those_of_init():
    arrays = draw("adm")
    arrays["dec.4x4_up.skip.resample_filter"] = np.full((1, 1, 2, 2), 0.5)
    with pytest.raises(ValueError, match=r"constant dec.4x4_up.skip.resample_filter is not what"):
        edm.load(arrays, **INITS["adm"])


def test_the_table_of_iddpm_may_be_in_the_file():
    """It belongs to the wrapper, so that files of the network alone do not have it."""
    init = {**INITS["adm"], "precond": "iddpm"}
    arrays = draw("adm", "model.")
    arrays["model.out_conv.weight"] = np.ones((4, 4, 3, 3), np.float32)
    arrays["model.out_conv.bias"] = np.ones(4, np.float32)
    table = np.float32(precondition.IDDPM().table)
    back = edm.dump(edm.load({**arrays, "u": table}, **init))
    assert back.keys() == {*arrays, "u"}
    np.testing.assert_array_equal(back["u"], table)
    assert edm.dump(edm.load(arrays, **init)).keys() == arrays.keys()


@pytest.mark.parametrize(
    "change, match",
    [
        ({"precond": "cosine"}, "precond is one of edm, vp, ve, iddpm, got 'cosine'"),
        ({"model_type": "DiT"}, "model_type is one of SongUNet, DhariwalUNet, got 'DiT'"),
        ({"beta_d": 19.9}, r"unknown keywords \['beta_d'\] and lacks none"),
        (
            {"encoder_type": "skip", "model_type": "SongUNet"},
            "encoder_type='skip' is not supp",
        ),
        ({"decoder_type": "skip", "model_type": "SongUNet"}, "only standard; no published netw"),
    ],
)
def test_keywords_are_checked(change, match):
    with pytest.raises(ValueError, match=match):
        edm.load({}, **{**INITS["adm"], **change})


def test_calls():
    """One level for all, zeros for labels that are not given, F behind D."""
    D = edm.load(draw("adm"), **INITS["adm"])
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 2))
    one = D(x, 0.7)
    zeros = np.zeros((2, 3)), np.zeros((2, 5))
    np.testing.assert_allclose(one, D(x, np.full(2, 0.7), *zeros), rtol=1e-6)
    s = D.family.scaling(jnp.float32(0.7))
    np.testing.assert_allclose(s.c_skip * x + s.c_out * D.raw(x, 0.7), one, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"augment labels must have shape \(2, 5\), got \(2, 4\)"):
        D(x, 0.7, None, np.zeros((2, 4)))

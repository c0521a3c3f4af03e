"""EDM2's primitives and single blocks against independent float32 reference values.

Tolerances are those of the reference's README: values abs 2e-5, rel 1e-4; gradients abs 1e-4, rel
1e-3. One compiled program a file.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.interop import common
from jaxgen.interop import edm2 as interop
from jaxgen.networks import edm2
from jaxgen.nn import magnitude

KEEP_UP_DOWN = ("keep", "up", "down")


def ours(x):
    """NCHW to NHWC; arrays of other ranks as they are."""
    return x.transpose(0, 2, 3, 1) if x.ndim == 4 else x


def run(cases):
    """{case: (y, gradients)} of {case: (f, arguments, cotangent)}, all in one program."""

    def all_of(inputs):
        out = {}
        for case, (args, cot) in inputs.items():
            y, back = jax.vjp(cases[case][0], *args)
            out[case] = y, back(cot)
        return out

    with jax.default_matmul_precision("highest"):
        return jax.jit(all_of)({c: (args, cot) for c, (_, args, cot) in cases.items()})


def close(got, want, case, gradient=False):
    atol, rtol = (1e-4, 1e-3) if gradient else (2e-5, 1e-4)
    np.testing.assert_allclose(got, want, atol=atol, rtol=rtol, err_msg=case)


# ---------------------------------------------------------------------------------------- layers


def normalize_axes(case, x):
    """The axes that a case reduces, in our layout: names are those of NCHW."""
    kind = case.split("/")[1]
    return {"all_but_first": (1, 2, 3), "dim2_of5": (2,), "vector": (1,)}.get(kind, (x.ndim - 1,))


def mpconv(kind):
    kernel = {"linear": 0, "conv1x1": 1, "conv3x3": 3}[kind]

    def f(x, w, gain=1.0):
        return magnitude.MPConv(w.shape[-1], kernel).apply({"params": {"w": w}}, x, gain)

    return f


def primitive_cases(z):
    """{case: (f, args, cotangent)} and {case: the gradients' arrays}."""
    cases, wanted = {}, {}
    for case in sorted({k.rpartition("/")[0] for k in z.files if k.endswith("/cot")} | {"mp_silu"}):
        kind, *rest = case.split("/")
        a = lambda name, case=case: ours(z[f"{case}/{name}"])
        if kind == "normalize":
            five = z[f"{case}/x"].ndim == 5
            x = z[f"{case}/x"] if five else a("x")
            axes = normalize_axes(case, x)
            f, args, names = lambda x, axes=axes: magnitude.normalize(x, axes), (x,), ("x",)
        elif kind == "mp_silu":
            f, args, names = magnitude.mp_silu, (a("x"),), ("x",)
        elif kind in ("mp_sum", "mp_cat"):
            t = float(re.match(r"t([\d.]+)", rest[0])[1])
            g = getattr(magnitude, kind)
            f, args, names = lambda a, b, g=g, t=t: g(a, b, t), (a("a"), a("b")), ("a", "b")
        elif kind == "resample":
            mode, taps = rest[0], tuple(z[f"resample/filter_{rest[1]}"].tolist())
            f = lambda x, m=mode, taps=taps: magnitude.resample(x, m, taps)
            args, names = (a("x"),), ("x",)
        else:
            train, gain = rest[1] == "train", rest[2].removeprefix("gain_")
            w = common.to_ours(z[f"{case}/{'w_after' if train else 'w'}"])
            args, names = (a("x"), w), ("x", "w")
            if gain != "none":
                args, names = (*args, np.float32(gain)), (*names, "gain")
            f = mpconv(rest[0])
        cases[case] = f, args, a("cot")
        wanted[case] = [z[f"{case}/grad_{n}"] for n in names]
    return cases, wanted


@pytest.fixture(scope="module")
def primitives(goldens):
    z = np.load(goldens / "diffusion/edm2_primitives.npz")
    cases, wanted = primitive_cases(z)
    return z, cases, wanted, run(cases)


def test_primitives(primitives):
    z, cases, wanted, out = primitives
    assert len(cases) == 47
    for case, (y, grads) in out.items():
        close(y, ours(z[f"{case}/y"]), case)
        weight = case.startswith("mpconv")
        for i, (got, want) in enumerate(zip(grads, wanted[case], strict=True)):
            want = common.to_ours(want) if weight and i == 1 else ours(want)
            close(got, want, f"{case} gradient {i}", gradient=True)


def test_what_has_no_gradient(primitives):
    z = primitives[0]
    f, phi = z["mpfourier/freqs"], z["mpfourier/phases"]
    layer = magnitude.MPFourier(len(f))
    y = layer.apply({"params": {"freqs": f, "phases": phi}}, jnp.asarray(z["mpfourier/x"]))
    close(y, z["mpfourier/y"], "mpfourier")
    zeros = z["normalize/zeros_y"]
    close(magnitude.normalize(jnp.zeros(zeros.shape), (1, 2, 3)), zeros, "zeros")
    for kind in ("linear", "conv1x1", "conv3x3"):
        w = common.to_ours(z[f"mpconv/{kind}/train/gain_none/w"])
        after = common.to_ours(z[f"mpconv/{kind}/train/gain_none/w_after"])
        close(magnitude.project({"w": jnp.asarray(w)})["w"], after, f"{kind} stored weight")


# ---------------------------------------------------------------------------------------- blocks

PARAMS = ("conv0/w", "conv1/w", "skip/w", "emb/w", "emb_gain/gain")
PARAMS += ("attention/qkv/w", "attention/proj/w")
NAMES = {  # official to ours, within a block
    official.removeprefix("block."): ours.removeprefix("block/")
    for ours, official in interop.official_names(f"block/{n}" for n in PARAMS).items()
}


def block_params(z, case):
    start = f"{case}/param/"
    found = {k.removeprefix(start): z[k] for k in z.files if k.startswith(start)}
    return trees.nest({NAMES[k]: common.to_ours(w) for k, w in found.items()})


def block_cases(z):
    cases = {}
    for case in sorted({"/".join(k.split("/")[:3]) for k in z.files}):
        info = lambda name, case=case: z[f"{case}/info/{name}"]
        features, heads = z[f"{case}/y"].shape[1], int(info("num_heads"))
        block = edm2.Block(
            features,
            decoder=case.startswith("dec"),
            mode=KEEP_UP_DOWN[int(info("resample"))],
            attention=heads > 0,
            channels_per_head=features // max(heads, 1),
            resample_filter=tuple(info("resample_filter").tolist()),
            balance=float(info("res_balance")),
            attention_balance=float(info("attn_balance")),
            clip=float(info("clip_act")),
        )
        f = lambda params, x, emb, b=block: b.apply({"params": params}, x, emb, False)
        args = block_params(z, case), ours(z[f"{case}/x"]), z[f"{case}/emb"]
        cases[case] = f, args, ours(z[f"{case}/cot"])
    return cases


# Encoder and decoder, without and with resampling by a long filter and a clip, all with attention;
# plain blocks are in the whole networks.
QUICK = {"enc/12to12/2", "enc/12to16/8", "dec/12to16/14", "dec/12to12/12"}


@pytest.mark.parametrize("quick", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_blocks(goldens, quick):
    z = np.load(goldens / "diffusion/edm2_blocks.npz")
    cases = {c: v for c, v in block_cases(z).items() if (c in QUICK) == quick}
    assert len(cases) == (4 if quick else 12)
    for case, (y, (params, x, emb)) in run(cases).items():
        close(y, ours(z[f"{case}/y"]), case)
        close(x, ours(z[f"{case}/grad_x"]), f"{case} gradient x", gradient=True)
        close(emb, z[f"{case}/grad_emb"], f"{case} gradient emb", gradient=True)
        flat = trees.leaves(params)
        for name, row in zip(z[f"{case}/gradstats_names"], z[f"{case}/gradstats"], strict=True):
            g = common.to_official(np.asarray(flat.pop(NAMES[str(name)])))
            close_to_row(g, row, f"{case} {name}")
        assert not flat


def close_to_row(g, row, what):
    """L2 norm, sum, probe and largest entry of a gradient in the reference's layout."""
    flat = g.astype(np.float64).ravel()
    probe = np.cos(1.0 + np.arange(flat.size))
    got = np.linalg.norm(flat), flat.sum(), flat @ probe, np.abs(flat).max()
    np.testing.assert_allclose(got, row, atol=1e-3 * row[0] + 1e-6, err_msg=what)

"""Embeddings, group norm, resampling and blocks of EDM's networks against independent values.

Tolerances are those of the reference's README: values abs 2e-5, gradients abs 1e-4 and rel 1e-3.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.interop import edm as interop
from jaxgen.networks import adm, ddpmpp
from jaxgen.nn import resample, residual
from jaxgen.nn.embeddings import Fourier, positional
from jaxgen.nn.group_norm import GroupNorm

STYLES = {"song": ddpmpp.STYLE, "adm": adm.STYLE}


@pytest.fixture(scope="module")
def z(goldens):
    with jax.default_matmul_precision("highest"):
        yield np.load(goldens / "diffusion/edm1_blocks.npz")


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def nchw(x):
    return np.asarray(x).transpose(0, 3, 1, 2)


def ours(official):
    """The parameter tree of a block from its official arrays."""
    names = {n: re.sub(r"\.", "/", n) for n in official}
    names = {n: re.sub(r"^(qkv|proj)/", r"attention/\1/", x) for n, x in names.items()}
    renames = (("norm2/", "attention/norm/"), ("affine/", "emb/"), ("weight", "w"), ("bias", "b"))
    flat = {}
    for name, x in names.items():
        for a, b in renames:
            x = x.replace(a, b)
        flat[x] = jnp.asarray(interop._to_ours(f".{name}", official[name]))
    return trees.nest(flat)


def test_embeddings(z):
    t = jnp.asarray(z["emb/t"])
    for features in (16, 32):
        for endpoint in (0, 1):
            want = z[f"emb/positional/{features}/endpoint{endpoint}"]
            np.testing.assert_allclose(positional(t, features, bool(endpoint)), want, atol=2e-5)
    freqs = {"params": {"freqs": jnp.asarray(z["emb/fourier/freqs"])}}
    got = Fourier(16).apply(freqs, t)
    np.testing.assert_allclose(got, z["emb/fourier/out"], atol=2e-5)


def test_group_norm(z):
    @jax.jit
    def run(images):
        params = lambda c: {"params": {"w": jnp.ones(c), "b": jnp.zeros(c)}}
        return {c: GroupNorm(1e-5).apply(params(c), x) for c, x in images.items()}

    for c, y in run({c: nhwc(z[f"groupnorm/{c}/x"]) for c in (8, 24, 64, 192)}).items():
        np.testing.assert_allclose(nchw(y), z[f"groupnorm/{c}/y"], atol=2e-5)


CONVS = {  # fused: the filter works on the image padded for both, as up2_conv and conv_down2 do
    "up/k0": lambda x, w, taps, fused: resample.up2(x, taps),
    "down/k0": lambda x, w, taps, fused: resample.down2(x, taps),
    "up/k1": lambda x, w, taps, fused: resample.conv(resample.up2(x, taps), w),
    "down/k1": lambda x, w, taps, fused: resample.conv(resample.down2(x, taps), w),
    "up/k3": lambda x, w, taps, fused: (
        resample.up2_conv(x, w, taps) if fused else resample.conv(resample.up2(x, taps), w)
    ),
    "down/k3": lambda x, w, taps, fused: (
        resample.conv_down2(x, w, taps) if fused else resample.conv(resample.down2(x, taps), w)
    ),
}


def test_resampled_convolutions(z):
    @jax.jit
    def run(data):
        found = {}
        for name, (x, w, b) in data.items():
            kind, taps, fused = re.fullmatch(r"conv/(\w+/k\d)/(f\d)/fused(\d)", name).groups()
            taps = {"f2": (1, 1), "f4": (1, 3, 3, 1)}[taps]
            found[name] = CONVS[kind](x, w, taps, fused == "1") + b
        return found

    data = {}
    for name in {k.rpartition("/")[0] for k in z.files if k.startswith("conv/")}:
        w = z[f"{name}/w"].transpose(2, 3, 1, 0) if f"{name}/w" in z.files else np.zeros(())
        b = z[f"{name}/b"] if f"{name}/b" in z.files else np.zeros((), np.float32)
        data[name] = nhwc(z[f"{name}/x"]), jnp.asarray(w), jnp.asarray(b)
    assert len(data) == 16
    for name, y in run(data).items():
        np.testing.assert_allclose(nchw(y), z[f"{name}/y"], atol=2e-5, rtol=1e-4, err_msg=name)


@pytest.mark.parametrize("style", STYLES)
def test_blocks(z, style):
    cases = sorted({k.split("/")[2] for k in z.files if k.startswith(f"block/{style}/")})
    assert len(cases) == 6
    inputs, modules = {}, {}
    for case in cases:
        at = f"block/{style}/{case}/"
        official = {k.removeprefix(f"{at}param/"): z[k] for k in z.files if k.startswith(at)}
        official = {k: x for k, x in official.items() if "/" not in k and "." in k}
        mode = re.search("up|down", case)
        modules[case] = residual.Block(
            features=int(re.search(r"to(\d+)", case)[1]),
            style=STYLES[style],
            mode=mode[0] if mode else "keep",
            heads=int(z[f"{at}num_heads"]),
        )
        x, emb, cot = nhwc(z[f"{at}x"]), jnp.asarray(z[f"{at}emb"]), nhwc(z[f"{at}cot"])
        inputs[case] = ours(official), x, emb, cot

    @jax.jit
    def run(inputs):
        found = {}
        for case, (params, x, emb, cot) in inputs.items():
            f = lambda x, emb, case=case, params=params: modules[case].apply(
                {"params": params}, x, emb, False
            )
            y, back = jax.vjp(f, x, emb)
            found[case] = y, *back(cot)
        return found

    for case, (y, gx, gemb) in run(inputs).items():
        at = f"block/{style}/{case}/"
        np.testing.assert_allclose(nchw(y), z[f"{at}y"], atol=2e-5, rtol=1e-4, err_msg=case)
        np.testing.assert_allclose(nchw(gx), z[f"{at}gx"], atol=1e-4, rtol=1e-3, err_msg=case)
        np.testing.assert_allclose(gemb, z[f"{at}gemb"], atol=1e-4, rtol=1e-3, err_msg=case)

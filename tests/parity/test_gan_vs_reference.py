"""StyleGAN2's layers and Noise2Noise against numbers of the authors' code (see their README)."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.common import trees
from jaxgen.networks.n2n_unet import N2NUNet
from jaxgen.networks.stylegan2_mapping import ACTIVATIONS
from jaxgen.nn import resample
from jaxgen.nn.layers import EqualizedDense
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.nn.modulated import modulated_conv


def _load(goldens, name):
    with np.load(goldens / f"gan/{name}.npz", allow_pickle=False) as z:
        arrays = {k: z[k] for k in z.files if k != "meta"}
        return arrays, json.loads(str(z["meta"])) if "meta" in z.files else {}


def _close(got, want, tolerance):
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(np.asarray(got), want, atol=tolerance * scale, rtol=0)


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def hwio(w):
    return jnp.asarray(np.transpose(w, (2, 3, 1, 0)))


def _shapes(module, *args):
    return jax.eval_shape(lambda: module.init(jax.random.key(0), *args))["params"]


def test_primitives(goldens):
    a, meta = _load(goldens, "prims_misc")
    for i, case in enumerate(meta["mbstd"]):
        x = nhwc(a[f"mbstd.c{i:02d}.x"])
        got = minibatch_std(x, case["group_size"], case["num_channels"])
        _close(got, nhwc(a[f"mbstd.c{i:02d}.y"]), 1e-5)
    for i, case in enumerate(meta["fc"]):
        x, m = jnp.asarray(a[f"fc.c{i:02d}.x"]), case["lr_multiplier"]
        p = {"w": a[f"fc.c{i:02d}.weight"].T, "b": a.get(f"fc.c{i:02d}.bias")}
        p = {k: v for k, v in p.items() if v is not None}
        layer = EqualizedDense(p["w"].shape[1], use_bias="b" in p, lr_multiplier=m)
        y = layer.apply({"params": p}, x)
        y = y if case["act"] == "linear" else ACTIVATIONS[case["act"]](y)
        _close(y, a[f"fc.c{i:02d}.y"], 1e-5)


def test_modulated_convolution(goldens):
    a, meta = _load(goldens, "prims_modulated_conv")
    for i, case in enumerate(meta["cases"]):
        if case["kind"] != "sg2" or case.get("fused"):
            continue
        get = lambda k: a[f"sg2.c{i:02d}.{k}"]  # noqa: B023
        w = hwio(get("w")) if case["flip_weight"] else hwio(get("w"))[::-1, ::-1]
        noise = nhwc(get("noise")) if case["noise"] else 0.0
        run = lambda x, w, s: modulated_conv(
            x, w, s, case["demodulate"], up=case["up"] == 2  # noqa: B023
        )  # fmt: skip
        y, back = jax.vjp(run, nhwc(get("x")), w, jnp.asarray(get("s")))
        _close(y + noise, nhwc(get("y")), 1e-5)
        gx, _, gs = back(nhwc(get("gy")))
        _close(gx, nhwc(get("gx")), 2e-5)
        _close(gs, get("gs"), 2e-5)


def test_resampling(goldens):
    a, meta = _load(goldens, "prims_upfirdn2d")
    ops = {"filter2d": resample.blur, "upsample2d": resample.up2, "downsample2d": resample.down2}
    checked = set()
    for i, case in enumerate(meta["cases"]):
        f = a.get(f"c{i:02d}.f")
        extra = set(case) - {"op", "separable", "has_f", "up", "down"}
        if case["op"] not in ops or extra or f is None:
            continue
        taps = f if f.ndim == 1 else f.sum(0)
        if f.ndim == 2 and not np.allclose(np.outer(f.sum(1), f.sum(0)), f * f.sum(), atol=1e-6):
            continue  # not separable
        if f.ndim == 2 and not np.allclose(f.sum(0), f.sum(1), atol=1e-6):
            continue
        gain = float(f.sum()) ** (2 if f.ndim == 1 else 1)  # ours normalises
        x = nhwc(a[f"c{i:02d}.x"])
        _close(gain * ops[case["op"]](x, tuple(taps.tolist())), nhwc(a[f"c{i:02d}.y"]), 2e-5)
        checked.add(case["op"])
    assert checked == set(ops)


def _recipe_param(tag, name, shape_oihw, gain):
    """The goldens' parameter recipe (denoise/recipe.py, documented in its README)."""
    n = int(np.prod(shape_oihw))
    with np.errstate(over="ignore"):
        key = np.uint64(zlib.crc32(f"{tag}/{name}".encode()))
        z = (key << np.uint64(32)) + np.arange(n, dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    sym = (2.0 * ((z >> np.uint64(11)).astype(np.float64) * 2.0**-53) - 1.0) * np.sqrt(3.0)
    if len(shape_oihw) == 1:
        return (0.1 * sym).astype(np.float32)
    scale = np.sqrt(gain / np.prod(shape_oihw[1:]))
    return (sym.reshape(shape_oihw) * scale).astype(np.float32)


def test_noise2noise_network(goldens):
    with np.load(goldens / "denoise/misc.npz") as z:
        x, want, total = nhwc(z["n2n.x"]), nhwc(z["n2n.out"]), float(z["n2n.params_sum"])
    network = N2NUNet()

    def leaf(name, ours):
        layer, kind = name.split("/")
        theirs = {
            "dec_conv1c": "dec_conv1",
            **{f"dec_conv{i}a": f"dec_conv{i}" for i in range(2, 6)},
        }
        layer, kind = theirs.get(layer, layer), {"w": "weight", "b": "bias"}[kind]
        shape = ours.shape if len(ours.shape) == 1 else tuple(ours.shape[i] for i in (3, 2, 0, 1))
        p = _recipe_param("d1/misc/n2n", f"{layer}.{kind}", shape, 2.0)
        return p if p.ndim == 1 else np.transpose(p, (2, 3, 1, 0))

    p = trees.map_named(leaf, _shapes(network, x))
    np.testing.assert_allclose(
        sum(float(q.astype(np.float64).sum()) for q in jax.tree.leaves(p)), total
    )
    _close(jax.jit(lambda p: network.apply({"params": p}, x))(p), want, 2e-5)

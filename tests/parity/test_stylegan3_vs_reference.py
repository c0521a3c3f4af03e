"""StyleGAN3, its filters and layers against independent numbers (tolerances: the goldens' README).

test_equivariance_vs_reference.py has images of both configurations, too.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.interop import stylegan3 as interop
from jaxgen.networks.stylegan2_mapping import truncate
from jaxgen.networks.stylegan3 import CONFIGS, layer_table
from jaxgen.nn.filtered_lrelu import filtered_lrelu, upfirdn
from jaxgen.nn.filters import lowpass
from jaxgen.nn.modulated import modulated_conv, rms_normalised

SLOW = pytest.mark.slow


def _load(goldens, name):
    with np.load(goldens / f"gan/{name}.npz", allow_pickle=False) as z:
        return {k: z[k] for k in z.files if k != "meta"}, json.loads(str(z["meta"]))


def _case(arrays, prefix):
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}


def _close(got, want, tolerance, least=1.0):
    scale = max(least, float(np.abs(want).max()))
    np.testing.assert_allclose(np.asarray(got), want, atol=tolerance * scale, rtol=0)


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def hwio(w):
    return jnp.asarray(np.transpose(w, (2, 3, 1, 0)))


def _pads(p):
    """Their x0, x1, y0, y1 (or one number, or x, y) as (height, width)."""
    p = [p] * 4 if isinstance(p, int) else p if len(p) == 4 else [p[0], p[0], p[1], p[1]]
    return (p[2], p[3]), (p[0], p[1])


def test_filters(goldens):
    a, meta = _load(goldens, "sg3_filters")
    for i, case in enumerate(meta["cases"]):
        design = (case[k] for k in ("numtaps", "cutoff", "width", "fs", "radial"))
        want = np.ones(1) if case["identity"] else a[f"c{i:02d}.f"]
        np.testing.assert_allclose(lowpass(*design), want, atol=2e-7, rtol=0)


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("resolution", [32, 64, 256, 1024])
def test_layer_table(goldens, config, resolution):
    a, meta = _load(goldens, "sg3_layer_table")
    a, meta = _case(a, f"{config}{resolution}."), meta[f"{config}{resolution}"]
    table = layer_table(resolution, **CONFIGS[config])
    theirs = {
        "in_channels": "in_ch",
        "out_channels": "out_ch",
        "radial": "down_radial",
        "low_precision": "fp16",
    }
    for field in table[0]._fields:
        ours = np.array([getattr(layer, field) for layer in table], np.float64)
        if field == "padding":
            ours = np.tile(ours, (1, 2))
        if field == "rgb":
            continue
        want = a.get(f"{field}_f64text", a[theirs.get(field, field)]).astype(np.float64)
        np.testing.assert_allclose(ours, want, rtol=1e-12, err_msg=field)
    first = table[0]
    ours = (first.in_channels, first.in_size, first.in_rate, first.in_cutoff)
    np.testing.assert_array_equal(ours, a["input"])
    names = [f"L{i}_{t.out_size}_{t.out_channels}" for i, t in enumerate(table)]
    assert names == meta["layer_names"]
    w = 8
    params = [
        t.in_channels * (t.out_channels * t.kernel**2 + w + 1) + t.out_channels for t in table
    ]
    total = sum(params) + first.in_channels**2 + 4 * (w + 1)
    assert total == meta["synthesis_params_without_affine_scaling_to_w8"]


@pytest.mark.parametrize("cases", [(7, 8, 10), pytest.param((1, 2, 5, 9, 12, 13), marks=SLOW)])
def test_resampling(goldens, cases):
    """Filters of one and two dimensions, mirrored, with other factors and padding on each axis."""
    a, meta = _load(goldens, "prims_upfirdn2d")
    chosen = {i: meta["cases"][i] for i in cases}

    def run(i, case, x, gy):
        f = a[f"c{i:02d}.f"].astype(np.float64) if case["has_f"] else None
        f = np.flip(f) if case.get("flip_filter") else f
        up, down = (
            tuple(case.get(k, 1)[::-1]) if isinstance(case.get(k), list) else (case.get(k, 1),) * 2
            for k in ("up", "down")
        )
        pads = _pads(case.get("padding", 0))
        y, back = jax.vjp(lambda x: upfirdn(x, f, up, down, pads, case.get("gain", 1)), x)
        return y, back(gy)[0]

    inputs = {i: [nhwc(a[f"c{i:02d}.{k}"]) for k in ("x", "gy")] for i in chosen}
    got = jax.jit(lambda inputs: {i: run(i, c, *inputs[i]) for i, c in chosen.items()})(inputs)
    for i, (y, gx) in got.items():
        _close(y, nhwc(a[f"c{i:02d}.y"]), 2e-6)
        _close(gx, nhwc(a[f"c{i:02d}.gx"]), 2e-5)


@pytest.mark.parametrize("chosen", [(1, 3, 8), pytest.param((0, 2, 4, 5, 6, 7, 9), marks=SLOW)])
def test_filtered_lrelu(goldens, chosen):
    """Of the first, the second filter is radial; of the second, up is 4; the third crops."""
    a, meta = _load(goldens, "prims_filtered_lrelu")

    def run(case, x, b, gy, fu, fd):
        y, back = jax.vjp(
            lambda x, b: filtered_lrelu(
                x,
                b,
                *(np.flip(f) if case["flip_filter"] else f for f in (fu, fd)),
                case["up"],
                case["down"],
                _pads(case["padding"]),
                case["gain"],
                case["slope"],
                case["clamp"],
            ),
            x,
            b,
        )
        return y, *back(gy)

    cases = [_case(a, f"c{i:02d}.") for i in chosen]
    inputs = [(nhwc(c["x"]), c.get("b"), nhwc(c["gy"])) for c in cases]
    every = lambda inputs: [
        run(m, *of, *(c.get(k) for k in ("fu", "fd")))
        for m, of, c in zip([meta["cases"][i] for i in chosen], inputs, cases)
    ]
    for (y, gx, gb), c in zip(jax.jit(every)(inputs), cases):
        _close(y, nhwc(c["y"]), 1e-5)
        _close(gx, nhwc(c["gx"]), 2e-5)
        if "b" in c:
            _close(gb, c["gb"], 2e-5)


def test_modulated_convolution(goldens):
    a, meta = _load(goldens, "prims_modulated_conv")
    cases = [c for c in meta["cases"] if c["kind"] == "sg3"]
    arrays = [_case(a, f"sg3.c{i:02d}.") for i in range(len(cases))]

    def run(case, x, w, s, gain, gy):
        def f(x, w, s):
            if case["demodulate"]:
                w, s = rms_normalised(w, s)
            edges = ((case["padding"],) * 2,) * 2
            return modulated_conv(x, w, s, case["demodulate"], padding=edges, gain=gain)

        y, back = jax.vjp(f, x, w, s)
        return y, *back(gy)

    inputs = [
        (nhwc(c["x"]), hwio(c["w"]), c["s"], c.get("input_gain", 1.0), nhwc(c["gy"]))
        for c in arrays
    ]
    every = jax.jit(lambda inputs: [run(m, *of) for m, of in zip(cases, inputs)])
    for (y, gx, gw, gs), c in zip(every(inputs), arrays):
        _close(y, nhwc(c["y"]), 1e-5)
        _close(gx, nhwc(c["gx"]), 2e-5)
        _close(gw, hwio(c["gw"]), 2e-5)
        _close(gs, c["gs"], 2e-5)


# The goldens give no numbers for the two motions; these round ones reproduce them in all files.
SHIFT = np.array([[1, 0, -1 / 16], [0, 1, 1 / 8], [0, 0, 1]], np.float32)
TURN = np.array(
    [[np.cos(0.4), -np.sin(0.4), 0], [np.sin(0.4), np.cos(0.4), 0], [0, 0, 1]], np.float32
)
NAMES = ("sg3t_gen_64_short", "sg3r_gen_64_short", "sg3t_gen_32", "sg3r_gen_32")
# Programs of whole generators take 5 to 30 s to compile.
some = lambda *names: [n if n in names else pytest.param(n, marks=SLOW) for n in NAMES]


def _official(arrays):
    kinds = ("param.", "buffer.")
    return {k.split(".", 1)[1]: v for k, v in arrays.items() if k.startswith(kinds)}


def _generator(goldens, name):
    a, meta = _load(goldens, name)
    G = interop.load_generator(
        _official(a),
        **{k: meta[k] for k in ("z_dim", "c_dim", "w_dim", "num_layers", "num_critical")},
        **{k: meta[k] for k in ("channel_base", "channel_max")},
        **meta["extra"],
        img_resolution=meta["res"],
        img_channels=3,
        mapping_kwargs={"num_layers": meta["map_layers"]},
    )
    return G, a, meta, 1e-4 if meta["num_layers"] >= 14 else 3e-5


@pytest.mark.parametrize("name", some())
def test_images(goldens, name):
    """Round trip, styles, truncation, the images of all layers, moved images."""
    G, a, meta, tolerance = _generator(goldens, name)
    back = interop.dump_generator(G)
    assert back.keys() == _official(a).keys()
    for key, x in _official(a).items():
        tolerance_ = 2e-7 if key.endswith("_filter") else 0
        np.testing.assert_allclose(back[key], x, rtol=0, atol=tolerance_, err_msg=key)
    labels = a["in.c"] if meta["c_dim"] else None
    w = G.mapping(a["in.z"], labels)
    _close(w, a["out.ws"], 3e-5)
    _close(truncate(w, G.w_avg, 0.7), a["out.w_trunc_psi0.7"], 3e-5)
    ws = jnp.repeat(w[:, None], G.module.num_ws, 1)
    _close(truncate(ws, G.w_avg, 0.4, 3), a["out.ws_trunc_psi0.4_cut3"], 3e-5)
    tracked = w.mean(0) + meta["w_avg_beta"] * (G.w_avg - w.mean(0))
    _close(tracked, a["ema.mapping.w_avg"], 1e-6)

    @jax.jit
    def run(ws, transform):
        images, kept = G.module.apply(
            G.variables, ws, transform=transform, method="synthesis", capture_intermediates=True,
            mutable=["intermediates"],
        )  # fmt: skip
        return images, kept["intermediates"]["synthesis"]

    images, kept = run(ws, np.eye(3, dtype=np.float32))
    _close(images, nhwc(a["out.img"]), tolerance)
    features = {k: v["__call__"][0] for k, v in kept.items() if k != "__call__"}
    layers = meta["layer_names"]
    for ours, x in features.items():
        theirs = "input" if ours == "input" else layers[int(ours[1:])]
        x = np.asarray(x, np.float64)
        stats = [x.mean(), x.std(), np.abs(x).max()]
        _close(stats, a[f"feat.{theirs}.mean_std_absmax"], tolerance)
    _close(features["input"][:1, ..., :4], nhwc(a["feat.input.first4ch"]), tolerance)
    middle = features[f"L{layers.index(meta['mid_layer'])}"]
    _close(middle[:1, ..., :2], nhwc(a["feat.mid.first2ch"]), tolerance)
    for key, transform in (("translated", SHIFT), ("rotated", TURN)):
        _close(run(ws, transform)[0], nhwc(a[f"out.img_{key}"]), tolerance)


@pytest.mark.parametrize("name", some())
def test_gradients_of_images(goldens, name):
    """With respect to every style and parameter."""
    G, a, *_ = _generator(goldens, name)
    ws = jnp.repeat(jnp.asarray(a["out.ws"])[:, None], G.module.num_ws, 1)

    @jax.jit
    def run(variables, ws):
        back = jax.vjp(lambda *a: G.module.apply(*a, method="synthesis"), variables, ws)[1]
        return back(nhwc(a["in.gy"]))

    gp, gws = run(G.variables, ws)
    _close(gws, a["grad.ws"], 2e-4, least=0.0)
    found = interop.dump_generator(dataclasses.replace(G, variables=gp))
    wanted = {k[5:]: v for k, v in a.items() if k.startswith("grad.synthesis")}
    assert len(wanted) >= 2 * len(G.module.table()) + 3
    for key, want in wanted.items():
        _close(found[key], want, 2e-4, least=0.0)


@pytest.mark.parametrize("name", some("sg3t_gen_64_short"))
def test_tracked_magnitudes(goldens, name):
    """Each moves to its layer's input before it is used, and is found in the place of the kept."""
    G, a, meta, tolerance = _generator(goldens, name)
    w = jnp.asarray(a["out.ws"])
    halflife = len(w) * np.log(0.5) / np.log(meta["magnitude_ema_beta"])
    module = G.module.clone(magnitude_halflife=float(halflife))

    @jax.jit
    def run(w):
        return module.apply(G.variables, w, method="synthesis", mutable=["tracked"])

    images, new = run(w)
    _close(images, nhwc(a["ema.img"]), tolerance)
    for layer, theirs in enumerate(meta["layer_names"]):
        want = a[f"ema.synthesis.{theirs}.magnitude_ema"]
        got = new["tracked"]["synthesis"][f"L{layer}"]["magnitude"]
        np.testing.assert_allclose(got, want, rtol=1e-5)

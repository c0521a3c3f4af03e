"""StyleGAN2's networks against independent float32 values, read by interop.stylegan2.

Names, buffers and layouts are those of the published files. Tolerances are of the reference's
README: outputs 3e-5 max(1, S), gradients 2e-4 S, of a penalty 1e-3 S, norms likewise.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.interop import stylegan2 as interop
from jaxgen.networks.stylegan2 import Mapping, truncate
from jaxgen.objectives import r1

SLOW = pytest.mark.slow
GENERATORS = (
    "sg2_gen_skip_32",
    "sg2_gen_resnet_32",
    "sg2_gen_orig_32",
    "sg2_gen_skip_64_clamp",
    "sg2_gen_skip_16_misc",
)
DISCRIMINATORS = (
    "sg2_disc_resnet_32_cond",
    "sg2_disc_resnet_32",
    "sg2_disc_resnet_64",
    "sg2_disc_orig_32",
    "sg2_disc_skip_32",
)
# Gradients of the others take a minute to compile.
some = lambda names: [names[0], *(pytest.param(n, marks=SLOW) for n in names[1:])]


@pytest.fixture(scope="module", autouse=True)
def precise():
    with jax.default_matmul_precision("highest"):
        yield


def read(goldens, name):
    with np.load(goldens / f"gan/{name}.npz", allow_pickle=False) as z:
        arrays = {k: z[k] for k in z.files if k != "meta"}
        return arrays, json.loads(str(z["meta"]))


def official(arrays):
    kinds = ("param.", "buffer.")
    return {k.split(".", 1)[1]: v for k, v in arrays.items() if k.startswith(kinds)}


def generator(goldens, name):
    a, meta = read(goldens, name)
    blocks = {k: meta[k] for k in ("channel_base", "channel_max", "architecture")}
    G = interop.load_generator(
        official(a),
        **{k: meta[k] for k in ("z_dim", "c_dim", "w_dim", "img_channels")},
        img_resolution=meta["res"],
        mapping_kwargs={"num_layers": meta["map_layers"]},
        synthesis_kwargs=blocks | meta["extra"],
    )
    return G, a


def discriminator(goldens, name):
    a, meta = read(goldens, name)
    same = ("c_dim", "img_channels", "architecture", "channel_base", "channel_max", "conv_clamp")
    D = interop.load_discriminator(
        official(a),
        **{k: meta[k] for k in (*same, "cmap_dim")},
        img_resolution=meta["res"],
        mapping_kwargs={"num_layers": meta["map_layers"]},
        epilogue_kwargs=meta["epilogue"],
    )
    return D, a


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def close(got, want, tolerance=3e-5):
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(np.asarray(got), want, atol=tolerance * scale, rtol=0)


def near(got, want, tolerance, name=""):
    """Of a gradient: relative to its own largest entry."""
    atol = tolerance * float(np.abs(want).max())
    np.testing.assert_allclose(np.asarray(got), want, atol=atol, rtol=0, err_msg=name)


def same_arrays(back, arrays):
    assert back.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x, strict=True, err_msg=name)


@pytest.mark.parametrize("name", GENERATORS)
def test_images(goldens, name):
    G, a = generator(goldens, name)
    same_arrays(interop.dump_generator(G), official(a))
    z, labels = a["in.z"], a["in.c"]
    close(G.mapping(z, labels), a["out.w"])
    close(G(z, labels), nhwc(a["out.img_const"]))
    close(G(z, labels, truncation_psi=0.6), nhwc(a["out.img_const_psi0.6"]))
    close(G.synthesis(a["in.ws_mixed"]), nhwc(a["out.img_from_ws"]))
    # Noise of no strength is no noise; that noise="none" is the same, tests/interop says.
    still = trees.map_named(lambda n, x: 0 * x if n.endswith("noise_strength") else x, G.variables)
    close(dataclasses.replace(G, variables=still)(z, labels), nhwc(a["out.img_none"]))


@pytest.mark.parametrize("name", some(GENERATORS))
def test_gradients_of_images(goldens, name):
    """With respect to every style and parameter, for styles that differ from layer to layer."""
    G, a = generator(goldens, name)

    @jax.jit
    def run(variables, ws, gy):
        back = jax.vjp(lambda *a: G.module.apply(*a, method="synthesis"), variables, ws)[1]
        return back(gy)

    gp, gw = run(G.variables, jnp.asarray(a["in.ws_mixed"]), nhwc(a["in.gy"]))
    near(gw, a["grad.ws"], 2e-4)
    found = interop.dump_generator(dataclasses.replace(G, variables=gp))
    wanted = {k.removeprefix("grad."): v for k, v in a.items() if k.startswith("grad.synthesis")}
    assert len(wanted) > 20
    for key, want in wanted.items():
        near(found[key], want, 2e-4, key)


@pytest.mark.parametrize("name", DISCRIMINATORS)
def test_logits(goldens, name):
    D, a = discriminator(goldens, name)
    same_arrays(interop.dump_discriminator(D), official(a))
    close(D(nhwc(a["in.img"]), a["in.c"])[:, None], a["out.logits"])


@pytest.mark.parametrize("name", some(DISCRIMINATORS))
def test_gradients_of_logits_and_r1(goldens, name):
    """R1 of ..._64 is the tightest: its groups of two amplify a rounding of the images 9000 times.

    Images that are changed by 1e-7 change the gradients of its biases by 9e-4 S.
    """
    D, a = discriminator(goldens, name)
    x = nhwc(a["in.img"])
    cond = {"label": jnp.asarray(a["in.c"])} if D.init["c_dim"] else None

    @jax.jit
    def run(variables, x):
        judge = D.module.apply
        penalty = lambda v: r1.penalty(lambda x: judge(v, x, cond), x, gamma=2.0)
        values, back = jax.vjp(penalty, variables)
        return (
            jax.grad(lambda x: judge(variables, x, cond).sum())(x),
            values,
            jax.grad(lambda v: jax.nn.softplus(-judge(v, x, cond)).mean())(variables),
            back(jnp.full(values.shape, 1 / len(values)))[0],
        )

    gx, penalty, gmain, gr1 = run(D.variables, x)
    near(gx, nhwc(a["out.dlogits_dimg"]), 2e-4)
    np.testing.assert_allclose(penalty, a["out.r1_penalty"], rtol=2e-4)
    for g, kind, tolerance in ((gmain, "mean_softplus_neg", 2e-4), (gr1, "mean_r1", 1e-3)):
        found = interop.dump_discriminator(dataclasses.replace(D, variables=g))
        for key, got in found.items():
            if f"grad_of_{kind}.{key}" in a:
                near(got, a[f"grad_of_{kind}.{key}"], tolerance, key)
            if f"gradnorm_of_{kind}.{key}" in a:
                norm = np.linalg.norm(got.ravel())
                np.testing.assert_allclose(norm, a[f"gradnorm_of_{kind}.{key}"], rtol=tolerance)


def test_mapping_and_truncation(goldens):
    """Depths, widths, labels alone; truncation in all layers and some; the average of w."""
    a, meta = read(goldens, "sg2_mapping")
    assert len(meta["cases"]) == 4
    for i, case in enumerate(meta["cases"]):
        get = {k.split(".", 1)[1]: v for k, v in a.items() if k.startswith(f"c{i}.")}
        m = Mapping(
            case["w_dim"],
            case.get("num_layers", 8),
            case.get("lr_multiplier", 0.01),
            case.get("layer_features"),
            case.get("embed_features"),
            case.get("activation", "lrelu"),
        )
        arrays = official(get)
        layers = sorted({k.split(".")[0] for k in arrays} - {"w_avg"})
        p = {n: {"w": arrays[f"{n}.weight"].T, "b": arrays[f"{n}.bias"]} for n in layers}
        z = jnp.asarray(get["in.z"]) if case["z_dim"] else None
        label = jnp.asarray(get["in.c"]) if case["c_dim"] else None
        map_ = jax.jit(lambda p, z, label: m.apply({"params": p}, z, label))  # noqa: B023
        w = map_(p, z, label)
        close(w, get["out.w"])
        if case["num_ws"] is None:
            continue
        ws = jnp.repeat(w[:, None], case["num_ws"], 1)
        for key in (k for k in get if k.startswith("out.ws_psi")):
            psi, cutoff = key.removeprefix("out.ws_psi").split("_cut")
            cutoff = None if cutoff == "None" else int(cutoff)
            close(truncate(ws, arrays["w_avg"], float(psi), cutoff), get[key])
        average = arrays["w_avg"]
        for latent in (z, z * 0.5 + 1):  # the file's "after_1" is "after_2" once more
            mean = np.asarray(map_(p, latent, label)).mean(0)
            average = mean + case["beta"] * (average - mean)
        close(average, get["out.w_avg_after_2"])

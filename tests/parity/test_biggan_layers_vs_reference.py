"""Layers of SN-GAN, SAGAN and BigGAN against stored values and gradients, tolerance 1e-5."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.nn.batch_norm import ConditionalBatchNorm
from jaxgen.nn.convolution import NHWC, conv
from jaxgen.nn.projection import ProjectionHead
from jaxgen.nn.sagan_attention import SaganAttention
from jaxgen.nn.spectral_norm import normalised


@pytest.fixture(scope="module", autouse=True)
def precise():
    with jax.default_matmul_precision("highest"):
        yield


def load(goldens, name):
    with np.load(goldens / f"losses/{name}.npz") as z:
        return {k: z[k] for k in z.files}


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def close(got, want, name=""):
    scale = max(1.0, float(np.abs(want).max()))
    np.testing.assert_allclose(np.asarray(got), want, atol=1e-5 * scale, rtol=0, err_msg=name)


def conv_transpose(x, w):
    """The transpose of a convolution of stride 2 and padding 1, w (4, 4, in, out)."""
    pad = ((2, 2), (2, 2))
    return jax.lax.conv_general_dilated(
        x, w[::-1, ::-1], (1, 1), pad, lhs_dilation=(2, 2), dimension_numbers=NHWC
    )


LAYERS = {  # axes of the official weight in our order, and what is done with it
    "linear": ((1, 0), lambda x, w: x @ w),
    "conv": ((2, 3, 1, 0), conv),
    "convT": ((2, 3, 0, 1), conv_transpose),
    "embedding": ((1, 0), lambda x, w: w.T[x]),  # one row of the matrix is a class
}


def test_spectral_norm(goldens):
    z = load(goldens, "spectral_norm")

    @jax.jit
    def run(inputs):
        found = {}
        for name, (_, apply) in LAYERS.items():
            x, w, u, r = inputs[name]

            def of(w, n):
                normal, new = normalised(w, u, n)  # noqa: B023
                out = apply(x, normal)  # noqa: B023
                return (out * r).sum(), (out, normal, new)  # noqa: B023

            for n in (1, 3):
                found[f"{name}.it{n}"] = jax.value_and_grad(of, has_aux=True)(w, n)
        return found

    inputs = {}
    for name, (axes, _) in LAYERS.items():
        x, r = z[f"{name}.x"], z[f"{name}.r"]
        x, r = (nhwc(x), nhwc(r)) if x.ndim == 4 else (jnp.asarray(x), jnp.asarray(r))
        inputs[name] = x, z[f"{name}.weight"].transpose(axes), z[f"{name}.u0"], r
    for key, ((_, (out, normal, u)), grad) in run(inputs).items():
        name = key.split(".it")[0]
        axes, kept = LAYERS[name][0], f"{key}."
        back = lambda x: np.transpose(x, np.argsort(axes))  # noqa: B023
        close(u, z[kept + "u1"], key)
        close(back(normal), z[kept + "w_sn"], key)
        close(back(grad), z[kept + "grad_weight"], key)
        want = z[kept + "out"]
        want = nhwc(want) if want.ndim == 4 else want
        close(out + z.get(f"{name}.bias", 0.0), want, key)
        sigma = float(z[f"{name}.weight"].ravel()[0] / back(normal).ravel()[0])
        np.testing.assert_allclose(sigma, z[kept + "sigma"], rtol=1e-5)


def test_conditional_batch_norm(goldens):
    z = load(goldens, "conditional_batchnorm")
    layer = ConditionalBatchNorm(eps=float(z["eps"]), momentum=float(z["momentum"]))
    p = {
        "mean": z["p.bn.running_mean"],
        "var": z["p.bn.running_var"],
        "gain": {"w": z["p.gain.weight"].T},
        "shift": {"w": z["p.bias.weight"].T},
    }

    @jax.jit
    def run(p, x, y, r):
        def train(p, x):
            out, new = layer.apply({"params": p}, x, y, mutable=["tracked"])
            return (out * r).sum(), (out, new["tracked"])

        grads = jax.value_and_grad(train, (0, 1), has_aux=True)(p, x)
        return layer.apply({"params": p}, x, y), grads

    x, y, r = nhwc(z["x"]), jnp.asarray(z["y"]), nhwc(z["r"])
    evaluated, ((_, (out, new)), (gp, gx)) = run(p, x, y, r)
    close(evaluated, nhwc(z["out_eval"]))
    close(out, nhwc(z["out_train"]))
    close(gx, nhwc(z["grad_x"]))
    close(gp["gain"]["w"].T, z["grad_gain"])
    close(gp["shift"]["w"].T, z["grad_bias"])
    assert not gp["mean"].any() and not gp["var"].any()
    close(new["mean"], z["running_mean_after"])
    close(new["var"], z["running_var_after"])
    # A table of gains and shifts: the condition is a one-hot label.
    table = {"gain": {"w": z["table.gamma"] - 1}, "shift": {"w": z["table.beta"]}}
    layer, label = ConditionalBatchNorm(), jax.nn.one_hot(z["table.labels"], 4)
    out, _ = layer.apply({"params": {**p, **table}}, x, label, mutable=["tracked"])
    close(out, nhwc(z["table.out"]))


def test_attention(goldens):
    z = load(goldens, "attention_projection")
    x, matrix = nhwc(z["x"]), lambda k: jnp.asarray(z[k]).reshape(z[k].shape[:2]).T
    names = {"theta": "theta", "phi": "phi", "g": "g", "out": "attn"}
    p = {k: {"w": matrix(f"p.conv1x1_{v}.weight")} for k, v in names.items()}
    p["gamma"] = z["p.sigma"][0]
    names = {"theta": "g", "phi": "f", "g": "h", "out": "v"}  # the paper's
    paper = {k: {"w": matrix(f"paper.{v}")} for k, v in names.items()}
    paper["gamma"] = z["paper.gamma"]

    @jax.jit
    def run(p, paper, x):
        pooled = lambda p, x: SaganAttention().apply({"params": p}, x)
        loss = lambda p, x: jnp.square(pooled(p, x)).mean()
        whole = SaganAttention(values=8, pool=False)
        still = pooled({**p, "gamma": jnp.zeros(())}, x)
        out = pooled(p, x), whole.apply({"params": paper}, x), still
        return out, jax.grad(loss, (0, 1))(p, x)

    (out, of_paper, still), (gp, gx) = run(p, paper, x)
    close(out, nhwc(z["out"]))
    close(of_paper, nhwc(z["paper.out"]))
    assert float(jnp.abs(still - x).max()) == z["out_gamma0_maxdiff"] == 0
    close(gx, nhwc(z["grad_x"]))
    np.testing.assert_allclose(gp["gamma"], z["grad_gamma"][0], rtol=1e-5)
    close(gp["phi"]["w"].T, z["grad_phi"].reshape(2, 16))


def test_projection(goldens):
    z = load(goldens, "attention_projection")
    p = {
        "out": {"w": jnp.asarray(z["proj.psi"]).T, "b": jnp.asarray(z["proj.b"])[None]},
        "embed": {"w": jnp.asarray(z["proj.V"])},
    }
    head, x = ProjectionHead(), nhwc(z["proj.feat"])
    run = jax.jit(lambda p, x, label: head.apply({"params": p}, x, label))
    close(run(p, x, jax.nn.one_hot(z["proj.labels"], 5)), z["proj.logit"])
    close(run({"out": p["out"]}, x, None), z["proj.logit_uncond"])

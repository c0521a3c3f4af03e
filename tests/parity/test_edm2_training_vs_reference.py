"""Six EDM2 training steps and its learning rates against independent reference values.

A step of the reference: weights are overwritten by their normalised version, gradient there, Adam
with the rate of the image count before the step, power-function averages with the count after it.
So its averages and results see weights that Adam has just moved off the sphere. Here a step ends
with the normalisation, and the averages see normalised weights; the last test measures the gap.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import averaging
from jaxgen.averaging.power import Power
from jaxgen.common import trees
from jaxgen.interop import common
from jaxgen.interop import edm2 as interop
from jaxgen.networks.edm2 import project
from jaxgen.noise import precondition
from jaxgen.objectives import edm2 as objective
from jaxgen.train import optim

INIT = {
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 4,
    "model_channels": 16,
    "channel_mult": (1, 2),
    "num_blocks": 1,
    "attn_resolutions": (4,),
    "channels_per_head": 16,
    "logvar_channels": 32,
}
LENGTHS = (0.05, 0.10)
P_MEAN, P_STD = -0.4, 1.0


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def run(goldens):
    """The reference, and our parameters, averages and logs after its six steps."""
    z = np.load(goldens / "diffusion/edm2_train.npz")
    arrays = {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith(("param/", "buffer/"))}
    start = interop.load(arrays, **INIT)
    ref_lr, ref_batches, rampup, scale, rounds, b1, b2, eps = z["info/hyper"].tolist()
    assert scale == rounds == 1
    batch = z["in/images"].shape[1]
    rate = optim.inverse_sqrt(ref_lr, ref_batches * batch, rampup * 1e6)
    adam = optim.adam(rate, b1=b1, b2=b2, eps=eps)
    params = {"network": start.variables["params"], "head": start.head_variables["params"]}
    shapes = [p.shape for p in jax.tree.leaves(params)]
    ends = np.cumsum([np.prod(s, dtype=int) for s in shapes])

    # One vector on the host for Adam and the averages: sixty arrays are slow to compile.
    def vector(tree):
        return np.concatenate([np.ravel(p) for p in jax.tree.leaves(tree)])

    def tree_of(v):
        parts = [p.reshape(s) for p, s in zip(np.split(np.asarray(v), ends[:-1]), shapes)]
        return jax.tree.unflatten(jax.tree.structure(params), parts)

    def loss(params, y, label, sigma, noise):
        raw = lambda x, c, cond: start.module.apply({"params": params["network"]}, x, c, cond)
        u = lambda s: start.head.apply({"params": params["head"]}, jnp.log(s) / 4)
        denoise = precondition.edm(raw, 0.5)
        return objective.loss_at(denoise, u, y, sigma, noise, {"label": label})[0].mean()

    @jax.jit
    def forward_backward(params, *data):
        at = project(params)
        return at, *jax.value_and_grad(loss)(at, *data)

    now = vector(params)
    opt, logs = adam.init(now), []
    averages = {kind: [now] * 2 for kind in ("reference", "ours")}

    def average(kind, v, nimg):
        weights = [Power(s).weight(jnp.float32(nimg), batch) for s in LENGTHS]
        averages[kind] = [averaging.update(a, v, w) for a, w in zip(averages[kind], weights)]

    with jax.default_matmul_precision("highest"):
        for i in range(len(z["in/labels"]) + 1):
            k = min(i, len(z["in/labels"]) - 1)  # once more, for the last normalised weights
            data = (
                nhwc(z["in/images"][k]),
                jnp.eye(4)[z["in/labels"][k]],
                jnp.exp(P_MEAN + P_STD * z["in/z"][k]),
                nhwc(z["in/eps"][k]),
            )
            at, value, grads = forward_backward(tree_of(now), *data)
            at, g = vector(at), vector(grads)
            if i:
                average("ours", at, i * batch)
            if i == k:
                updates, opt = adam.update(g, opt, at, nimg=jnp.float32(i * batch))
                now = at + np.asarray(updates)
                average("reference", now, (i + 1) * batch)
                logs.append((value, opt[-1].learning_rate, np.linalg.norm(g)))
    trees_of = {kind: [tree_of(v) for v in a] for kind, a in averages.items()}
    return z, start, tree_of(now), trees_of, np.asarray(logs).T


def test_losses_rates_and_gradients(run):
    z, *_, (losses, rates, norms) = run
    np.testing.assert_allclose(losses, z["out/loss"], rtol=1e-5)
    np.testing.assert_allclose(rates, z["out/lr"], rtol=1e-5)
    np.testing.assert_allclose(norms, z["out/gradnorm"], rtol=1e-3)


def test_parameters_and_averages(run):
    z, _, params, averages, _ = run
    for what, tree in (("param", params), *zip(("ema0.050", "ema0.100"), averages["reference"])):
        flat = {}
        for player, prefix in (("network", "unet."), ("head", "logvar_")):
            leaves = trees.leaves(tree[player])
            names = interop.official_names(leaves, prefix)
            flat |= {o: np.asarray(leaves[ours]) for ours, o in names.items()}
        for name, row in zip(z[f"out/{what}stats_names"], z[f"out/{what}stats"], strict=True):
            norm = np.linalg.norm(common.to_official(flat[str(name)]).ravel())
            assert norm == pytest.approx(row[0], rel=5e-3), (what, name)


def images(run, tree):
    z, start, *_ = run
    moved = dataclasses.replace(start, variables={"params": tree["network"]})
    labels = np.eye(4, dtype=np.float32)[z["in/labels"][0]]
    with jax.default_matmul_precision("highest"):
        return moved(nhwc(z["in/images"][0]), 0.5, labels)


def test_denoised_images(run):
    z, _, params, averages, _ = run
    for what, tree in (("net", params), *zip(("ema0.050", "ema0.100"), averages["reference"])):
        want = nhwc(z[f"out/D_{what}"])
        np.testing.assert_allclose(images(run, tree), want, atol=1e-4, err_msg=what)


def test_averages_of_normalised_weights_give_nearly_the_same_images(run):
    _, _, _, averages, _ = run
    for ours, reference in zip(averages["ours"], averages["reference"]):
        np.testing.assert_allclose(images(run, ours), images(run, reference), atol=2e-6)


def test_learning_rates(goldens):
    z = np.load(goldens / "diffusion/edm2_lr_schedule.npz")
    cases = sorted({k.split("/")[0] for k in z.files} - {"nimg"})
    assert len(cases) == 5
    for case in cases:
        arg = lambda name, case=case: float(z[f"{case}/arg_{name}"])
        rate = optim.inverse_sqrt(
            arg("ref_lr"), arg("ref_batches") * arg("batch_size"), arg("rampup_Mimg") * 1e6
        )
        got = [rate(jnp.float32(n)) for n in z["nimg"]]
        np.testing.assert_allclose(got, z[f"{case}/lr"], rtol=1e-5, err_msg=case)

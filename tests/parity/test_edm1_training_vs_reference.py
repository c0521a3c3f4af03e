"""Six EDM training steps of a small DDPM++ against independent float32 reference values.

Rate and half-life average count the images before the step, so that the first step moves nothing.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import averaging
from jaxgen.averaging.ema import HalfLife
from jaxgen.common import trees
from jaxgen.interop import common
from jaxgen.interop import edm as interop
from jaxgen.noise import levels, precondition
from jaxgen.objectives import edm as objective
from jaxgen.train import optim

INIT = {
    "precond": "edm",
    "model_type": "SongUNet",
    "img_resolution": 8,
    "img_channels": 3,
    "label_dim": 3,
    "model_channels": 16,
    "channel_mult": [1, 1],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


@pytest.fixture(scope="module")
def run(goldens):
    """The reference, and our parameters, average and logs after its six steps."""
    z = np.load(goldens / "diffusion/edm1_train.npz")
    arrays = {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith(("param/", "buffer/"))}
    start = interop.load(arrays, **INIT)
    lr, rampup, halflife, ramp, scale, b1, b2, eps = z["info/hyper"].tolist()
    assert scale == 1
    adam = optim.adam(optim.inverse_sqrt(lr, 0, rampup), b1=b1, b2=b2, eps=eps)
    ema, batch = HalfLife(halflife, ramp), z["in/images"].shape[1]

    def loss(params, y, label, sigma, eps):
        raw = lambda x, c, cond: start.module.apply({"params": params}, x, c, cond)
        denoise = precondition.denoiser(raw, start.family)
        cond = {"label": label}
        return objective.loss_at(denoise, y, sigma, eps, cond, levels.edm_weight)[0].mean()

    gradient = jax.jit(jax.value_and_grad(loss))
    # Arrays on the host: Adam and the average are elementwise, and eager jax compiles each shape.
    host = lambda tree: jax.tree.map(np.asarray, tree)
    params = average = host(start.variables["params"])
    flat, build = jax.flatten_util.ravel_pytree(params)
    opt, logs = adam.init(flat), []
    with jax.default_matmul_precision("highest"):
        for i, labels in enumerate(z["in/labels"]):
            label = jnp.asarray(labels, jnp.float32)
            label = jnp.eye(3)[labels] if label.ndim == 1 else label
            sigma = jnp.exp(-1.2 + 1.2 * z["in/z"][i])
            data = nhwc(z["in/images"][i]), label, sigma, nhwc(z["in/eps"][i])
            value, grads = gradient(build(flat), *data)
            g = jax.flatten_util.ravel_pytree(grads)[0]
            updates, opt = adam.update(g, opt, flat, nimg=jnp.float32(i * batch))
            flat = flat + updates
            weight = ema.weight(jnp.float32((i + 1) * batch), batch)
            if i == 0:
                average = flat
            average = averaging.update(average, flat, weight)
            rate = opt[-1].learning_rate
            logs.append((value, rate, 1 - weight, jnp.linalg.norm(g)))
    return z, start, build(flat), build(average), np.asarray(logs).T


def test_losses_rates_and_gradients(run):
    z, *_, (losses, rates, betas, norms) = run
    np.testing.assert_allclose(losses, z["out/loss"], rtol=1e-5)
    np.testing.assert_allclose(rates, z["out/lr"], rtol=1e-5)
    np.testing.assert_allclose(betas, z["out/ema_beta"], rtol=1e-5, atol=1e-7)
    want = [float(z[f"step{i}/gradnorm"]) for i in range(len(norms))]
    np.testing.assert_allclose(norms, want, rtol=1e-3)


def test_parameters_and_average(run):
    z, start, params, average, _ = run
    for what, tree in (("param", params), ("ema", average)):
        leaves = trees.leaves(tree)
        names = interop.official_names(leaves, start.init)
        flat = {o: np.asarray(leaves[ours]) for ours, o in names.items()}
        for name, row in zip(map(str, z[f"out/{what}stats_names"]), z[f"out/{what}stats"]):
            name = name.removeprefix("model.")
            if "resample_filter" in name:
                continue
            norm = np.linalg.norm(common.to_official(flat[name]).ravel())
            assert norm == pytest.approx(row[0], rel=3e-2), (what, name)


def test_denoised_images(run):
    z, start, _, average, _ = run
    moved = dataclasses.replace(start, variables={"params": average})
    labels = z["in/labels"][0]
    labels = np.eye(3, dtype=np.float32)[labels] if labels.ndim == 1 else labels
    with jax.default_matmul_precision("highest"):
        got = moved(nhwc(z["in/images"][0]), 0.5, labels)
    np.testing.assert_allclose(got, nhwc(z["out/D_ema"]), atol=1e-4)

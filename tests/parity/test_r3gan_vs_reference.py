"""R3GAN against independent float32 values, read by interop.r3gan.

Tolerances are of the reference's README: outputs 3e-5 max(1, S), gradients 2e-4 S, of penalties
1e-3 S, norms and losses likewise.
"""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params
from jaxgen.interop import r3gan as interop
from jaxgen.nn.resample import down2, up2
from jaxgen.objectives import r1, relativistic

FILES = ("r3gan_cond_32", pytest.param("r3gan_uncond_16", marks=pytest.mark.slow))


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def near(got, want, tolerance, at_least=0.0, name=""):
    atol = tolerance * max(at_least, float(np.abs(want).max()))
    np.testing.assert_allclose(np.asarray(got), want, atol=atol, rtol=0, err_msg=name)


@pytest.fixture(scope="module", params=FILES)
def case(request, goldens):
    """The reference's arrays and settings, and both networks."""
    with np.load(goldens / f"gan/{request.param}.npz", allow_pickle=False) as z:
        a, meta = {k: z[k] for k in z.files if k != "meta"}, json.loads(str(z["meta"]))
    of = lambda kind: {
        k.split(".", 2)[2]: x
        for k, x in a.items()
        if k.startswith((f"param.{kind}.", f"buffer.{kind}."))
    }
    both = {
        "BlocksPerStage": meta["blocks"],
        "CardinalityPerStage": meta["cardinality"],
        "WidthPerStage": meta["widths"],
        "ExpansionFactor": meta["expansion"],
        "ResamplingFilter": meta["filter"],
        "ConditionDimension": meta["cond"],
    }
    G = interop.load_generator(
        of("G"), **both, NoiseDimension=meta["noise_dim"], ConditionEmbeddingDimension=meta["emb_G"]
    )
    turned = {k: both[k][::-1] for k in ("BlocksPerStage", "CardinalityPerStage")}
    turned |= {"WidthPerStage": meta["D_widths"], "ConditionEmbeddingDimension": meta["emb_D"]}
    D = interop.load_discriminator(of("D"), **both | turned)
    return G, D, a, meta, of


@pytest.fixture(scope="module")
def step(case):
    """Outputs, losses and gradients of one update of each network, in one program."""
    G, D, a, meta, _ = case
    z, real = jnp.asarray(a["in.z"]), nhwc(a["in.real"])
    cond = {"label": jnp.asarray(a["in.c"])} if "in.c" in a else None

    twice = None if cond is None else {"label": jnp.tile(cond["label"], (2, 1))}

    @jax.jit
    def run(g, d, z, real):
        def of_generator(g):
            fake = G.module.apply(g, z, cond)
            logits = D.module.apply(d, fake, cond)
            losses = relativistic.generator(jnp.asarray(a["out.D_real"]), logits)
            return losses.mean(), (losses, fake, logits)

        gen = jax.value_and_grad(of_generator, has_aux=True)(g)
        x = jnp.concatenate([real, gen[0][1][1]])  # nothing couples the images of a batch

        def of_discriminator(d):
            judge = lambda x: D.module.apply(d, x, twice)
            real_logits, fake_logits = jnp.split(judge(x), 2)
            adv = relativistic.discriminator(real_logits, fake_logits)
            squares = jnp.split(r1.square_gradient(judge, x), 2)
            total = adv + meta["gamma"] / 2 * sum(squares)
            return total.mean(), (adv, *squares, real_logits)

        return gen, jax.value_and_grad(of_discriminator, has_aux=True)(d)

    with jax.default_matmul_precision("highest"):
        return run(G.variables, D.variables, z, real)


def test_the_round_trip_and_the_numbers_of_parameters(case):
    G, D, a, meta, of = case
    for kind, imported in (("G", G), ("D", D)):
        back, arrays = interop.dump(imported), of(kind)
        assert back.keys() == arrays.keys()
        for name, x in arrays.items():
            np.testing.assert_array_equal(back[name], x, strict=True, err_msg=name)
        sizes = [x.size for k, x in a.items() if k.startswith(f"param.{kind}.")]
        assert sum(sizes) == meta[f"params_{kind}"]


def test_images_and_logits(case, step):
    _, _, a, _, _ = case
    ((_, (_, fake, fake_logits)), _), ((_, (*_, real_logits)), _) = step
    near(fake, nhwc(a["out.fake"]), 3e-5, 1.0)
    near(real_logits, a["out.D_real"], 3e-5, 1.0)
    near(fake_logits, a["out.D_fake"], 3e-5, 1.0)


def gradients(imported, grads, a, phase, tolerance):
    found = interop.dump(dataclasses.replace(imported, variables=grads))
    tensors = norms = 0
    for name, got in found.items():
        if f"{phase}.grad.{name}" in a:
            near(got, a[f"{phase}.grad.{name}"], tolerance, name=name)
            tensors += 1
        if f"{phase}.gradnorm.{name}" in a:
            norm = np.linalg.norm(got.ravel())
            np.testing.assert_allclose(norm, a[f"{phase}.gradnorm.{name}"], rtol=tolerance)
            norms += 1
    assert tensors > 10 and norms == len([k for k in found if not k.endswith("Kernel")])


def test_a_step_of_the_generator(case, step):
    G, _, a, _, _ = case
    (_, (losses, *_)), grads = step[0]
    np.testing.assert_allclose(losses, a["Gstep.loss"], rtol=2e-4)
    gradients(G, grads, a, "Gstep", 2e-4)


def test_a_step_of_the_discriminator(case, step):
    _, D, a, _, _ = case
    (total, (adv, square_real, square_fake, _)), grads = step[1]
    for got, name in ((total, "total_loss"), (adv, "adv_loss")):
        np.testing.assert_allclose(got, a[f"Dstep.{name}"], rtol=2e-4)
    for got, name in ((square_real, "r1"), (square_fake, "r2")):
        np.testing.assert_allclose(got, a[f"Dstep.{name}"], rtol=1e-3)
    gradients(D, grads, a, "Dstep", 1e-3)


@pytest.mark.slow
def test_how_the_weights_start(case):
    """Within five standard errors of the reference's draws, exactly where it starts at 0."""
    G, D, a, meta, _ = case
    cond = {"label": jnp.asarray(a["in.c"])} if "in.c" in a else None
    checked = 0
    for kind, imported, x in (("G", G, a["in.z"]), ("D", D, nhwc(a["in.real"]))):
        p = params.init(imported.module, jax.random.key(0), x, cond)
        found = interop.dump(dataclasses.replace(imported, variables={"params": p}))
        for name, value in found.items():
            if f"{kind}.{name}" not in meta["init_shape_std"]:
                continue
            shape, std = meta["init_shape_std"][f"{kind}.{name}"]
            assert list(value.shape) == shape
            # Both are estimates from n numbers, each with relative error (2 n)^-1/2.
            np.testing.assert_allclose(value.std(), std, rtol=5 / value.size**0.5, err_msg=name)
            checked += 1
    assert checked == len(meta["init_shape_std"])


def test_resampling(goldens):
    z = np.load(goldens / "gan/r3gan_misc.npz")
    larger, smaller = jax.jit(lambda x: (up2(x), down2(x)))(nhwc(z["c0.x"]))
    near(larger, nhwc(z["c0.up"]), 2e-6, 1.0)
    near(smaller, nhwc(z["c0.down"]), 2e-6, 1.0)

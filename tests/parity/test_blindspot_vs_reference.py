"""The blind-spot network, its posterior and Noise2Noise's losses against the authors' numbers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.metrics import psnr
from jaxgen.networks import blindspot
from jaxgen.networks.blindspot import BlindSpot
from jaxgen.networks.n2n_unet import double, pool
from jaxgen.nn.convolution import conv
from jaxgen.objectives import blindspot as posterior
from jaxgen.objectives import blindspot_impulse, noise2noise
from jaxgen.recipes.denoise import ramps
from tests.parity.test_gan_vs_reference import _recipe_param, hwio, nhwc

FILES = "blindspot_ops", "network_small", "network_full", "posterior", "misc"


@pytest.fixture(scope="module")
def arrays(goldens):
    def load(name):
        with np.load(goldens / f"denoise/{name}.npz", allow_pickle=False) as z:
            return {k: z[k] for k in z.files}

    return {name: load(name) for name in FILES}


def test_shifted_operations(arrays):
    a = arrays["blindspot_ops"]
    x, w = nhwc(a["x"]), hwio(a["kernel_oihw"])
    for name, got in {
        "conv_up_only": conv(x, w, padding=blindspot.UP),
        "conv_up_only_alt": conv(x, w, padding=blindspot.UP),
        "pool_shifted": pool(blindspot.shift_down(x)),
        "shift_down": blindspot.shift_down(x),
        "upsample": double(x),
    }.items():
        np.testing.assert_allclose(got, nhwc(a[name]), atol=1e-6, rtol=1e-6, err_msg=name)
    for k, turned in enumerate(jnp.split(blindspot.rotations(x), 4)):
        np.testing.assert_array_equal(turned, nhwc(a[f"rot{90 * k}"]))


def _network(a, kind, full):
    """The network and its params: those in the file, or of the goldens' recipe."""
    features = (48, 96) if full else (6, 8)
    network = BlindSpot(features=features, out_channels=9, blind=kind == "blind")
    shapes = jax.eval_shape(lambda: network.init(jax.random.key(0), nhwc(a["x"])))["params"]

    def leaf(name, ours):
        layer, which = name.split("/")
        theirs = f"{layer}.{'W' if which == 'w' else 'b'}"
        if not full:
            return a[f"{kind}.p.{theirs}"].reshape(ours.shape)
        shape = ours.shape
        if which == "w":
            shape = (shape[-1], shape[-2], *(shape[:2] if len(shape) == 4 else (1, 1)))
        p = _recipe_param("d1/network/full", theirs, shape, 2.0)
        return np.transpose(p, (2, 3, 1, 0)).reshape(ours.shape) if which == "w" else p

    return network, trees.map_named(leaf, shapes)


@pytest.mark.parametrize("kind", ["blind", "plain"])
@pytest.mark.parametrize("size", ["small", "full"])
def test_network(arrays, size, kind):
    """Outputs; and raising one pixel moves every other pixel, of the blind network not its own."""
    a = arrays[f"network_{size}"]
    network, p = _network(a, kind, size == "full")
    total = sum(float(np.asarray(q, np.float64).sum()) for q in jax.tree.leaves(p))
    np.testing.assert_allclose(total, a[f"{kind}.params_sum"], rtol=1e-6)
    run = jax.jit(lambda x: network.apply({"params": p}, x))
    x = nhwc(a["x"])
    out = run(x)
    np.testing.assert_allclose(out, nhwc(a[f"{kind}.out"]), atol=2e-5)
    if size == "full":
        return
    for (i, j), moved in zip(a[f"{kind}.perturb_pos"], a[f"{kind}.moved"]):
        change = run(x.at[:, i, j].add(0.5)) - out
        np.testing.assert_array_equal(jnp.abs(change).max((0, 3)) > 0, moved)


def _case(a, name):
    """Prior, y, std or alpha, and whether it is learned, of a case such as c3.gauss.known.diag."""
    channels, noise, kind = name.split(".")[:3]
    c = int(channels[1])
    out = nhwc(a[f"{channels}.net_out"])
    prior = posterior.prior(out[..., : 2 * c] if name.endswith(".diag") else out, c)
    if kind == "known":
        p = jnp.asarray(a[f"{noise}.param"].reshape(2))
    else:
        raw = a[f"{noise}.per_image.raw_map"] if kind == "per_image" else a[f"{name}.raw"]
        p = posterior.parameter(jnp.asarray(raw).mean((1, 2, 3)) + jnp.zeros(2))
    learned, p = kind != "known", p.astype(out.dtype)
    std = {"gauss": posterior.gaussian_std, "poisson": posterior.poisson_std}.get(noise)
    return prior, nhwc(a[f"{channels}.noisy"]), std(p, prior.mean, learned) if std else p, learned


CASES = [
    f"{c}.{noise}.{kind}"
    for c, noises in (("c1", ("gauss", "poisson")), ("c3", ("gauss", "poisson", "impulse")))
    for noise in noises
    for kind in ("known", "global", "per_image", "known.diag")
    if (c, kind) != ("c1", "known.diag")
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_posterior(arrays, dtype):
    """All cases. The authors add 1e-6 three times in the posterior mean, which moves it by up to
    1.2e-4; with the same additions to our form it agrees to 1e-8 in float64, to 1e-4 in float32."""
    exact = dtype == "float64"
    with jax.enable_x64(True):
        a = {k: v.astype(dtype) if v.dtype.kind == "f" else v
             for k, v in arrays["posterior"].items()}  # fmt: skip
        for name in CASES:
            prior, y, noise, learned = _case(a, name)
            want, want_loss = nhwc(a[f"{name}.pme"]), a[f"{name}.loss"]
            if "impulse" in name:
                got = blindspot_impulse.posterior_mean(prior, y, noise)
                each = blindspot_impulse.loss(prior, y, noise)
            else:
                plain = posterior.posterior_mean(prior, y, noise)
                np.testing.assert_allclose(plain, want, atol=1.5e-4, rtol=0, err_msg=name)
                got = _with_additions(prior, y, noise)
                each = posterior.loss(prior, y, noise, learned)
                want_loss = want_loss.reshape(each.shape)
                np.testing.assert_allclose(prior.std, a[f"{name}.net_std"], rtol=1e-4)
            assert got.dtype == each.dtype == dtype, name
            limit = (1e-8, 1e-5) if exact else (1e-4, 1e-3)
            np.testing.assert_allclose(got, want, atol=limit[0], rtol=0, err_msg=name)
            np.testing.assert_allclose(each, want_loss, atol=limit[1], rtol=0, err_msg=name)


def _with_additions(prior, y, std, e=1e-6):
    """(P^-1 + N^-1 + e)^-1 (P^-1 mu + N^-1 y) with P = Sx + e, N = Sn + e, from our posterior mean.

    It is (1 + e T)^-1 m, m the posterior mean of P and N, T = P (P + N)^-1 N. One channel has none.
    """
    if y.shape[-1] == 1:
        return posterior.posterior_mean(prior, y, std)
    eye = jnp.eye(3, dtype=y.dtype)
    raised = prior._replace(root=jnp.linalg.cholesky(prior.covariance + e * eye))
    variance = jnp.broadcast_to(std**2 + e, y.shape)
    m = posterior.posterior_mean(raised, y, jnp.sqrt(variance))
    n = variance[..., None] * eye
    t = raised.covariance @ jnp.linalg.inv(raised.covariance + n) @ n
    return jnp.linalg.solve(eye + e * t, m[..., None])[..., 0]


def test_integrals_and_moments(arrays):
    """The table of numerical integrals, and one pixel without the authors' additions."""
    a = arrays["posterior"]
    with jax.enable_x64(True):
        column = lambda v: jnp.asarray(v).reshape(-1, 1, 1, 1)
        mu, sx, y, sn, _, want, _, _, alpha, want_closed, want_impulse = a["integral.table"].T
        prior = posterior.Prior(column(mu), column(sx)[..., None])
        got = posterior.posterior_mean(prior, column(y), column(sn))
        np.testing.assert_allclose(got[:, 0, 0, 0], want, atol=1e-12)
        got = blindspot_impulse.posterior_mean(prior, column(y), jnp.asarray(alpha))[:, 0, 0, 0]
        np.testing.assert_allclose(got, want_closed, atol=1e-4)
        np.testing.assert_allclose(got, want_impulse, atol=1e-4)


def test_schedules_and_exponents(arrays):
    a = arrays["misc"]
    n = jnp.asarray(a["lr.iters"], jnp.float32)
    total = int(a["lr.iters"].max())
    for name, up in (("lr.ssdn", 0.1), ("lr.n2n", 0.0)):
        got = ramps(3e-4, total, up, 0.3)(n)
        np.testing.assert_allclose(got, a[name], atol=3e-10, err_msg=name)
    np.testing.assert_allclose(noise2noise.exponent(n / total), a["L_exponent"], atol=1e-6)


def test_annealed_loss_and_psnr(arrays):
    a = arrays["misc"]
    x, y = nhwc(a["psnr.a"][None]), nhwc(a["psnr.b"][None])
    for gamma in (2.0, 1.3, 0.5):
        got = noise2noise.regression(x, y, "l0", gamma)
        np.testing.assert_allclose(got, a[f"l0.gamma{gamma}"], rtol=1e-5)
    to = lambda v: 2 * np.asarray(v, np.float64) - 1  # the file has [0, 1]
    np.testing.assert_allclose(psnr.psnr(to(x), to(y)), a["psnr.float_unclipped"], atol=1e-6)
    np.testing.assert_allclose(psnr.psnr_8bit(to(x), to(y)), a["psnr.ssdn_uint8"], atol=1e-4)

"""Adversarial losses, penalties and schedules against stored values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.objectives import (
    blur_fade,
    cosine,
    gradient_penalty,
    hinge,
    least_squares,
    lecam,
    lipschitz_penalty,
    minimax,
    nonsaturating,
    path_length,
    r1,
    relativistic,
    wasserstein,
)


def _averaged(discriminator, scale=1.0):
    """(discriminator, generator) of a loss on logits relative to the other side's mean."""
    d = lambda r, f: scale * discriminator(*relativistic.averaged(r, f))
    return d, lambda r, f: d(f, r)


def _pair(module, scale=1.0, **labels):
    fake_only = lambda r, f: scale * module.generator(f, **labels)
    return lambda r, f: scale * module.discriminator(r, f), fake_only


def _rals(r, f):
    return least_squares.discriminator(r, f, a=-1.0)


def _of_real(logits):
    return hinge.discriminator(logits, jnp.full_like(logits, -jnp.inf))


LOSSES = {  # name -> (of D, of G), functions of real and fake logits
    "ns": _pair(nonsaturating),
    "minimax": _pair(minimax),
    "hinge": _pair(hinge),
    "ls_half": _pair(least_squares),
    "ls": _pair(least_squares, 2.0),
    "wgan": _pair(wasserstein),
    "rp": (relativistic.discriminator, relativistic.generator),
    "ra": _averaged(nonsaturating.discriminator),
    "rals": _averaged(_rals, 2.0),
    "rahinge": _averaged(hinge.discriminator),
    # Of pairs: the real side of the hinge loss, with a fake image that is certain.
    "rphinge": (lambda r, f: _of_real(r - f), lambda r, f: _of_real(f - r)),
}


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def test_losses_and_their_gradients(goldens):
    z = np.load(goldens / "losses/gan_losses.npz")
    sides = {f"{n}.{s}": f for n, pair in LOSSES.items() for s, f in zip("dg", pair)}
    sides = {n: f for n, f in sides.items() if n in z.files}
    assert len(sides) == 2 * len(LOSSES) - 1

    @jax.jit
    def run(r, f):
        of = lambda loss: jax.value_and_grad(lambda r, f: loss(r, f).mean(), (0, 1))(r, f)
        return {name: of(loss) for name, loss in sides.items()}

    for name, (value, grads) in run(z["real"][:, 0], z["fake"][:, 0]).items():
        np.testing.assert_allclose(value, z[name], rtol=1e-6, err_msg=name)
        for got, side in zip(grads, ("real", "fake")):
            want = z[f"{name}.grad_{side}"][:, 0]
            np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-7, err_msg=name)


def test_gradient_penalties_and_their_gradients(goldens):
    z = np.load(goldens / "losses/gradient_penalties.npz")
    real, fake = nhwc(z["real"]), nhwc(z["fake"])
    p = {k: jnp.asarray(z[f"p.{k}"]) for k in ("w1", "b1", "w2", "b2")}
    x_hat = gradient_penalty.interpolates_at(z["eps"].ravel(), real, fake)

    def critic(p, x):
        dims = ("NHWC", "OIHW", "NCHW")
        y = jax.lax.conv_general_dilated(x, p["w1"], (1, 1), "SAME", dimension_numbers=dims)
        y = jnp.tanh(y + p["b1"][:, None, None]).reshape(len(x), -1)
        return (y @ p["w2"].T + p["b2"])[:, 0]

    @jax.jit
    def run(p):
        penalties = {
            "wgan_gp": lambda d: gradient_penalty.penalty(d, x_hat, 1.0),
            "wgan_lp": lambda d: lipschitz_penalty.penalty(d, x_hat, 1.0),
            "gp0": lambda d: r1.penalty(d, x_hat, 2.0),
            "r1_half": lambda d: r1.penalty(d, real, 1.0),
            "r2_half": lambda d: r1.penalty(d, fake, 1.0),
        }
        of = lambda f: jax.value_and_grad(lambda p: f(lambda x: critic(p, x)).mean())(p)
        at = {"interp": x_hat, "real": real, "fake": fake}
        norm = lambda x: jnp.sqrt(r1.square_gradient(lambda x: critic(p, x), x))
        return {n: of(f) for n, f in penalties.items()}, {n: norm(x) for n, x in at.items()}

    penalties, norms = run(p)
    for name, (value, grads) in penalties.items():
        np.testing.assert_allclose(value, z[name], rtol=1e-4, err_msg=name)
        for k, g in grads.items():
            want = z[f"{name}.grad.{k}"]
            np.testing.assert_allclose(g, want, rtol=1e-4, atol=1e-6, err_msg=f"{name} {k}")
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, z[f"grad_norms_{name}"], rtol=1e-5)


def test_lecam(goldens):
    z = np.load(goldens / "losses/gan_losses.npz")
    got = lecam.penalty(z["real"][:, 0], z["fake"][:, 0], *z["lecam.ema_real_fake"])
    np.testing.assert_allclose(got.mean(), z["lecam"], rtol=1e-5)


def test_path_length(goldens):
    """Stored with the mean held constant in the gradient, which is what a decay of 0 gives."""
    z = np.load(goldens / "losses/gradient_penalties.npz")
    gen, y = jnp.asarray(z["pl.gen"]), jnp.asarray(z["pl.y"]).reshape(6, -1) / 4

    def lengths(w, mean, decay):
        _, back = jax.vjp(lambda w: jnp.tanh(w @ gen.T), w)
        return path_length.penalty_at(back(y)[0][:, None], mean, 1.0, decay)

    @jax.jit
    def run(w):
        found = lengths(w, z["pl.mean0"], z["pl.decay"])
        constant = lambda w: lengths(w, found[2], 0.0)[0].mean()
        return found, jax.value_and_grad(constant)(w)

    (_, got, mean), (penalty, grad) = run(jnp.asarray(z["pl.w"]))
    np.testing.assert_allclose(got, z["pl.lengths"], rtol=1e-5)
    np.testing.assert_allclose(mean, z["pl.mean1"], rtol=1e-5)
    np.testing.assert_allclose(penalty, z["pl.penalty"], rtol=1e-5)
    np.testing.assert_allclose(grad, z["pl.grad_w"], rtol=1e-4, atol=1e-6)


def test_rules_of_training(goldens):
    z = np.load(goldens / "gan/train_rules.npz")
    x = jnp.asarray(z["softplus.x"])
    np.testing.assert_allclose(nonsaturating.generator(x), z["softplus.G_loss"], rtol=1e-6)
    fake = nonsaturating.discriminator(jnp.full_like(x, jnp.inf), x)  # a real image that is certain
    np.testing.assert_allclose(fake, z["softplus.D_fake"], rtol=1e-6)
    gamma = [r1.auto_gamma(int(res), int(batch)) for res, batch in z["r1auto.in_res_batch"]]
    np.testing.assert_allclose(gamma, z["r1auto.out_gamma"], rtol=1e-6)


def test_cosine_schedule(goldens):
    z = np.load(goldens / "gan/r3gan_misc.npz")
    base, final, total, nimg = z["schedule.base_final_total_curnimg"].T
    got = jax.vmap(cosine.schedule)(nimg, base, final, total)
    np.testing.assert_allclose(got, z["schedule.out_f64text"].astype(float), rtol=1e-6)


def test_blur_fade(goldens):
    z = np.load(goldens / "gan/equivariance.npz")
    start, kimg, nimg = z["blur.in_init_fadekimg_nimg"].T
    got = blur_fade.sigma_at(nimg, start, 1000 * kimg)
    np.testing.assert_allclose(got, z["blur.sigma"], rtol=1e-6, atol=1e-6)
    for name, start in (("equivariance", 10.0), ("sgt_losses_diffaug", 2.0)):
        z = np.load(goldens / f"gan/{name}.npz")
        run = jax.jit(lambda x, n: blur_fade.blur(x, n, start=start, images=1))  # noqa: B023
        stored = [k for k in z.files if k.startswith("blur.y_sigma")]
        assert len(stored) >= 3
        for key in stored:
            sigma = float(key.removeprefix("blur.y_sigma"))
            got = run(nhwc(z["blur.x"]), jnp.float32(1 - sigma / start))
            np.testing.assert_allclose(got, nhwc(z[key]), atol=2e-6, err_msg=key)

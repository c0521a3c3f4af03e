"""ADA against the authors' augmentations at a percentile q, their controller, and DiffAugment."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from jaxgen.objectives import ada, ada_controller, augment_ops, diffaugment


@pytest.fixture(scope="module")
def z(goldens):
    return np.load(goldens / "gan/ada_augment.npz")


def nhwc(x):
    return jnp.asarray(np.moveaxis(x, 1, -1))


def at_percentile(q, kwargs):
    """Parameters of the reference's deterministic mode: those not asked for are 0, none.

    Its "normal" percentile is erfinv(2q - 1), without the sqrt(2). Strengths of a case are put into
    the parameters, which they multiply.
    """
    n = erfinv(2 * q - 1)
    unit = {
        "xflip": [np.floor(2 * q)],
        "rotate90": [np.floor(4 * q)],
        "xint": [2 * q - 1] * 2,
        "scale": [n],
        "rotate": [np.pi * (2 * q - 1), 0],
        "aniso": [n],
        "xfrac": [n, n],
        "brightness": [n],
        "contrast": [n],
        "lumaflip": [np.floor(2 * q)],
        "hue": [np.pi * (2 * q - 1)],
        "saturation": [n],
        "imgfilter": n * np.array(kwargs.get("imgfilter_bands", [1, 1, 1, 1])),
        "noise": [erfinv(q)],
        "cutout": [kwargs.get("cutout_size", 0.5) / 0.5, q, q],
    }
    assert set(unit) == set(ada.DRAWS)
    w = {name: np.float32(v) * (name in kwargs) for name, v in unit.items()}
    for name, strength in kwargs.items():
        name, _, kind = name.rpartition("_")
        if kind in ("std", "max"):
            w[name] *= strength / ada.STRENGTHS[name]
    return w


@pytest.mark.parametrize("shape", ["square", "rect", "gray"])
def test_every_transform_groups_shapes_and_strengths(z, shape):
    """72 cases, those of a shape in one batch. Largest gap seen: 1.1e-5, of 2e-4 in the README."""
    cases = [
        (i, case)
        for i, case in enumerate(json.loads(str(z["meta"]))["cases"])
        if case["input"] == f"in.x_{shape}"
    ]
    x = np.moveaxis(z[f"in.x_{shape}"], 1, -1)
    rows = [at_percentile(case["q"], case["kwargs"]) for _, case in cases]
    w = {n: np.repeat(np.stack([r[n] for r in rows]), len(x), 0) for n in rows[0]}
    if min(x.shape[1:3]) <= 21:
        assert not w.pop("imgfilter").any()
    stored = [z[f"c{i:03d}.y"] for i, _ in cases]
    noise = [z.get(f"c{i:03d}.noise_normal", 0 * y) for (i, _), y in zip(cases, stored)]
    batch = nhwc(np.concatenate(noise))
    got = jax.jit(ada.apply)(np.tile(x, (len(cases), 1, 1, 1)), w, batch)
    gap = jnp.abs(got - nhwc(np.concatenate(stored))).max((1, 2, 3))
    worst = {(case["tag"], case["q"]): g for (_, case), g in zip(cases, gap[:: len(x)])}
    assert len(worst) == len(cases) and gap.max() < 2e-5, worst


def test_gradient_and_second_derivative(z):
    """Of <y, gy> in x, and of the square of that in gy: what R1 through the pipeline needs."""
    x, gy = nhwc(z["in.x_square"]), nhwc(z["vjp.gy"])
    names = set(ada.DRAWS) - {"noise"}
    w = at_percentile(0.62, dict.fromkeys(names, 1))
    w = {name: np.stack([v, v]) for name, v in w.items() if name in names}

    @jax.jit
    def derivatives(x, gy):
        y, back = jax.vjp(lambda x: ada.apply(x, w), x)
        square = lambda gy: jnp.square(back(gy)[0]).sum()
        return y, back(gy)[0], jax.grad(square)(gy)

    for got, name in zip(derivatives(x, gy), ("y", "gx", "d_sumsq_gx_d_gy")):
        want = nhwc(z[f"vjp.{name}"])
        np.testing.assert_allclose(got, want, atol=2e-5 * max(1, np.abs(want).max()))


def test_filter_bank(z):
    np.testing.assert_allclose(augment_ops._octaves(), z["buffer.Hz_fbank"], atol=1e-7)


def test_controller(goldens):
    z, p = np.load(goldens / "gan/train_rules.npz"), jnp.float32(0)
    adjust = jax.jit(lambda p, r: ada_controller.adjust(p, r, images=64 * 4))
    for r, want in zip(z["ada.in_sign_mean"], z["ada.out_p"]):
        p = adjust(p, r)
        np.testing.assert_allclose(p, want, rtol=1e-6, atol=1e-9)


def test_diffaugment(goldens):
    z = np.load(goldens / "gan/sgt_losses_diffaug.npz")
    x = nhwc(z["in.x"])
    size = np.floor(0.2 * np.array([12, 16]) + 0.5)  # of StyleGAN-T

    def color(x, case):
        return diffaugment.color(x, *(z[f"{case}.rand{i}"].ravel() for i in range(3)))

    def pair(case, i):
        return np.stack([z[f"{case}.randint{j}"].ravel() for j in (i, i + 1)], -1)

    def close(got, case):
        np.testing.assert_allclose(got, nhwc(z[f"{case}.y"]), atol=2e-6 * 4)

    close(color(x, "color"), "color")
    close(diffaugment.translate(x, -pair("translation", 0)), "translation")
    close(diffaugment.cutout(x, pair("cutout", 0), size), "cutout")
    case = "color+translation+cutout"
    moved = diffaugment.translate(color(x, case), -pair(case, 0))
    close(diffaugment.cutout(moved, pair(case, 2), size), case)

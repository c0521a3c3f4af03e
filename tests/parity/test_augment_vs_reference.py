"""Augmentations against the official EDM and StyleGAN2-ADA ones, at their stored random draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erfinv

from jaxgen.common import rng
from jaxgen.objectives import augment, augment_ops

RECIPES = {"recipe_p012": 0.12, "recipe_p05": 0.5, "recipe_p1": 1.0}


@pytest.fixture(scope="module")
def z(goldens):
    return np.load(goldens / "diffusion/augment.npz")


def nhwc(x):
    return jnp.asarray(x.transpose(0, 2, 3, 1))


def stored_draws(z, case):
    """What the generator would have given: uniforms (gate, then the transform's own), normals."""
    uniforms, normals = [], []
    for name, (draw, _) in augment.OPS.items():
        if f"{case}/draw/{name}.w" not in z.files:
            continue
        get = lambda what, name=name: z[f"{case}/draw/{name}.{what}"].reshape(-1, 4).T
        w = get("w")
        whole = {augment.BIT: 2, augment.TURNS: 4}.get(draw)  # stored after rounding down
        uniforms.append(get("gate_w" if name == "aniso" else "gate"))
        if draw.normals:
            normals.append(w)
        if name == "aniso":
            uniforms += [get("r"), get("gate_r")]
        elif draw.uniforms:
            uniforms.append((w + 0.5) / whole if whole else w)
    return [jnp.float32(np.concatenate(v or [np.zeros((4, 0))], 1)) for v in (uniforms, normals)]


@pytest.mark.parametrize("case", [*(f"single/{name}" for name in augment.OPS), *RECIPES])
def test_images_and_labels(z, case, monkeypatch):
    stored = stored_draws(z, case)

    def numbers(keys, *widths):
        assert widths == tuple(v.shape[1] for v in stored)
        return stored

    monkeypatch.setattr(augment, "_numbers", numbers)
    keys, x = rng.image_keys(jax.random.key(0), 4), nhwc(z["images"])
    if case in RECIPES:
        f = lambda x: augment.augment(keys, x, RECIPES[case])
    else:
        w = augment.draw(keys, 1.0, (case.removeprefix("single/"),))
        f = lambda x: (augment.apply(x, w), augment.label(w, x.shape[1:3]))
    y, label = jax.jit(f)(x)
    np.testing.assert_allclose(label, z[f"{case}/labels"], atol=1e-6)
    want = np.asarray(nhwc(z[f"{case}/y"]))
    if case.removeprefix("single/") in augment.EXACT:
        np.testing.assert_array_equal(y, want)
    else:  # largest gap seen: 4e-6, borders included
        np.testing.assert_allclose(y, want, atol=2e-5)


def test_filter(z):
    np.testing.assert_allclose(augment_ops.SYM6, z["wavelet_sym6_lowpass"], atol=1e-12)


def test_rectangular_and_grey_images_as_in_stylegan2_ada(goldens):
    """Its list of transforms at a percentile q; there flips and whole turns are resampled too."""
    z, ops = np.load(goldens / "gan/ada_augment.npz"), augment_ops

    def geometry(x, q, blit=False):
        one, n = jnp.ones(len(x)), erfinv(2 * q - 1)
        g, size = one * 2 ** (0.2 * n), 0.125 * np.array(x.shape[2:0:-1])
        m = [ops.scale(g, g), ops.rotate(np.pi * (2 * q - 1) * one)]
        m += [ops.scale(g, 1 / g), ops.translate(n * size * one[:, None])]
        if blit:
            m = [ops.translate(np.round((2 * q - 1) * size) * one[:, None]), *m]
            m = [ops.rotate(np.pi / 2 * np.floor(4 * q) * one), *m]
            m = [ops.scale(one * (1 - 2 * np.floor(2 * q)), one), *m]
        return ops.resample(x, ops.compose(*m))

    def all_of_it(x, q):
        one, n = jnp.ones(len(x)), erfinv(2 * q - 1)
        m = [ops.about_grey(1, one * 2**n, np.pi * (2 * q - 1))]
        m += [ops.about_grey(1 - 2 * np.floor(2 * q), one, 0)]
        m += [ops.about_grey(one * 2 ** (0.5 * n), 2 ** (0.5 * n), 0), ops.brighten(0.2 * n * one)]
        return ops.recolour(geometry(x, q, blit=True), ops.compose(*m))

    rect = jax.jit(lambda x: geometry(x, 0.58))(nhwc(z["in.x_rect"]))
    np.testing.assert_allclose(rect, nhwc(z["c066.y"]), atol=2e-5)
    grey = jax.jit(lambda x: all_of_it(x, 0.7))(nhwc(z["in.x_gray"]))
    np.testing.assert_allclose(grey, nhwc(z["c069.y"]), atol=2e-5)

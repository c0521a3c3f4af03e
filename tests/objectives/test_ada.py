"""ADA's pipeline: what does not leak, what closed gates leave alone, and how often they open."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import rng
from jaxgen.objectives import ada, augment, augment_ops, r1

B, N = 8, 24
APPLY = jax.jit(ada.apply)


@pytest.fixture(scope="module")
def images():
    x = jax.random.uniform(jax.random.key(0), (B, N, N, 3), minval=-1)
    return rng.image_keys(jax.random.key(1), B), x


@pytest.fixture(scope="module")
def everything():
    """All transforms in one program, and the number of times it was traced."""
    traces = []

    def f(keys, x, p):
        traces.append(None)
        return ada.augment(keys, x, p, "bgcfnc")

    return jax.jit(f), traces


def test_p_moves_without_a_new_compilation_and_zero_changes_nothing(everything, images):
    f, traces = everything
    keys, x = images
    y, label = f(keys, x, jnp.float32(0))
    np.testing.assert_allclose(y, x, atol=1e-5)
    assert label.shape == (B, ada.label_dim("bgcfnc")) and not label.any()
    for p in (0.4, 1.0, 1.3):  # the controller has no upper limit
        y, label = f(keys, x, jnp.float32(p))
        assert np.isfinite(y).all() and float(jnp.abs(y - x).max()) > 0.5
    names = np.repeat(list(ada.DRAWS), [d.labels for d in ada.DRAWS.values()])
    drawn = ~np.isin(names, ["xflip", "rotate90", "lumaflip"])  # which are 0 at times
    assert np.asarray(label)[:, drawn].all()
    assert len(traces) == 1


def test_an_image_depends_on_its_own_key_and_pixels(everything, images):
    f, _ = everything
    keys, x = images
    data, others = jax.random.key_data(keys), (jnp.arange(B) != 3)[:, None]
    keys2 = jax.random.wrap_key_data(jnp.where(others, data[::-1], data))
    x2 = jnp.where(others[..., None, None], -x, x)
    (y, label), (y2, label2) = f(keys, x, jnp.float32(0.8)), f(keys2, x2, jnp.float32(0.8))
    np.testing.assert_array_equal(y[3], y2[3])
    np.testing.assert_array_equal(label[3], label2[3])
    assert float(jnp.abs(y - y2).max()) > 0.5


def transitions(name, p, states, monkeypatch):
    """P(image j is seen as image i), exactly: all draws of a fine grid, through the code."""
    gate, pick = (np.mgrid[:20, :4].reshape(2, -1) + 0.5) / [[20], [4]]
    u = jnp.asarray(np.stack([gate, pick], -1), jnp.float32)
    monkeypatch.setattr(augment, "_numbers", lambda keys, *n: (u, jnp.zeros((len(u), 0))))
    w = {n: jnp.zeros((len(u), 1)) for n in ("xflip", "rotate90")}  # so that one program serves all
    w |= ada.draw(jnp.zeros(len(u)), p, {name: 1})
    t = np.zeros((len(states), len(states)))
    for j, x in enumerate(states):
        seen = np.asarray(APPLY(np.tile(x, (len(u), 1, 1, 1)), w))
        apart = np.abs(seen[:, None] - states).max((2, 3, 4))
        nearest, next_one = np.sort(apart, 1)[:, :2].T
        # Of ADA's own filter, which is not quite symmetric, turned images are off by a little.
        assert nearest.max() < 0.1 and next_one.min() > 0.3
        t[:, j] = np.bincount(apart.argmin(1), minlength=len(states)) / len(u)
    return t


def test_turns_and_flips_leak_at_p_one_and_never_below(monkeypatch):
    """arXiv:2006.06676, Sec. 3.1: p < 1 is an invertible corruption of the distribution of images.

    A turn by 0 to 3 quarters with probability p mixes the four orientations by (1 - p) I + p / 4,
    whose eigenvalues are 1 and three times 1 - p; a mirroring, of which half do nothing, has 1 and
    1 - p. So what is seen determines what there is, up to p = 1, where every distribution looks
    uniform.
    """
    x = np.arange(16, dtype=np.float32).reshape(4, 4, 1) / 8 - 1
    turned = np.stack([np.rot90(x, k) for k in range(4)])
    for name, states in (("rotate90", turned), ("xflip", np.stack([x, x[:, ::-1]]))):
        n = len(states)
        clean = np.arange(1, n + 1) / sum(range(1, n + 1))
        for p in (0.3, 0.8, 1.0):
            t = transitions(name, p, states, monkeypatch)
            eigenvalues = np.sort(np.linalg.eigvals(t).real)
            np.testing.assert_allclose(eigenvalues, [1 - p] * (n - 1) + [1], atol=1e-6)
            seen = t @ clean
            if p < 1:
                np.testing.assert_allclose(np.linalg.solve(t, seen), clean, atol=1e-6)
            else:
                assert np.linalg.matrix_rank(t, tol=1e-6) == 1
                np.testing.assert_allclose(seen, 1 / n, atol=1e-6)


def test_gates_open_as_often_as_they_should():
    keys, p = rng.image_keys(jax.random.key(2), 4000), 0.3
    recipe = {**ada.multipliers("bgcfnc"), "contrast": 0.5, "noise": 9, "imgfilter": (1, 0, 2, 1)}
    w = jax.jit(lambda keys: ada.draw(keys, p, recipe))(keys)
    rate = {name: float(v.any(1).mean()) for name, v in w.items()}
    want = dict.fromkeys(ada.DRAWS, p) | {
        "xflip": p / 2,  # of the fired ones half do nothing
        "lumaflip": p / 2,
        "rotate90": p * 3 / 4,
        "contrast": p / 2,
        "noise": 1,  # m p is cut at 1
        "imgfilter": 1 - (1 - p) * 1 * (1 - 2 * p) * (1 - p),
    }
    assert rate == pytest.approx(want, abs=0.025)
    octaves = np.asarray(w["imgfilter"] != 0).mean(0)
    np.testing.assert_allclose(octaves, [p, 0, 2 * p, p], atol=0.025)
    one, other = np.asarray(w["rotate"] != 0).T
    assert (one & other).mean() == pytest.approx((1 - np.sqrt(1 - p)) ** 2, abs=0.01)
    z = np.asarray(w["noise"])
    assert z.min() > 0 and z.mean() == pytest.approx(np.sqrt(2 / np.pi), abs=0.04)
    assert float(jnp.abs(w["xint"]).max()) == pytest.approx(1, abs=0.01)


def test_amplifying_octaves():
    """Of a constant image there is only the lowest octave, whose gain it gets once an axis."""
    x = jax.random.normal(jax.random.key(0), (3, N, N, 1))
    factors = np.float32([[1, 1, 1, 1], [3, 1, 1, 1], [1, 1, 0.5, 1]])
    amplify = jax.jit(augment_ops.amplify)
    np.testing.assert_allclose(amplify(x, factors)[0], x[0], atol=1e-5)
    constant = amplify(jnp.full_like(x, 0.5), factors)
    low = 9 / (1 + 10 / 13 * 8)  # the gain's square
    middle = 1 / (1 + 1 / 13 * (0.25 - 1))
    want = 0.5 * np.array([1, low, middle])[:, None, None, None]
    np.testing.assert_allclose(constant, np.broadcast_to(want, x.shape), rtol=1e-5)
    checkers = jnp.asarray((-1.0) ** np.add.outer(np.arange(N), np.arange(N)))[..., None]
    y = amplify(jnp.broadcast_to(checkers, x.shape), factors)[1]  # of that only the highest one
    np.testing.assert_allclose(y, checkers / (1 + 10 / 13 * 8), atol=1e-5)


def test_strengths_and_cutout(images):
    _, x = images
    w = {"brightness": jnp.ones((B, 1)), "cutout": jnp.tile(jnp.float32([1, 0.5, 0.25]), (B, 1))}
    y = APPLY(x, w, strengths={"brightness": 0.7, "cutout": 1 / 3})
    box = np.zeros((N, N, 1), bool)
    box[8:16, 2:10] = True
    np.testing.assert_allclose(y, np.where(box, 0, x + 0.7), atol=1e-6)
    w["cutout"] = jnp.zeros((B, 3))  # a closed gate
    np.testing.assert_allclose(APPLY(x, w), x + 0.2, atol=1e-6)


def test_r1_is_of_the_image_before_its_augmentation(images):
    """D = <a, x> on what cutout leaves: the gradient is a where it can be seen, 0 elsewhere."""
    _, x = images
    a = jax.random.normal(jax.random.key(3), x.shape[1:])
    w = {"cutout": jnp.tile(jnp.float32([1, 0.5, 0.5]), (B, 1))}
    judge = lambda x: jnp.einsum("bhwc,hwc->b", ada.apply(x, w), a)
    got = jax.jit(lambda x: r1.penalty(judge, x, 2.0))(x)
    hidden = jnp.square(a[6:18, 6:18]).sum()
    np.testing.assert_allclose(got, jnp.full(B, jnp.square(a).sum() - hidden), rtol=1e-5)


def test_wrong_arguments_are_explained(images):
    keys, x = images
    for p in (-0.1, 1.5, np.float32(2)):
        with pytest.raises(ValueError, match=rf"augmentations must be in \[0, 1\], got {p}"):
            ada.augment(keys, x, p)
    with pytest.raises(ValueError, match="unknown ADA recipe 'bgx'; known are blit, geom, color"):
        ada.augment(keys, x, 0.1, "bgx")
    with pytest.raises(ValueError, match=r"unknown transforms of ADA \['blur'\]; known are xflip"):
        ada.augment(keys, x, 0.1, {"blur": 1})
    with pytest.raises(ValueError, match=r"multipliers of p of 0 or more, .*got \{'hue': -1\}"):
        ada.augment(keys, x, 0.1, {"hue": -1})
    with pytest.raises(ValueError, match=r"not all 0, got \{'hue': 0\}"):
        ada.label_dim({"hue": 0})
    with pytest.raises(ValueError, match=r"unknown strengths of ADA \['xflip'\]; known are xint"):
        ada.augment(keys, x, 0.1, strengths={"xflip": 2})
    with pytest.raises(ValueError, match=r"more than 21 pixels a side, got \(21, 24\); leave out"):
        jax.eval_shape(lambda x: ada.augment(keys, x, 0.1, "filter"), x[:, :21])
    with pytest.raises(ValueError, match="1 or 3 channels, got 2"):
        jax.eval_shape(lambda x: ada.augment(keys, x, 0.1, "color"), x[..., :2])

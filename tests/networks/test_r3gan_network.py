"""R3GAN: what a fresh network computes, how its weights start, conditions, precision, sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.networks.r3gan import CONFIGS, Block, Discriminator, Generator
from jaxgen.nn.resample import down2, up2

SMALL = {"resolution": 16, "widths": (6, 4, 4), "cardinality": (3, 2, 2), "blocks": (1, 2, 1)}
G = Generator(**SMALL, channels=2, label_dim=3, z_dim=5)
D = Discriminator(**SMALL, label_dim=3)


def shapes(module, *args):
    found = jax.eval_shape(lambda *a: module.init(jax.random.key(0), *a), *args)["params"]
    return {n: x.shape for n, x in trees.leaves(found).items()}


@pytest.fixture(scope="module")
def made():
    """Params of both drawn by numpy, D's also with blocks that are no identities; latents, labels.

    Nothing but `test_how_a_block_starts` needs their own start.
    """
    z = jax.random.normal(jax.random.key(0), (4, 5))
    cond = {"label": jax.nn.one_hot(jnp.arange(4) % 3, 3)}
    numbers = np.random.default_rng(0)
    drawn = [
        {n: np.float32(numbers.standard_normal(s) / 2) for n, s in shapes(m, x, cond).items()}
        for m, x in ((G, z), (D, jnp.zeros((4, 16, 16, 2))))
    ]
    fresh = [{n: x * ("conv2" not in n) for n, x in p.items()} for p in drawn]
    g, d, moved = (trees.nest(p) for p in (*fresh, drawn[1]))
    return g, d, moved, z, cond


@jax.jit
def run(g, d, z, cond):
    images = G.apply({"params": g}, z, cond)
    return images, D.apply({"params": d}, images, cond)


def by_hand(g, d, z, label):
    """Both networks without their blocks, which are identities at first."""
    e = label @ g["embed"]["w"]
    x = g["b4_const"] * (jnp.concatenate([z, e], 1) @ g["b4_scale"]["w"])[:, None, None]
    images = up2(up2(x @ g["b8_width"]["w"])) @ g["torgb"]["w"]
    x = down2(down2(images @ d["fromrgb"]["w"])) @ d["b4_width"]["w"]
    x = jnp.einsum("bhwc,hwc->bc", x, d["b4_window"][:, :, 0])
    return images, ((x @ d["out"]["w"]) * (label @ d["embed"]["w"])).sum(1)


def test_fresh_blocks_are_identities(made):
    g, d, moved, z, cond = made
    got, want = run(g, d, z, cond), jax.jit(by_hand)(g, d, z, cond["label"])
    for a, b in zip(got, want):
        assert a.dtype == jnp.float32
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)
    assert got[0].shape == (4, 16, 16, 2) and got[1].shape == (4,)
    assert float(jnp.abs(run(g, moved, z, cond)[1] - got[1]).max()) > 1e-2


def test_images_know_nothing_of_their_batch(made):
    g, _, d, z, cond = made
    images, logits = run(g, d, z, cond)
    order = jnp.array([2, 0, 3, 3])
    again = run(g, d, z[order], {"label": cond["label"][order]})
    np.testing.assert_allclose(again[0], images[order], atol=1e-5)
    np.testing.assert_allclose(again[1], logits[order], atol=1e-5)
    other = run(g, d, z, {"label": jnp.roll(cond["label"], 1, 1)})
    assert all(float(jnp.abs(a - b).max()) > 1e-3 for a, b in zip(other, (images, logits)))


def test_how_a_block_starts():
    """Its signal has variance 2 / 1.04 depth^-1/2 after each of the first two layers."""
    x, depth = jnp.zeros((1, 4, 4, 64)), 16
    p = params.init(Block(2, 2, depth), jax.random.key(0), x)
    assert not p["conv2"]["w"].any() and "b" not in p["conv2"]
    for name, fan_in in (("conv0", 64), ("conv1", 9 * 64)):
        np.testing.assert_allclose(p[name]["w"].var() * fan_in, 2 / 1.04 / 4, rtol=0.05)
        assert not p[name]["b"].any()


def sizes(name, label_dim):
    """Numbers of parameters (G, D), and G's without label."""
    config, count = CONFIGS[name], lambda found: sum(int(np.prod(s)) for s in found.values())
    r = config["resolution"]
    z, x = jax.ShapeDtypeStruct((1, 64), jnp.float32), jax.ShapeDtypeStruct((1, r, r, 3), "float32")
    cond = {"label": jax.ShapeDtypeStruct((1, label_dim), jnp.float32)} if label_dim else None
    g = shapes(Generator(**config, label_dim=label_dim), z, cond)
    return count(g), count(shapes(Discriminator(**config, label_dim=label_dim), x, cond))


@pytest.mark.parametrize(
    "name, label_dim, g, d",
    [
        ("cifar10", 0, 20_732_160, 20_683_776),
        ("cifar10", 10, 20_781_952, 21_280_512),
        ("ffhq64", 0, 22_429_824, 22_381_440),
        ("imagenet32", 1000, 82_914_304, 86_548_992),
        ("imagenet64", 1000, 103_570_432, 107_205_120),
    ],
)
def test_numbers_of_parameters(name, label_dim, g, d):
    """The ImageNet ones are known from the released files.

    Those of 2.37 and 2.94 GB hold G, its average, D, and Adam's two moments of G and D in float32.
    """
    assert sizes(name, label_dim) == (g, d)
    released = {"imagenet32": 2.37, "imagenet64": 2.94}
    if name in released:
        assert round(4 * (4 * g + 3 * d) / 1e9, 2) == released[name]
    c = CONFIGS[name]
    if name != "ffhq64":  # closed form: one width
        w, groups, n = c["widths"][0], c["cardinality"][0], sum(c["blocks"])
        block = 4 * w * w + 9 * 2 * w * (2 * w // groups) + 4 * w
        ends = 16 * w + 3 * w, 16 * w + 3 * w + (w if not label_dim else w * w)
        z = 64 + 64 * bool(label_dim)
        assert g == n * block + ends[0] + w * z + 64 * label_dim
        assert d == n * block + ends[1] + w * label_dim


def test_half_precision_is_for_the_largest_stages():
    low = {"dtype": jnp.bfloat16}
    cond = {"label": jnp.zeros((2, 3))}

    def convolutions(module, x):
        """The dtypes of the grouped convolutions, in order."""
        p = jax.eval_shape(lambda: module.init(jax.random.key(0), x, cond))
        run = lambda p: module.apply(p, x, cond)
        assert jax.eval_shape(run, p).dtype == jnp.float32
        found = str(jax.make_jaxpr(run)(p))
        return [line.split(":")[1][:4] for line in found.splitlines() if "conv_general_dil" in line]

    z, x = jnp.zeros((2, 5)), jnp.zeros((2, 16, 16, 2))
    assert convolutions(G, z) == ["f32["] * 4
    assert convolutions(G.clone(**low), z) == ["f32[", *["bf16"] * 3]
    assert convolutions(G.clone(**low, half_blocks=1), z) == ["f32["] * 3 + ["bf16"]
    assert convolutions(D.clone(**low, half_blocks=2), x) == ["bf16"] * 3 + ["f32["]


def test_errors():
    z, x, cond = jnp.zeros((2, 5)), jnp.zeros((2, 16, 16, 2)), {"label": jnp.zeros((2, 3))}
    with pytest.raises(ValueError, match=r"power of two; got resolution 28 with \(6, 4, 4\)"):
        shapes(G.clone(resolution=28), z, cond)
    with pytest.raises(ValueError, match=r"resolution 16 with \(6, 4, 4\), \(3, 2\) and \(1, 2, 1"):
        shapes(D.clone(cardinality=(3, 2)), x, cond)
    with pytest.raises(ValueError, match=r"cardinality must divide .* got 5 for 4 x 2 at 8x8"):
        shapes(D.clone(cardinality=(3, 5, 2)), x, cond)
    with pytest.raises(ValueError, match=r"expected latents z \(b, 5\), got \(2, 4\)"):
        shapes(G, z[:, :4], cond)
    with pytest.raises(ValueError, match="label_dim=3 expects cond"):
        shapes(G, z)
    with pytest.raises(ValueError, match=r"images of size 16, got \(2, 8, 8, 2\)"):
        shapes(D, x[:, :8, :8], cond)

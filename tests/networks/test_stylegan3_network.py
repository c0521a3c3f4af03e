"""StyleGAN3: layer tables of any resolution, equivariance, magnitudes, conditions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.networks.stylegan3 import CONFIGS, FIXED, Generator, SynthesisLayer, layer_table

SMALL = {"z_dim": 6, "w_dim": 8, "channel_base": 128, "channel_max": 8, "num_layers": 3}
SMALL |= {"num_critical": 1, "resolution": 16, "channels": 1, "output_scale": 1.0}
T = Generator(**SMALL)
R = Generator(**SMALL, kernel=1, radial=True)


@pytest.fixture(scope="module")
def made():
    """Params of T and R whose input layer moves with w, and one program for each."""
    z = jax.random.normal(jax.random.key(0), (4, 6))

    def make(g):
        p = params.init(g, jax.random.key(1), z)
        noise = lambda n, x: x + 0.3 * np.sin(np.arange(x.size)).reshape(x.shape)
        p = trees.map_named(lambda n, x: noise(n, x) if n.endswith("affine_b") else x, p)

        @jax.jit
        def run(move):
            w = g.apply({"params": p}, z, method="mapping")
            return g.apply({"params": p}, w, transform=move, method="synthesis")

        return p, lambda move: np.asarray(run(np.float32(move)))

    return {"T": make(T), "R": make(R)}


@pytest.mark.parametrize("resolution", [8, 24, 28, 32, 96, 256, 1024])
@pytest.mark.parametrize("config", CONFIGS)
def test_layers_fit_together(resolution, config):
    table = layer_table(resolution, **CONFIGS[config])
    assert len(table) == 15 and table[-1].rgb and table[-1].out_size == resolution
    for a, b in itertools.pairwise(table):
        for of in ("size", "rate", "cutoff", "half_width", "channels"):
            assert getattr(a, f"out_{of}") == getattr(b, f"in_{of}")
    for t in table:
        assert t.tmp_rate == t.in_rate * t.up == t.out_rate * t.down
        assert 0 < t.out_cutoff <= t.out_rate / 2 and t.out_half_width > 0
        n = (t.in_size + t.kernel - 1) * t.up + sum(t.padding) - t.up_taps + 1
        assert (n - t.down_taps) // t.down + 1 == t.out_size
        assert [len(f) for f in t.filters()] == [t.up_taps, t.down_taps]
        assert t.radial == (config == "R" and not t.critical)


def _size(t, w):
    return t.in_channels * (t.out_channels * t.kernel**2 + w + 1) + t.out_channels


def test_parameters_are_those_of_the_table(made):
    for g, name in ((T, "T"), (R, "R")):
        table, w = g.table(), g.w_dim
        first = table[0].in_channels
        everything = sum(_size(t, w) for t in table) + first * first + 4 * (w + 1)
        assert trees.count(made[name][0]["synthesis"]) == everything + 3 * first + len(table)


# Of w with 512 entries. The widths of all layers: tests/parity.
SIZES = {
    "T": {256: 28_472_133, 512: 24_873_519, 1024: 22_313_167},
    "R": {256: 18_816_387, 512: 16_665_594, 1024: 15_093_151},
}


@pytest.mark.parametrize("config", CONFIGS)
def test_sizes(config):
    """What is trained of the paper's configurations, by the formula of the test above."""
    for resolution, want in SIZES[config].items():
        table, w = layer_table(resolution, **CONFIGS[config]), 512
        mapping = 2 * w * (w + 1)
        first = table[0].in_channels
        assert mapping + first * first + 4 * (w + 1) + sum(_size(t, w) for t in table) == want


def _psnr(a, b):
    return 10 * np.log10(np.ptp(b) ** 2 / np.square(a - b).mean())


def test_an_image_moves_with_its_input(made):
    """By whole pixels, where the shifted image is known; and T does not turn, R does."""
    shift = [[1, 0, 2 / 16], [0, 1, -1 / 16], [0, 0, 1]]
    # Shows at (x, y) what was at (y, -x). In pixels, y is the row: row i, column j show -j, i.
    quarter = [[0, 1, 0], [-1, 0, 0], [0, 0, 1]]
    turned = {}
    for name, (_, run) in made.items():
        still = run(np.eye(3))
        assert _psnr(run(shift)[:, 1:, :-2], still[:, :-1, 2:]) > 45
        turned[name] = _psnr(run(quarter), np.rot90(still, -1, (1, 2)))
    assert turned["T"] < 30 < 100 < turned["R"]


def test_the_magnitude_of_a_layer_is_tracked():
    """It moves to the batch's by the half-life and is used as moved; if not asked for, it stays."""
    layer = SynthesisLayer(T.table()[-1], clamp=None, magnitude_halflife=4)  # RGB: linear
    numbers = np.random.default_rng(0)
    draw = lambda *shape: np.float32(numbers.standard_normal(shape))
    x, w = 3 * draw(4, 16, 16, T.table()[-1].in_channels), draw(4, 8)
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), x, w))["params"]
    p = jax.tree.map(lambda s: draw(*s.shape), shapes)
    p |= {"magnitude": np.float32(1), "b": np.float32([0])}
    kept = jax.jit(lambda x: layer.apply({"params": p}, x, w))

    def train(x):
        y, new = layer.apply({"params": p}, x, w, mutable=["tracked"])
        return y.sum(), (y, new["tracked"]["magnitude"])

    gradient, (y, moved) = jax.jit(jax.grad(train, has_aux=True))(x)
    np.testing.assert_allclose(moved, (1 + np.square(x).mean()) / 2, rtol=1e-6)
    np.testing.assert_allclose(y, kept(x) / moved**0.5, atol=1e-5)
    # The output is linear in x, but for the magnitude, whose derivative is left out.
    np.testing.assert_allclose((gradient * x).sum(), y.sum(), rtol=1e-4)


def test_all_magnitudes_are_tracked():
    """One a layer, in the places of the params, for images and for styles."""
    z = jnp.zeros((2, 6))
    p = jax.eval_shape(lambda: T.init(jax.random.key(0), z))
    new = jax.eval_shape(lambda p: T.apply(p, z, mutable=["tracked"])[1]["tracked"], p)
    layers = {f"L{i}": {"magnitude": ()} for i in range(4)}
    assert jax.tree.map(lambda x: x.shape, new) == {"synthesis": layers}


def test_what_is_fixed(made):
    p = made["T"][0]
    fixed = trees.leaves(trees.mask(FIXED, p))
    assert {n for n, f in fixed.items() if f} == {
        "synthesis/input/freqs",
        "synthesis/input/phases",
        *(f"synthesis/L{i}/magnitude" for i in range(4)),
    }
    radius = np.linalg.norm(
        params.init(T, jax.random.key(5), jnp.zeros((1, 6)))["synthesis"]["input"]["freqs"], axis=1
    )
    assert radius.max() <= 2.0


def test_errors():
    shape = lambda g, *a: jax.eval_shape(lambda: g.init(jax.random.key(0), *a))
    with pytest.raises(ValueError, match="at least 8, got 4"):
        layer_table(4)
    with pytest.raises(ValueError, match="got 3 of 3"):
        layer_table(32, layers=3, critical=3)
    with pytest.raises(ValueError, match=r"expected latents z \(b, 6\), got \(2, 5\)"):
        shape(T, jnp.zeros((2, 5)))
    with pytest.raises(ValueError, match="label_dim=3 expects cond"):
        shape(T.clone(label_dim=3), jnp.zeros((2, 6)))
    with pytest.raises(ValueError, match=r"expected ws \(b, 5, 8\), got \(2, 4, 8\)"):
        p = shape(T, jnp.zeros((2, 6)))
        jax.eval_shape(lambda p: T.apply(p, jnp.zeros((2, 4, 8)), method="synthesis"), p)

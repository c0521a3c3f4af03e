"""DDPM++ and NCSN++: published sizes, conditions, remat, precision, and the start of training."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.networks import ddpmpp, ncsnpp

# Scalars and arrays of the authors' networks at these settings; fixed frequencies are not counted.
PUBLISHED = {
    "cifar10_cond_ddpmpp": (55_735_299, 419, ddpmpp.UNet(3, label_dim=10, augment_dim=9), 32),
    "cifar10_uncond_ncsnpp": (56_397_827, 421, ncsnpp.unet(3, augment_dim=9), 32),
    "ffhq64_ncsnpp": (
        62_761_091,
        547,
        ncsnpp.unet(3, augment_dim=9, channel_mult=(1, 2, 2, 2)),
        64,
    ),
}
TINY = ddpmpp.UNet(
    2, model_channels=4, channel_mult=(1, 2), channel_mult_emb=1, num_blocks=1,
    attn_resolutions=(4,), label_dim=3, augment_dim=2, dropout=0.5,
)  # fmt: skip
X, C = jax.random.normal(jax.random.key(0), (2, 8, 8, 2)), jnp.array([-0.5, 0.3])
COND = {"label": jnp.eye(3)[:2], "augment": jnp.ones((2, 2))}


def names(net, x=X, c=C):
    tree = jax.eval_shape(lambda: net.init(jax.random.key(0), x, c))["params"]
    return {n: leaf.shape for n, leaf in trees.leaves(tree).items()}


@functools.partial(jax.jit, static_argnums=(0, 3))
def run(net, p, cond, train=False):
    rngs = {"dropout": jax.random.key(0)} if train else {}
    return net.apply({"params": p}, X, C, cond, train, rngs=rngs)


SMALL = TINY.clone(num_blocks=0, dropout=0.0)  # compiles quickly


@pytest.fixture(scope="module")
def p():
    rng = np.random.default_rng(0)
    drawn = {n: np.float32(0.3 * rng.standard_normal(s)) for n, s in names(SMALL).items()}
    return trees.nest(drawn)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_sizes(name):
    scalars, arrays, net, size = PUBLISHED[name]
    sizes = names(net, jnp.zeros((1, size, size, 3)), jnp.zeros(1))
    counted = {n: np.prod(s) for n, s in sizes.items() if not n.endswith("freqs")}
    assert (sum(counted.values()), len(counted)) == (scalars, arrays)


def test_where_attention_is():
    """Every encoder block of the size, the decoder's first block of all and last of the size."""
    found = {n.split("/")[0] for n in names(TINY) if "attention" in n}
    assert found == {"enc_4_block0", "dec_4_in0", "dec_4_block1"}
    found = {n.split("/")[0] for n in names(TINY.clone(attn_resolutions=())) if "attention" in n}
    assert found == {"dec_4_in0"}


def test_the_settings_of_ncsnpp():
    plain, other = names(TINY), names(TINY.clone(**ncsnpp.SETTINGS))
    assert set(other) - set(plain) == {"emb_fourier/freqs", "enc_4_pyramid/w", "enc_4_pyramid/b"}
    assert other["emb_fourier/freqs"] == (4,) and other["emb_label/w"] == (3, 8)
    assert [n for n in other if re.search(ncsnpp.FIXED[0], n)] == ["emb_fourier/freqs"]


def test_conditions_matter(p):
    y = run(SMALL, p, COND)
    assert y.shape == X.shape and y.dtype == jnp.float32
    for name, value in COND.items():
        other = run(SMALL, p, COND | {name: 0 * value})
        assert float(jnp.abs(other - y).max()) > 1e-3, name


def test_hiding_labels_in_training(p):
    """At rate 1 every label is hidden, in training only."""
    hidden = run(SMALL.clone(label_dropout=1.0), p, COND, True)
    without = run(SMALL, p, COND | {"label": jnp.zeros((2, 3))})
    np.testing.assert_allclose(hidden, without, atol=1e-5)


def test_bfloat16_runs_the_trunk_only(p):
    half = SMALL.clone(dtype=jnp.bfloat16)
    assert names(half) == names(SMALL)
    y, want = run(half, p, COND), run(SMALL, p, COND)
    assert y.dtype == jnp.float32
    assert float(jnp.std(y - want)) < 0.05 * float(jnp.std(want))
    jaxpr = str(jax.make_jaxpr(lambda: half.apply({"params": p}, X, C))())
    products = re.findall(r":(\w+)\[[\d,]+\] = conv_output", jaxpr)
    assert len(products) > 10 and set(products) == {"bf16"}


def test_remat_keeps_names_and_has_one_checkpoint_a_block():
    kept = SMALL.clone(remat=True, dropout=0.5)
    assert names(kept) == names(SMALL)
    tree = jax.eval_shape(lambda: SMALL.init(jax.random.key(0), X, C))["params"]
    rngs = {"dropout": jax.random.key(2)}

    def text(net):
        f = lambda p: net.apply({"params": p}, X, C, train=True, rngs=rngs).sum()
        return str(jax.make_jaxpr(jax.grad(f))(tree))

    assert text(kept).count("prevent_cse=True") == 6
    assert "prevent_cse" not in text(SMALL)


def test_errors():
    shape = lambda net, *args: jax.eval_shape(net.init, jax.random.key(0), *args)
    with pytest.raises(ValueError, match=r"DDPM\+\+ reads the conditions .* got also \['class'\]"):
        shape(TINY, X, C, {"class": COND["label"]})
    with pytest.raises(ValueError, match=r"cond\['label'\] of DDPM\+\+ must have shape \(2, 3\)"):
        shape(TINY, X, C, {"label": jnp.ones((2, 4))})
    with pytest.raises(ValueError, match="divisible by 2, got 9 x 8"):
        shape(TINY, jnp.zeros((2, 9, 8, 2)), C)
    with pytest.raises(ValueError, match="encoder is 'standard' or 'residual', got 'skip'"):
        shape(TINY.clone(encoder="skip"), X, C)
    with pytest.raises(ValueError, match="embedding is 'positional' or 'fourier', got 'random'"):
        shape(TINY.clone(embedding="random"), X, C)

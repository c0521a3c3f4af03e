"""The EDM2 network: what its options change, by shapes; remat changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params as parameters
from jaxgen.common import trees
from jaxgen.networks.edm2 import EDM2

TINY = EDM2(
    channels=1, model_channels=4, channel_mult=(1,), num_blocks=1, attn_resolutions=(4,),
    channels_per_head=4, label_dim=3,
)  # fmt: skip
X, C = jnp.ones((2, 4, 4, 1)), jnp.zeros((2,))


def shapes(**changes):
    net = TINY.clone(**changes)
    tree = jax.eval_shape(lambda: net.init(jax.random.key(0), X, C))["params"]
    return {n: x.shape for n, x in trees.leaves(tree).items()}


def test_widths_of_noise_features_and_embedding():
    plain = shapes(channel_mult=(1, 2))
    assert plain["emb_fourier/freqs"] == (4,) and plain["emb_noise/w"] == (4, 8)
    wide = shapes(channel_mult=(1, 2), channel_mult_noise=3, channel_mult_emb=5)
    assert wide["emb_fourier/freqs"] == (12,) and wide["emb_noise/w"] == (12, 20)
    assert wide["emb_label/w"] == (3, 20) and wide["enc_4_block0/emb/w"] == (20, 4)


def test_a_block_narrower_than_a_head_has_no_attention():
    has = lambda names: {n.split("/")[0] for n in names if "attention" in n}
    every = {"enc_4_block0", "dec_4_in0", "dec_4_block0", "dec_4_block1"}
    assert has(shapes()) == every
    assert has(shapes(attn_resolutions=())) == {"dec_4_in0"}
    assert has(shapes(channels_per_head=5)) == set()


def gradient(net):
    x = jax.random.normal(jax.random.key(1), X.shape)
    rngs = {"dropout": jax.random.key(2)}  # the recomputed pass has to draw the same masks
    return jax.grad(lambda p: jnp.sum(net.apply({"params": p}, x, C, train=True, rngs=rngs) ** 2))


SMALL = TINY.clone(num_blocks=0, channels_per_head=5, dropout=0.5)


def test_remat_keeps_names_and_has_one_checkpoint_a_block():
    trees_of = [
        jax.eval_shape(lambda n=n: n.init(jax.random.key(0), X, C))["params"]
        for n in (SMALL, SMALL.clone(remat=True))
    ]
    assert trees_of[0] == trees_of[1]
    text = lambda n: str(jax.make_jaxpr(gradient(n))(trees_of[0]))
    assert text(SMALL.clone(remat=True)).count("prevent_cse=True") == 3
    assert "prevent_cse" not in text(SMALL)


@pytest.mark.slow
def test_remat_keeps_gradients():
    params = parameters.init(SMALL, jax.random.key(0), X, C)
    params["out_gain"]["gain"] = jnp.float32(1)
    plain, again = (jax.jit(gradient(n))(params) for n in (SMALL, SMALL.clone(remat=True)))
    for (name, a), b in zip(trees.leaves(plain).items(), jax.tree.leaves(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4, err_msg=name)
    assert float(jnp.abs(plain["enc_4_conv"]["w"]).max()) > 1e-3


def test_conditions_and_sizes_that_do_not_fit():
    call = lambda x, cond, **k: jax.eval_shape(
        lambda: TINY.clone(**k).init(jax.random.key(0), x, C, cond)
    )
    with pytest.raises(ValueError, match=r"must be one-hot \(2, 3\), got \(2, 4\)"):
        call(X, {"label": jnp.ones((2, 4))})
    with pytest.raises(ValueError, match=r"'label' only, got also \['augment'\]"):
        call(X, {"augment": jnp.ones((2, 4))})
    with pytest.raises(ValueError, match="divisible by 4, got 6 x 6"):
        call(jnp.ones((2, 6, 6, 1)), None, channel_mult=(1, 1, 1))

"""ADM and its noisy classifier: published size, where attention is, the start, gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import trees
from jaxgen.networks.adm import ADM
from jaxgen.networks.adm_classifier import Classifier

TINY = ADM(
    2, model_channels=4, channel_mult=(1, 2), channel_mult_emb=1, num_blocks=1,
    attn_resolutions=(4,), channels_per_head=4, label_dim=3, augment_dim=2, dropout=0.0,
)  # fmt: skip
SMALL = Classifier(
    2, 5, model_channels=4, channel_mult=(1, 2), channel_mult_emb=1, num_blocks=1,
    attn_resolutions=(4,), channels_per_head=4,
)  # fmt: skip
X, C = jax.random.normal(jax.random.key(0), (2, 8, 8, 2)), jnp.array([-0.5, 0.3])
COND = {"label": jnp.eye(3)[:2], "augment": jnp.ones((2, 2))}


def names(net, x=X, c=C):
    tree = jax.eval_shape(lambda: net.init(jax.random.key(0), x, c))["params"]
    return {n: leaf.shape for n, leaf in trees.leaves(tree).items()}


def draw(net):
    """Parameters away from the zeros that training starts with."""
    rng = np.random.default_rng(0)
    return trees.nest({n: np.float32(0.3 * rng.standard_normal(s)) for n, s in names(net).items()})


def test_published_size():
    """ImageNet at 64 x 64, as EDM trains it."""
    sizes = names(ADM(3, label_dim=1000), jnp.zeros((1, 64, 64, 3)), jnp.zeros(1))
    assert (sum(np.prod(s) for s in sizes.values()), len(sizes)) == (295_899_267, 541)


def test_where_attention_is():
    """Every block of a listed size in both halves, and the decoder's first."""
    has = lambda net: {n.split("/")[0] for n in names(net) if "attention" in n}
    every = {"enc_4_block0", "dec_4_in0", "dec_4_block0", "dec_4_block1"}
    assert has(TINY) == every
    assert has(TINY.clone(middle_attention=False)) == every - {"dec_4_in0"}
    assert has(TINY.clone(attn_resolutions=())) == {"dec_4_in0"}
    with pytest.raises(ValueError, match=r"ADM's enc_8_block0: 4 channels cannot be split into he"):
        names(TINY.clone(attn_resolutions=(8,), channels_per_head=8))
    with pytest.raises(ValueError, match=r"ADM's dec_4_in0: 8 channels .*per_head=64; choose one"):
        names(TINY.clone(attn_resolutions=(), channels_per_head=64))


def test_conditions_and_the_learned_variance():
    net = TINY.clone(num_blocks=0, out_channels=4)
    p = draw(net)
    run = jax.jit(lambda cond: net.apply({"params": p}, X, C, cond))
    y = run(COND)
    assert y.shape == (2, 8, 8, 4) and y.dtype == jnp.float32
    for name, value in COND.items():
        assert float(jnp.abs(run(COND | {name: 0 * value}) - y).max()) > 1e-3, name
    with pytest.raises(ValueError, match=r"ADM reads the conditions .* got also \['text'\]"):
        jax.eval_shape(TINY.init, jax.random.key(0), X, C, {"text": COND["label"]})


def test_remat_and_bfloat16_keep_the_names():
    assert names(TINY) == names(TINY.clone(remat=True)) == names(TINY.clone(dtype=jnp.bfloat16))
    assert names(SMALL) == names(SMALL.clone(remat=True))


def test_the_classifier_is_the_downward_half():
    sizes = names(SMALL)
    assert {n.split("/")[0] for n in sizes} == {
        "emb_layer0", "emb_layer1", "enc_8_conv", "enc_8_block0", "enc_4_down", "enc_4_block0",
        "mid_4_in0", "mid_4_in1", "out_norm", "out_pool",
    }  # fmt: skip
    assert sizes["out_pool/position"] == (17, 8) and sizes["out_pool/proj/w"] == (8, 5)


def test_the_classifier_depends_on_image_and_level():
    p = draw(SMALL)

    @jax.jit
    def run(x, c):
        logits, back = jax.vjp(lambda x: SMALL.apply({"params": p}, x, c), x)
        return logits, back(jnp.zeros_like(logits).at[0, 3].set(1))[0]

    logits, grad = run(X, C)
    assert logits.shape == (2, 5) and logits.dtype == jnp.float32
    assert float(jnp.abs(run(X, C + 1)[0] - logits).max()) > 1e-3
    # Each image has logits of its own: the gradient of image 0's is 0 at image 1.
    assert float(jnp.abs(grad[0]).max()) > 1e-3
    np.testing.assert_array_equal(grad[1], 0)


def test_errors_of_the_classifier():
    init = lambda *args: jax.eval_shape(SMALL.init, jax.random.key(0), *args)
    with pytest.raises(ValueError, match=r"the classifier reads no conditions, got \['label'\]"):
        init(X, C, {"label": COND["label"]})
    with pytest.raises(ValueError, match=r"the classifier with 2 resolutions .* got 7 x 8"):
        init(jnp.zeros((2, 7, 8, 2)), C)

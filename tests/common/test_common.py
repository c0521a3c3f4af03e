"""Units, keys, names and initialisation."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, rng, trees, units
from jaxgen.networks import edm2


@pytest.mark.parametrize(
    "text, n",
    [("50k", 50_000), ("1.5M", 1_500_000), ("8Mi", 2**23), ("64", 64), (7, 7), ("2e3", 2000)],
)
def test_durations(text, n):
    assert units.images(text) == n


def test_durations_past_int32():
    assert units.images("2147.483648M") == 2**31
    assert units.describe(2**31) == "2.147G"


@pytest.mark.parametrize("text", ["ten", "5 kg", "-3k", ""])
def test_wrong_durations_are_explained(text):
    with pytest.raises(ValueError, match="a number of images such as"):
        units.images(text)


def test_bytes_survive_the_round_trip():
    x = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1)
    np.testing.assert_array_equal(units.to_uint8(units.from_uint8(jnp.asarray(x))), x)
    assert float(units.from_uint8(jnp.uint8([0, 255])).min()) == -1


def test_keys_depend_on_place_and_name_only():
    key = jax.random.key(0)
    a, b = rng.image_keys(key, 8), rng.image_keys(key, 4, start=4)
    np.testing.assert_array_equal(jax.random.key_data(a)[4:], jax.random.key_data(b))
    assert rng.name_id("gen") != rng.name_id("disc")
    np.testing.assert_array_equal(
        rng.normal(a, (3, 2))[5], jax.random.normal(a[5], (3, 2)), err_msg="a flat draw differs"
    )


def test_rules_by_name():
    tree = {"enc": {"w": 1, "b": 2}, "out": {"w": 3}}
    got = trees.by_rules([("out", "x"), ("w$", "y"), (".*", "z")], tree)
    assert got == {"enc": {"w": "y", "b": "z"}, "out": {"w": "x"}}
    with pytest.raises(ValueError, match="no rule matches the parameter 'enc/b'"):
        trees.by_rules([("w$", 1)], tree)
    with pytest.raises(ValueError, match="the pattern 'dec' matches no parameter"):
        trees.mask(["dec"], tree)


def test_adding_a_layer_does_not_change_the_others():
    def build(blocks):
        net = edm2.EDM2(channels=1, model_channels=8, channel_mult=(1,), num_blocks=blocks,
                        attn_resolutions=(), channels_per_head=8)  # fmt: skip
        x = jnp.zeros((1, 8, 8, 1))
        return trees.leaves(params.init(net, jax.random.key(0), x, x[:, 0, 0, 0]))

    small, large = build(1), build(2)
    same = [n for n in small if small[n].shape == large[n].shape]
    assert len(same) > 10
    for name in same:
        np.testing.assert_array_equal(small[name], large[name], err_msg=name)
    weights = [x for n, x in large.items() if n.endswith("/w")]
    assert np.std(np.concatenate([np.ravel(w) for w in weights])) == pytest.approx(1, abs=0.02)


def test_foreign_parameters_are_named():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(3, name="foreign")(x)

    with pytest.raises(ValueError, match=r"not declared with .*\['foreign/bias', 'foreign/kernel'"):
        params.init(Net(), jax.random.key(0), jnp.zeros((1, 2)))

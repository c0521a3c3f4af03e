"""Dropout keeps the mean, drops at its rate, and is nothing outside of training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxgen.nn.dropout import dropout


class Drop(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, x, train):
        return dropout(self, x, self.rate, train)


def test_rate_mean_and_independence():
    x = jnp.full((64, 8, 8, 5), 2.0)  # odd: half of a drawn word is thrown away
    y = np.asarray(Drop(0.13).apply({}, x, True, rngs={"dropout": jax.random.key(0)}))
    dropped = y == 0
    assert abs(dropped.mean() - 0.13) < 0.01 and abs(y.mean() - 2) < 0.02
    np.testing.assert_allclose(y[~dropped], 2 / 0.87, rtol=1e-4)
    # The two halves of a word, and neighbours, are independent.
    for a, b in ((dropped[..., 0], dropped[..., 1]), (dropped[:, 0], dropped[:, 1])):
        assert abs((a & b).mean() - 0.13**2) < 0.01


def test_nothing_to_do():
    x = jnp.ones((2, 3))
    assert Drop(0.5).apply({}, x, False) is x
    assert Drop(0.0).apply({}, x, True) is x


def test_dtype_is_kept():
    x = jnp.ones((4, 6), jnp.bfloat16)
    assert Drop(0.5).apply({}, x, True, rngs={"dropout": jax.random.key(0)}).dtype == x.dtype

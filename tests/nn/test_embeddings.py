"""Sinusoids, conditions by name, and labels hidden in training."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.common import params, trees
from jaxgen.nn import embeddings


def test_positional_features_are_points_on_circles():
    x = jnp.array([0.0, 1.0, -3.5, 999.0])
    y = np.asarray(embeddings.positional(x, 16, endpoint=True))
    np.testing.assert_allclose(y[:, :8] ** 2 + y[:, 8:] ** 2, 1, atol=1e-5)
    np.testing.assert_allclose(y[:, 0], np.cos(x), atol=1e-4)
    np.testing.assert_allclose(y[3, 7], np.cos(999 / 10000), atol=1e-5)  # the last frequency
    without = np.asarray(embeddings.positional(x, 16))
    np.testing.assert_allclose(without[3, 7], np.cos(999 * 10000 ** (-7 / 8)), atol=1e-4)


def test_fourier_frequencies_are_fixed_and_wide():
    module, x = embeddings.Fourier(2000), jnp.array([0.01, 0.3])
    p = params.init(module, jax.random.key(0), x)
    assert abs(float(p["freqs"].std()) - 16) < 1
    assert trees.mask(embeddings.FIXED, p) == {"freqs": True}
    y = module.apply({"params": p}, x)
    np.testing.assert_allclose(
        y[:, :1000], jnp.cos(2 * jnp.pi * jnp.outer(x, p["freqs"])), atol=1e-4
    )
    grads = jax.grad(lambda p: module.apply({"params": p}, x).sum())(p)
    np.testing.assert_array_equal(grads["freqs"], 0)


def test_conditions():
    read = lambda cond, label=3, augment=2: embeddings.conditions("Net", cond, 4, label, augment)
    label, augment = read({"label": jnp.ones((4, 3), jnp.int32)})
    assert label.dtype == jnp.float32 and label.sum() == 12
    assert augment.shape == (4, 2) and not augment.any()
    assert not read(None)[0].any()
    # An unconditional network may guide a conditional one.
    assert read({"label": jnp.ones((4, 3))}, label=0)[0].shape == (4, 0)
    with pytest.raises(
        ValueError, match=r"Net reads the conditions \['augment', 'label'\], got al"
    ):
        read({"class": jnp.ones((4, 3))})
    with pytest.raises(ValueError, match=r"conditions \['label'\], got also \['augment'\]"):
        read({"augment": jnp.ones((4, 2))}, augment=0)
    with pytest.raises(
        ValueError, match=r"cond\['label'\] of Net must have shape \(4, 3\), got \(4"
    ):
        read({"label": jnp.ones((4, 5))})
    with pytest.raises(ValueError, match=r"cond\['augment'\] of Net must have shape \(4, 2\)"):
        read({"augment": jnp.ones((3, 2))})


class Drop(nn.Module):
    rate: float

    @nn.compact
    def __call__(self, label, train):
        return embeddings.drop_labels(self, label, self.rate, train)


def test_hidden_labels_are_whole_rows_in_training_only():
    label = jnp.ones((2000, 3))
    y = Drop(0.3).apply({}, label, True, rngs={"dropout": jax.random.key(0)})
    rows = np.asarray(y.sum(1))
    assert set(rows.tolist()) == {0.0, 3.0} and abs((rows == 0).mean() - 0.3) < 0.04
    assert Drop(0.3).apply({}, label, False) is label
    assert Drop(0.0).apply({}, label, True) is label

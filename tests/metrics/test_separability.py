"""Linear separability: 1 for planes, the number of classes for labels that latents do not tell."""

import numpy as np
import pytest

from jaxgen.metrics import separability as module
from jaxgen.metrics.separability import conditional_entropy, confident, separability

RNG = np.random.default_rng(0)


def test_planes_are_separable():
    z = RNG.normal(size=(400, 3))
    z = z[np.abs(z[:, 0]) > 0.2]  # a margin
    assert separability(z, z[:, 0] > 0) == pytest.approx(1, abs=1e-12)
    assert separability(1e-6 * z, np.stack([z[:, 0] > 0, z[:, 0] < 0], 1)) == pytest.approx(1)


def test_classes_of_one_attribute():
    corners = 4 * np.eye(3)[np.arange(300) % 3]
    assert separability(corners + RNG.normal(size=(300, 3)) / 4, np.arange(300) % 3) == 1


def test_independent_labels_have_the_exponential_of_their_entropies():
    """Opposite corners of a square in one class: the best plane says nothing."""
    z = np.array([[1, 1], [-1, -1], [1, -1], [-1, 1]] * 50)
    y = np.array([0, 0, 1, 1] * 50)
    assert separability(z, y) == pytest.approx(2)
    assert separability(z, np.stack([y, y, np.zeros(200)], 1)) == pytest.approx(4)
    x, y = np.divmod(np.arange(1200), 12)
    assert conditional_entropy(x, y) == pytest.approx(np.log(12))
    p = np.array([0.5, 0.25, 0.25])
    y = np.repeat([3, 5, 9], [2, 1, 1])
    assert conditional_entropy(np.zeros(4), y) == pytest.approx(-np.sum(p * np.log(p)))


def test_conditional_entropy_of_a_known_table():
    """X halves: in one Y is certain, in the other a fair coin."""
    x = np.repeat([0, 0, 1, 1], 25)
    y = np.repeat([0, 0, 0, 1], 25)
    assert conditional_entropy(x, y) == pytest.approx(np.log(2) / 2)
    assert conditional_entropy(y, y) == 0


def test_the_certain_half_is_kept():
    logits = np.array([[9.0, 0, 0], [1, 1, 1], [50, 50, 0], [0, 0, 800.0], [2, 0, 0]])
    np.testing.assert_array_equal(confident(logits), [True, False, False, True, True])
    np.testing.assert_array_equal(confident(logits + 5), confident(logits))


def test_shapes_are_checked():
    with pytest.raises(ValueError, match=r"attributes must be \(3, a\), one row a latent"):
        module.separability(np.zeros((3, 2)), np.zeros((4, 1)))

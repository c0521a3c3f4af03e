"""Linear separability: whether a plane of latents tells what is in the image (arXiv:1812.04948).

    exp(sum_i H(Y_i | X_i)),   H(Y | X) = -sum_xy p(x, y) log p(y | x)                   (Sec. 4.2)

Y_i is the i-th attribute of the image by a classifier, X_i what a linear support vector machine,
fitted to the same latents, says of it: 1 when latents separate every attribute. The paper has 40
binary attributes; one with k classes contributes a factor of 1 to k.
"""

import warnings

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import as_features


def separability(latents: ArrayLike, attributes: ArrayLike) -> float:
    """exp of the summed conditional entropies, in nats.

    Args:
      latents: (n, d), scaled to unit deviations before a machine is fitted. attributes: (n, a)
        integers, one column an attribute; (n,) is one.
    Raises:
      ValueError: for other shapes.
    """
    latents = as_features(latents, "latents")
    attributes = np.asarray(attributes)
    attributes = attributes[:, None] if attributes.ndim == 1 else attributes
    if attributes.ndim != 2 or len(attributes) != len(latents):
        raise ValueError(
            f"attributes must be ({len(latents)}, a), one row a latent, got {attributes.shape}"
        )
    scaled = (latents - latents.mean(0)) / np.maximum(latents.std(0), 1e-12)
    total = sum(conditional_entropy(predictions(scaled, y), y) for y in attributes.T)
    return float(np.exp(total))


def predictions(latents: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What linear support vector machines (one a class) say of the latents they were fitted to."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import LinearSVC

    if len(np.unique(labels)) < 2:
        return labels
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of labels that no plane separates
        return LinearSVC(dual=False, random_state=0).fit(latents, labels).predict(latents)


def conditional_entropy(x: ArrayLike, y: ArrayLike) -> float:
    """H(Y | X) in nats of paired labels x, y (n,), by their counts."""
    _, x = np.unique(x, return_inverse=True)
    _, y = np.unique(y, return_inverse=True)
    joint = np.zeros((x.max() + 1, y.max() + 1))
    np.add.at(joint, (x, y), 1 / len(x))
    given = joint / joint.sum(1, keepdims=True)
    return float(-np.sum(joint * np.log(np.where(joint > 0, given, 1.0))))


def confident(logits: ArrayLike) -> np.ndarray:
    """Which rows of logits (n, k) to keep: the more certain half, by the probability of the best.

    The paper's rule for binary classifiers, for any number of classes.
    """
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    doubt = np.log(np.exp(x).sum(-1))  # -log of the largest probability
    order = np.argsort(doubt, kind="stable")
    keep = np.zeros(len(x), bool)
    keep[order[: (len(x) + 1) // 2]] = True
    return keep

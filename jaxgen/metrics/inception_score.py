"""Inception Score: how sure a classifier is of samples, and how varied they are (arXiv:1606.03498).

    IS = exp(E_x KL(p(y | x) || p(y))),   p(y) = E_x p(y | x)                           (Sec. 4)

From 1 (all answers alike) to the number of classes. It knows no real images. The published numbers
are means over 10 parts of the samples, by logits without the classifier's bias; a part with few
samples scores lower.
"""

import numpy as np
from numpy.typing import ArrayLike

from jaxgen.metrics.moments import as_features


def inception_score(
    logits: ArrayLike, *, splits: int = 10, shuffle: int | None = None
) -> tuple[float, float]:
    """Mean and standard deviation (population) over equal parts of logits (n, classes).

    Args:
      splits: parts, in order. shuffle: seed of numpy's RandomState that permutes rows before, as
        torch-fidelity does (2020); None: their order is kept.
    Raises:
      ValueError: fewer samples than parts.
    Source: arXiv:1606.03498, Sec. 4.
    """
    x = as_features(logits, "logits", least=1)
    n = len(x)
    if not 1 <= splits <= n:
        raise ValueError(
            f"the Inception Score of {splits} parts needs as many samples at least, got {n}; use "
            "more samples or fewer splits"
        )
    if shuffle is not None:
        x = x[np.random.RandomState(shuffle).permutation(n)]
    log_p = x - x.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    scores = [_score(log_p[i * n // splits : (i + 1) * n // splits]) for i in range(splits)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(log_p: np.ndarray) -> float:
    p = np.exp(log_p)
    mean = p.mean(0)
    log_mean = np.log(np.where(mean > 0, mean, 1.0))  # where it is 0, so is every p
    return float(np.exp((p * (log_p - log_mean)).sum(1).mean()))

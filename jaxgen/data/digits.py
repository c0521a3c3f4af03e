"""The 1797 hand-written digits (8x8, one channel) inside scikit-learn."""

import numpy as np

from jaxgen.data.source import ArraySource, Source, held_out, subset

TEST = 597


def load(split: str) -> Source:
    """1200 train and 597 test images, stratified; values 0..16 become 0..255, rounded."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)[..., None]
    whole = ArraySource(
        images, digits.target, name="digits", class_names=[str(i) for i in range(10)]
    )
    return subset(whole, held_out(len(whole), split, TEST, digits.target), split)

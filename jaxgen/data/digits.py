"""The 1797 hand-written digits (8x8, one channel) inside scikit-learn."""

import numpy as np

from jaxgen.data.photos import package_folder
from jaxgen.data.source import ArraySource, Source, held_out, subset

TEST = 597


def load(split: str) -> Source:
    """1200 train and 597 test images, stratified; values 0..16 become 0..255, rounded."""
    # The file that sklearn.datasets.load_digits reads; importing that would take most of a second.
    file = package_folder("sklearn") / "datasets" / "data" / "digits.csv.gz"
    rows = np.loadtxt(file, delimiter=",")
    target = rows[:, -1].astype(int)
    images = np.rint(rows[:, :-1].reshape(-1, 8, 8, 1) * (255 / 16)).astype(np.uint8)
    whole = ArraySource(images, target, name="digits", class_names=[str(i) for i in range(10)])
    return subset(whole, held_out(len(whole), split, TEST, target), split)

"""Sources: in memory and not, subsets, the held-out part, and their checks."""

import numpy as np
import pytest

from jaxgen.data.source import (
    ArraySource,
    Source,
    check,
    held_out,
    in_memory,
    limited,
    split_off,
    subset,
)


def images(n=10, c=3):
    return np.random.default_rng(0).integers(0, 256, (n, 4, 5, c), dtype=np.uint8)


class Lazy(Source):
    def __init__(self, source):
        super().__init__(**source.facts)
        self.source = source

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        return self.source[i]


def test_facts_of_arrays():
    source = check(ArraySource(images(), np.arange(10) % 4, name="x", split="train"))
    assert (source.shape, source.label_kind, source.label_dim) == ((4, 5, 3), "class", 4)
    assert source[3]["label"] == 3 and source[3]["label"].dtype == np.int32
    assert "10 of 4x5x3 uint8, 4 class" in repr(source)
    vector = check(ArraySource(images(), np.zeros((10, 7))))
    assert (vector.label_kind, vector.label_dim) == ("vector", 7)
    assert vector[0]["label"].dtype == np.float32
    none = check(ArraySource(images()))
    assert (none.label_kind, none.label_dim) == ("none", 0) and "label" not in none[0]


@pytest.mark.parametrize("labels", [None, np.arange(10) % 4, np.ones((10, 3))])
def test_subset_and_in_memory(labels):
    source = ArraySource(images(), labels, name="x", split="train")
    lazy = Lazy(source)
    held = in_memory(lazy)
    np.testing.assert_array_equal(held.arrays[0], source.images)
    assert held.facts == source.facts and in_memory(source) is source
    if labels is not None:
        np.testing.assert_array_equal(held.arrays[1], source.labels)
    assert in_memory(lazy, limit_bytes=source.images.nbytes - 1) is lazy
    order = [7, 1, 1]
    for part in (subset(source, order), subset(lazy, order)):
        assert len(part) == 3 and part.facts == source.facts
        np.testing.assert_array_equal(check(part)[0]["image"], source.images[7])


@pytest.mark.parametrize("n,count", [(2, 1), (9, 1), (100, 10), (1797, 597)])
def test_held_out_parts_divide_the_set(n, count):
    classes = np.arange(n) * 10 // n
    given = count if count == 597 else None
    train, test = (held_out(n, s, given, classes) for s in ("train", "test"))
    assert len(test) == count
    np.testing.assert_array_equal(np.sort(np.concatenate([train, test])), np.arange(n))
    assert (np.diff(train) > 0).all()
    if n >= 100:
        counts = np.bincount(classes[test], minlength=10)
        expected = np.bincount(classes) * count / n
        assert np.abs(counts - expected).max() <= 1
    np.testing.assert_array_equal(test, held_out(n, "test", given, classes))


def test_fewer_images_are_a_part_of_more():
    numbers = np.arange(300, dtype=np.uint8)[:, None, None, None]
    source = ArraySource(numbers, np.arange(300) % 3, name="x", split="train")
    parts = [limited(source, n) for n in (30, 120, 300)]
    for part, n in zip(parts, (30, 120, 300)):
        assert len(part) == n and part.facts == source.facts
        assert np.ptp(np.bincount(part.labels)) <= 1
    seen = [set(map(tuple, np.c_[p.images.ravel(), p.labels])) for p in parts]
    assert seen[0] < seen[1] < seen[2] and parts[2] is source
    assert len(limited(Lazy(source), 30)) == 30
    for wrong in (-1, 301):
        with pytest.raises(ValueError, match=f"has 300 images, config.data.limit is {wrong}; set"):
            limited(source, wrong)


def splitmix64(i):
    """SplitMix64's output i (Steele, Lea and Flood 2014) in Python integers."""
    top = 2**64 - 1
    z = (i + 1) * 0x9E3779B97F4A7C15 & top
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 & top
    z = (z ^ z >> 27) * 0x94D049BB133111EB & top
    return z ^ z >> 31


def test_held_out_numbers_never_change():
    assert splitmix64(0) == 0xE220A8397B1DCDAF  # the generator's published first output
    for n in (20, 500):
        expected = sorted(sorted(range(n), key=splitmix64)[: n // 10])
        np.testing.assert_array_equal(held_out(n, "test"), expected)
    np.testing.assert_array_equal(held_out(20, "test"), [2, 4])


def test_errors():
    with pytest.raises(ValueError, match=r"uint8 or float32 of shape \(n, h, w, c\)"):
        ArraySource(np.zeros((3, 4, 4)))
    with pytest.raises(ValueError, match="10 images but 9 labels"):
        ArraySource(images(), np.zeros(9, int))
    with pytest.raises(ValueError, match=r"integers \(n,\) for classes"):
        ArraySource(images(), np.array(["a"] * 10))
    with pytest.raises(ValueError, match=r"class labels must be in 0..2, got 0..3"):
        check(ArraySource(images(), np.arange(10) % 4, label_dim=3))
    with pytest.raises(ValueError, match="2 class names for 4 classes"):
        check(ArraySource(images(), np.arange(10) % 4, label_dim=4, class_names=["a", "b"]))
    with pytest.raises(ValueError, match=r"indices in 0..9, got 3..10"):
        subset(ArraySource(images()), [3, 10])
    with pytest.raises(ValueError, match="got none"):
        subset(ArraySource(images()), [])
    with pytest.raises(ValueError, match="nothing is held out for a test split"):
        split_off(ArraySource(images()), "test", 0.0)
    with pytest.raises(ValueError, match=r"holdout must be in \[0, 1\), got 1.5"):
        split_off(ArraySource(images()), "train", 1.5)
    wrong = Lazy(ArraySource(images()))
    wrong.shape = (4, 4, 3)
    with pytest.raises(ValueError, match=r"image must be uint8 \(4, 4, 3\), got uint8 \(4, 5, 3\)"):
        check(wrong)
    wrong = Lazy(ArraySource(images()))
    wrong.label_kind = "class"
    with pytest.raises(ValueError, match="label_kind must be one of"):
        check(wrong)

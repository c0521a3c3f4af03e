"""References in files: what is read is what was written, of the same facts, or not at all."""

import numpy as np
import pytest

from jaxgen.metrics import reference, stream
from jaxgen.metrics.moments import Moments

FACTS = {"data": {"name": "digits", "images": 40}, "net": {"name": "pixels"}, "kind": "features"}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "below" / "x.npz"


def test_features_and_moments_return_as_they_were(path):
    x = np.random.default_rng(0).standard_normal((40, 5)).astype(np.float32)
    reference.save(path, FACTS, x)
    got = reference.load(path, FACTS)
    np.testing.assert_array_equal(got, x)
    assert got.dtype == np.float32 and [p.name for p in path.parent.iterdir()] == ["x.npz"]
    m = Moments(5).update(x)
    reference.save(path, FACTS, m)
    got = reference.load(path, FACTS)
    assert got.count == 40
    np.testing.assert_array_equal(got.cov, m.cov)
    np.testing.assert_array_equal(got.mean, m.mean)


def test_other_facts_are_named_with_both_sides(path):
    reference.save(path, FACTS, np.zeros((40, 5), np.float32))
    other = {**FACTS, "net": {"name": "random"}, "kind": "moments"}
    with pytest.raises(ValueError, match="was made of something else") as e:
        reference.load(path, other)
    assert "kind: features -> moments" in str(e.value) and "data" not in str(e.value)
    assert "net.name: pixels -> random" in str(e.value)
    assert reference.key(FACTS) != reference.key(other)


def test_another_version_is_named(path, monkeypatch):
    reference.save(path, FACTS, np.zeros((40, 5), np.float32))
    monkeypatch.setattr(reference, "FORMAT", 2)
    with pytest.raises(ValueError, match="format: 1 -> 2"):
        reference.load(path, FACTS)


@pytest.mark.parametrize("how", ["cut", "flip", "other", "edit"])
def test_damage_is_found(path, how):
    reference.save(path, FACTS, np.ones((40, 50), np.float32))
    data = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(data[: len(data) // 2])
    elif how == "flip":
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    elif how == "other":
        np.savez(path, features=np.ones(3))
    else:  # a valid archive with other numbers
        with np.load(path) as f:
            arrays = {n: f[n] for n in f.files}
        np.savez(path, **{**arrays, "features": arrays["features"] * 2})
    with pytest.raises(ValueError, match=r"is damaged.*; delete it"):
        reference.load(path, FACTS)


def test_one_process_joins_nothing():
    x = np.arange(6.0).reshape(3, 2)
    assert stream.joined(x) is x and stream.agreed(True) and not stream.agreed(False)
    assert stream.share(7) == slice(0, 7)

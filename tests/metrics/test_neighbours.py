"""Neighbours by blocked products decide as differences in float64 do, on any data."""

import numpy as np
import pytest

from jaxgen.common.mesh import make_mesh
from jaxgen.metrics import distances, neighbours

BLOCK = 64  # two blocks and a bit of each set: the device's way, not the one of small sets


def squared(x, y, weights=1.0):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return np.square(x[:, None] - y[None]).sum(2) * weights


def cases():
    g = np.random.default_rng(0)
    normal = lambda n: g.standard_normal((n, 6))
    grid = lambda n: g.integers(0, 4, (n, 6)).astype(np.float32) / 8
    copies = np.repeat(normal(3), 50, 0)
    return {
        "normal": (normal(150), normal(130)),
        "float32": (normal(150).astype(np.float32), normal(130).astype(np.float32)),
        "grid": (grid(150), grid(130)),
        "copies": (copies, np.concatenate([copies[::-1][:100], normal(30)])),
        "far": (normal(150) * 1e-4 + 1e3, normal(130) * 1e-4 - 1e3),  # norms hide all distances
        "huge": ((normal(150) * 1e30).astype(np.float32), (normal(130) * 1e30).astype(np.float32)),
        "tiny": (normal(150) * 1e-30, normal(130) * 1e-30),
        "zero": (np.zeros((150, 6)), np.zeros((130, 6))),
    }


CASES = cases()


@pytest.mark.parametrize("block", [None, BLOCK])
@pytest.mark.parametrize("case", CASES)
def test_nearest_is_that_of_differences(case, block):
    x, y = CASES[case]
    k = 3
    all_of = squared(x, x)
    np.fill_diagonal(all_of, np.inf)
    value, who = neighbours.nearest(x, None, k, block=block)
    np.testing.assert_array_equal(value, np.sort(all_of, 1)[:, :k])
    np.testing.assert_array_equal(np.take_along_axis(all_of, who, 1), value)
    weights = np.random.default_rng(1).uniform(0.1, 10, len(y))
    value, who = neighbours.nearest(x, y, k, weights=weights, block=block)
    want = squared(x, y, weights)
    np.testing.assert_allclose(value, np.sort(want, 1)[:, :k], rtol=1e-15)
    np.testing.assert_allclose(np.take_along_axis(want, who, 1), value, rtol=1e-15)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("block", [None, BLOCK])
@pytest.mark.parametrize("case", CASES)
def test_balls_hold_what_differences_say(case, block, strict):
    """Radii are distances of the data, so that many points lie on a border exactly."""
    x, y = CASES[case]
    x_r2 = np.sort(squared(x, x), 1)[:, 3]
    y_r2 = np.sort(squared(x, y), 0)[5]
    got = neighbours.count_inside(x, y, x_r2, y_r2, strict=strict, block=block)
    d2, within = squared(x, y), np.less if strict else np.less_equal
    in_y, in_x = within(d2, y_r2), within(d2, x_r2[:, None])
    for found, want in zip(got, (in_y.sum(1), in_y.sum(0), in_x.sum(0), in_x.sum(1))):
        np.testing.assert_array_equal(found, want)
    if not strict:
        assert in_y.sum() >= 6 * len(y)  # the border counts
    without = neighbours.count_inside(x, y, None, y_r2, strict=strict, block=block)
    np.testing.assert_array_equal(without.x_in_y, got.x_in_y)
    assert not without.y_in_x.any() and not without.x_holds.any()


@pytest.mark.parametrize("devices", [1, 8])
def test_devices_share_the_work(devices):
    """One device does half of the blocks of a set with itself, several all of them."""
    import jax

    x, y = CASES["grid"]
    mesh = make_mesh(devices=jax.devices()[:devices])
    value, _ = neighbours.nearest(x, None, 3, block=BLOCK, mesh=mesh)
    np.testing.assert_array_equal(value, np.sort(squared(x, x), 1)[:, 1:4])
    got = neighbours.count_inside(x, y, None, np.full(len(y), 0.25), block=BLOCK, mesh=mesh)
    np.testing.assert_array_equal(got.x_in_y, (squared(x, y) <= 0.25).sum(1))


@pytest.mark.parametrize("dim", [1, 7, 300])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_bound_holds_for_random_and_for_aligned_vectors(dim, dtype):
    """Aligned vectors of one length have the largest error beside their distance."""
    g = np.random.default_rng(dim)
    a = g.standard_normal((60, dim))
    for b in (g.standard_normal((60, dim)), a * (1 + 1e-7), np.roll(a, 1, 0)):
        low, other = (z.astype(dtype) for z in (a, b))
        product = (low**2).sum(1)[:, None] + (other**2).sum(1) - 2 * low @ other.T
        wide = np.longdouble
        true = np.square(a[:, None].astype(wide) - b[None].astype(wide)).sum(2)
        norms = np.linalg.norm(a, axis=1)[:, None] + np.linalg.norm(b, axis=1)
        limit = distances.bound(dim, np.finfo(dtype).eps / 2) * norms**2
        assert (np.abs(product - true) <= limit).all()


def test_too_many_neighbours_are_refused():
    x, y = CASES["normal"]
    with pytest.raises(ValueError, match=r"k must be in 1\.\.149 for 150 samples, got k=150; use"):
        neighbours.nearest(x, None, 150)
    with pytest.raises(ValueError, match=r"k must be in 1\.\.130 for 130 samples, got k=0"):
        neighbours.nearest(x, y, 0)

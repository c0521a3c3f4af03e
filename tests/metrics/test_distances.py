"""Closed forms and invariances of the distances between feature sets."""

import numpy as np
import pytest

from jaxgen.metrics import evaluate
from jaxgen.metrics.frechet import frechet, frechet_from_moments
from jaxgen.metrics.kernel import kernel, kernel_subsets
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.precision_recall import density_coverage, precision_recall
from jaxgen.metrics.psnr import psnr, psnr_8bit


def gauss(seed, n, d, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((n, d))


def whitened(seed, n, d):
    """A set of mean 0 and covariance exactly 1."""
    x = gauss(seed, n, d)
    q, _ = np.linalg.qr(x - x.mean(0))
    return q * np.sqrt(n - 1)


def test_frechet_of_commuting_gaussians_is_the_sum_over_axes():
    a, b = np.array([1.0, 2.0, 0.5]), np.array([3.0, 1.0, 0.5])
    dm = np.array([0.3, -1.0, 2.0])
    want = np.sum(dm**2) + np.sum((a - b) ** 2)
    np.testing.assert_allclose(
        frechet_from_moments(0 * dm, np.diag(a**2), dm, np.diag(b**2)), want, rtol=1e-12
    )
    x, y = whitened(0, 50, 3) * a, whitened(1, 40, 3) * b + dm
    np.testing.assert_allclose(frechet(x, y), want, rtol=1e-12)


FEW = pytest.mark.filterwarnings("ignore:a Frechet distance of:RuntimeWarning")


@FEW
@pytest.mark.parametrize("n", [5, 100])
def test_frechet_is_zero_on_itself_and_a_shift_adds_its_square(n):
    x, dm = gauss(0, n, 12), gauss(1, 1, 12)[0]
    assert abs(frechet(x, x)) < 1e-12
    np.testing.assert_allclose(frechet(x, x[::-1] + dm), dm @ dm, rtol=1e-10)


@FEW
@pytest.mark.parametrize("n,m", [(6, 9), (30, 9), (30, 40)])
def test_frechet_is_symmetric_and_blind_to_rotations(n, m):
    x, y = gauss(0, n, 16), gauss(1, m, 16, 1.5) + 0.2
    q, _ = np.linalg.qr(gauss(2, 16, 16))
    d = frechet(x, y)
    np.testing.assert_allclose([frechet(y, x), frechet(x @ q, y @ q)], d, rtol=1e-11)
    covs = np.cov(x.T), np.cov(y.T)
    other = frechet_from_moments(x.mean(0), covs[0], y.mean(0), covs[1])
    np.testing.assert_allclose(other, d, rtol=1e-5)


def test_kernel_is_the_double_sum():
    x, y = gauss(0, 7, 3), gauss(1, 9, 3) + 0.5
    k = lambda a, b: (a @ b / 3 + 1) ** 3
    off = lambda s: np.mean([k(a, b) for i, a in enumerate(s) for j, b in enumerate(s) if i != j])
    want = off(x) + off(y) - 2 * np.mean([k(a, b) for a in x for b in y])
    np.testing.assert_allclose(kernel(x, y, block=2), want, rtol=1e-10)


def test_kernel_is_unbiased_where_the_biased_estimate_is_not():
    values = [kernel(gauss(2 * i, 20, 4), gauss(2 * i + 1, 15, 4)) for i in range(400)]
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(400)
    assert min(values) < 0


def test_kernel_subsets_repeat_with_the_seed_and_centre_on_the_full_estimate():
    x, y = gauss(0, 300, 4), gauss(1, 200, 4) + 0.5
    mean, std = kernel_subsets(x, y, subsets=100, size=50, seed=1)
    assert (mean, std) == kernel_subsets(x, y, subsets=100, size=50, seed=1)
    assert mean != kernel_subsets(x, y, subsets=100, size=50, seed=2)[0]
    assert abs(mean - kernel(x, y)) < 4 * std / 10
    with pytest.raises(ValueError, match=r"must have 2 to 200 samples .* got size=1000"):
        kernel_subsets(x, y)


def test_precision_recall_of_equal_disjoint_and_collapsed_sets():
    x = gauss(0, 200, 3)
    assert precision_recall(x, x) == {"precision": 1.0, "recall": 1.0}
    assert precision_recall(x + 100, x) == {"precision": 0.0, "recall": 0.0}
    collapsed = x[:1] + gauss(1, 100, 3, 1e-3)
    got = precision_recall(collapsed, x)
    assert got["precision"] == 1.0 and got["recall"] < 0.02
    assert density_coverage(x + 100, x) == {"density": 0.0, "coverage": 0.0}
    assert density_coverage(collapsed, x)["coverage"] < 0.1


def test_precision_recall_by_hand_on_a_line():
    # k = 1 radii: 1, 1, 2 (reals 0 1 3) and 4, 4 (fakes 2, 6); boundaries decide.
    real, fake = np.array([[0.0], [1.0], [3.0]]), np.array([[2.0], [6.0]])
    got = precision_recall(fake, real, k=1)
    assert got == {"precision": 0.5, "recall": 1.0}
    # strict: 2 lies only inside the ball of 3 (radius 2), not on that of 1 (radius 1).
    assert density_coverage(fake, real, k=1) == {"density": 0.5, "coverage": 1 / 3}
    with pytest.raises(ValueError, match=r"k must be in 1\.\.2 for 3 samples, got k=3"):
        precision_recall(fake, real)


def test_moments_do_not_depend_on_how_they_are_cut():
    x = gauss(0, 500, 6) + 1000.0
    parts = Moments(6)
    for cut in np.split(x, [1, 2, 130, 130, 499]):
        parts.update(cut)
    merged = Moments(6).update(x[:77]).merge(Moments(6)).merge(Moments(6).update(x[77:]))
    for m in (parts, merged):
        assert m.count == 500
        np.testing.assert_allclose(m.mean, x.mean(0), rtol=1e-14)
        np.testing.assert_allclose(m.cov, np.cov(x.T), rtol=1e-9, atol=1e-10)


def test_psnr_by_hand():
    x = np.zeros((2, 4, 4, 1), np.float32)
    y = x.copy()
    y[0] += 0.2
    got = psnr(x, y)
    np.testing.assert_allclose(got[0], 20.0, rtol=1e-6)
    assert got[1] == np.inf
    # 0 -> 127.5, to even 128; 0.2 -> 153; and a float equals its own uint8.
    np.testing.assert_allclose(psnr_8bit(x, y)[0], 20 * np.log10(255 / 25), rtol=1e-12)
    assert psnr_8bit(np.full_like(x, 1.7), np.full(x.shape, 255, np.uint8))[0] == np.inf
    with pytest.raises(ValueError, match=r"two stacks of images .* of one shape, got"):
        psnr(x, y[0])


def test_compare_names_the_net_and_the_floor_is_low():
    real, fake = gauss(0, 400, 8), gauss(1, 300, 8) + 1.0
    got = evaluate.compare(fake, real, net_name="pixels")
    assert set(got) == {"frechet@pixels", "kernel@pixels", "precision@pixels", "recall@pixels"}
    assert got["frechet@pixels"] == frechet(fake, real)
    low = evaluate.floor(real, 0, net_name="pixels")
    assert low == evaluate.floor(real, 0, net_name="pixels")
    assert set(low) == set(got) and low["frechet@pixels"] < 0.1 * got["frechet@pixels"]
    extra = evaluate.compare(fake, real, ["density_coverage"], net_name="n")
    assert set(extra) == {"density@n", "coverage@n"}


def test_errors_say_what_to_do():
    x = gauss(0, 10, 4)
    with pytest.raises(ValueError, match=r"no metric 'frechett'; did you mean .frechet."):
        evaluate.compare(x, x, ["frechett"], net_name="pixels")
    with pytest.raises(ValueError, match=r"of one width, got 4 and 3; .* same feature net"):
        frechet(x, x[:, :3])
    with pytest.raises(ValueError, match="at least 2 samples, got 1; use more images"):
        frechet(x[:1], x)
    with pytest.raises(ValueError, match=r"features \(n, d\), got shape \(10,\)"):
        kernel(x[:, 0], x)
    bad = x.copy()
    bad[3, 1] = np.nan
    with pytest.raises(ValueError, match="1 of 10 rows of fake are not finite"):
        precision_recall(bad, x)
    with pytest.raises(ValueError, match=r"means .* and covariances .* of one width"):
        frechet_from_moments(x[0], np.eye(4), x[0], np.eye(3))
    with pytest.raises(ValueError, match="needs at least 2 samples, got 0"):
        _ = Moments(3).cov
    with pytest.raises(ValueError, match=r"features must be \(n, 3\), got \(10, 4\)"):
        Moments(3).update(x)
    with pytest.raises(ValueError, match="cannot merge moments of width 4 into width 3"):
        Moments(3).merge(Moments(4))

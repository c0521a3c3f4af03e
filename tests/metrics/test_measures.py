"""Measures beside the distances: closed forms, invariances, what each is made to notice."""

import warnings

import numpy as np
import pytest

from jaxgen.metrics import evaluate, features, memorisation, protocols
from jaxgen.metrics.diversity import diversity
from jaxgen.metrics.frechet import between, fit, frechet, nuclear_norm
from jaxgen.metrics.frechet_infinity import bias_note, frechet_infinity
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kernel import kernel, kernel_error
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.precision_recall import density_coverage, precision_recall
from jaxgen.metrics.realism import realism


def gauss(seed, n, d, scale=1.0):
    return scale * np.random.default_rng(seed).standard_normal((n, d))


# Frechet


def test_frechet_takes_moments_of_either_set():
    x, y = gauss(0, 90, 5) * [1, 2, 3, 4, 5], gauss(1, 80, 5) + 0.3
    mx, my = Moments(5).update(x), Moments(5).update(y)
    want = frechet(x, y)
    for a, b in ((mx, my), (x, my), (mx, y)):
        np.testing.assert_allclose(frechet(a, b), want, rtol=1e-10)
    biased = [z.cov * (m - 1) / m for z, m in ((mx, 90), (my, 80))]
    from_parts = fit(Moments(5).update(x), ddof=0).root
    np.testing.assert_allclose(from_parts.T @ from_parts, biased[0], rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(frechet(mx, my, ddof=0), frechet(x, y, ddof=0), rtol=1e-10)
    assert frechet(x, y, ddof=0) != want


@pytest.mark.parametrize("decay", [0.5, 3.0, 12.0])
def test_both_ways_to_a_root_agree(decay):
    """Cholesky's factor where pivots allow, QR where they do not: singular values are the same."""
    scale = 10.0 ** -np.linspace(0, decay, 8)
    x, y = gauss(0, 50, 8) * scale, gauss(1, 60, 8) * scale[::-1]
    pivots = np.square(np.diagonal(np.linalg.qr((x - x.mean(0)) / 7, mode="r")))
    assert (pivots.min() > 1e-9 * pivots.max()) == (decay < 4)
    wide = np.longdouble
    roots = [np.asarray((z - z.astype(wide).mean(0)) / np.sqrt(len(z) - 1), float) for z in (x, y)]
    shift = x.mean(0) - y.mean(0)
    cross = np.linalg.svd(roots[0] @ roots[1].T, compute_uv=False).sum()
    want = shift @ shift + sum((r * r).sum() for r in roots) - 2 * cross
    np.testing.assert_allclose(frechet(x, y), want, rtol=1e-12)


@pytest.mark.parametrize("decay, quick", [(1.0, True), (9.0, False)])
def test_wide_matrices_are_summed_by_eigenvalues_where_these_are_good_enough(
    decay, quick, monkeypatch
):
    a = gauss(0, 520, 560) * 10.0 ** -np.linspace(0, decay, 560)
    exact = np.linalg.svd(a, compute_uv=False).sum()
    used, svd = [], np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda *z, **k: used.append(1) or svd(*z, **k))
    for z in (a, a.T):
        np.testing.assert_allclose(nuclear_norm(z), exact, rtol=1e-9)
    assert bool(used) != quick
    assert nuclear_norm(np.zeros((512, 512))) == 0


def test_frechet_is_never_below_zero_and_warns_of_few_samples():
    x = gauss(0, 200, 3) * 1e-9 + 1.0
    assert min(frechet(x, x[np.random.default_rng(i).permutation(200)]) for i in range(20)) >= 0
    with pytest.warns(RuntimeWarning, match="of 4 samples in 9 dimensions is far above"):
        frechet(gauss(0, 50, 9), gauss(1, 4, 9))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        frechet(gauss(0, 9, 9), gauss(1, 50, 9))


def test_extrapolation_takes_the_bias_away():
    """Two samples of one distribution: the distance is all bias, and falls as 1 / n."""
    x, y = gauss(0, 4000, 12), gauss(1, 4000, 12)
    line = frechet_infinity(x, y, both=True, points=8)
    whole = frechet(x, y)
    assert whole > 0 and line.values[-1] == pytest.approx(whole, rel=1e-9)
    assert abs(line.distance) < 0.1 * line.values[0] and line.slope > 0
    np.testing.assert_allclose(
        line.distance + line.slope / line.sizes, line.values, atol=0.2 * line.values.max()
    )
    shifted = frechet_infinity(x + 1.0, y, points=8)
    assert abs(shifted.distance - 12) < 0.7
    assert line == frechet_infinity(x, y, both=True, points=8)._replace(
        sizes=line.sizes, values=line.values
    )


def test_the_expectation_of_the_distance_is_linear_in_one_over_n():
    """By theory, in one dimension: E (m_n)^2 = 1/n and E (s_n - 1)^2 = 1 / 2n + O(1/n^2)."""
    exact = fit(np.array([[-1.0], [1.0]]) / np.sqrt(2))  # mean 0, variance 1
    g = np.random.default_rng(0)
    for n in (50, 200):
        values = [between(fit(g.standard_normal((n, 1))), exact) for _ in range(2000)]
        error = np.std(values) / np.sqrt(2000)
        assert abs(np.mean(values) - 1.5 / n) < 4 * error + 1 / n**2


def test_the_line_needs_only_moments_of_the_other_set():
    x, y = gauss(3, 60, 5), gauss(4, 400, 5)
    moments = Moments(5).update(y)
    whole, other = frechet_infinity(x, y), frechet_infinity(x, moments)
    assert other.distance == pytest.approx(whole.distance, abs=1e-9)
    assert "40 and 400 samples" in bias_note(x[:40], moments, 1.0)
    with pytest.raises(ValueError, match="one width"):
        frechet_infinity(x, Moments(4).update(y[:, :4]))


def test_a_note_says_how_much_is_bias():
    x, y = gauss(0, 100, 12), gauss(1, 300, 12)
    note = bias_note(x, y, frechet(x, y))
    assert note.startswith("100 and 300 samples are few for a Frechet distance in 12 dimensions")
    assert "is bias" in note
    assert bias_note(gauss(0, 130, 12), y, 1.0) is None
    with pytest.raises(ValueError, match=r"to less than all 100; got points=1, least=12; use more"):
        frechet_infinity(x, y, points=1)
    with pytest.raises(ValueError, match="least=100; use more samples"):
        frechet_infinity(x, y, least=100)


# Kernel


@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_the_kernel_error_is_the_spread_over_new_samples(shift):
    pairs = [(gauss(2 * i, 40, 3), gauss(2 * i + 1, 30, 3) + shift) for i in range(300)]
    found = np.array([kernel_error(*p) for p in pairs])
    np.testing.assert_allclose(found[0, 0], kernel(*pairs[0]), rtol=1e-12)
    ratio = np.median(found[:, 1]) / found[:, 0].std()
    assert 0.8 < ratio < (1.25 if shift else 1.7)  # sqrt(2) for equal distributions


def test_the_kernel_error_is_a_jackknife():
    x, y = gauss(0, 8, 3), gauss(1, 6, 3)
    out = lambda z, i: np.delete(z, i, 0)
    left = [[kernel(out(x, i), y) for i in range(8)], [kernel(x, out(y, i)) for i in range(6)]]
    want = np.sqrt(sum((len(v) - 1) * np.var(v) for v in left))
    np.testing.assert_allclose(kernel_error(x, y, block=3)[1], want, rtol=1e-9)
    with pytest.raises(ValueError, match="needs 3 samples of each set, got 8 and 2"):
        kernel_error(x, y[:2])


# Inception Score


def test_inception_score_of_certain_equal_and_one_sided_answers():
    certain = 200.0 * np.tile(np.eye(7), (10, 1))
    assert inception_score(certain, splits=1) == (pytest.approx(7.0), 0.0)
    assert inception_score(certain, splits=10) == (pytest.approx(7.0), pytest.approx(0))
    assert inception_score(np.ones((30, 7)), splits=3)[0] == pytest.approx(1.0)
    assert inception_score(certain[np.zeros(40, int)], splits=4)[0] == pytest.approx(1.0)
    x = gauss(0, 60, 5, 3.0)
    np.testing.assert_allclose(inception_score(x + 7.0), inception_score(x), rtol=1e-12)
    order = np.random.RandomState(3).permutation(60)
    assert inception_score(x, shuffle=3) == inception_score(x[order])
    with pytest.raises(ValueError, match="of 10 parts needs as many samples at least, got 9; use"):
        inception_score(x[:9])


# Precision, recall, realism


def test_ties_are_by_option():
    real, fake = np.array([[0.0], [1.0], [3.0]]), np.array([[2.0], [6.0]])
    both = [precision_recall(fake, real, k=1, ties=t)["recall"] for t in ("<=", "<")]
    assert both == [1.0, 1.0]
    line, border = np.arange(5.0)[:, None], np.array([[5.0], [9.0]])  # 5 is at 1 of 4
    for measure, key in ((precision_recall, "precision"), (density_coverage, "density")):
        inside, outside = (measure(border, line, k=1, ties=t)[key] for t in ("<=", "<"))
        assert (inside, outside) == (0.5, 0.0)
    with pytest.raises(ValueError, match=r'ties must be "<=" .* or "<", got "=="|got \'==\''):
        precision_recall(fake, real, k=1, ties="==")


def test_half_precision_rounds_features_and_radii():
    x = 1.0 + gauss(0, 60, 3, 1e-5)  # below float16's steps at 1
    assert precision_recall(x + 2e-5, x)["precision"] < 1
    assert precision_recall(x + 2e-5, x, half=True) == {"precision": 1.0, "recall": 1.0}


def test_realism_by_hand_and_on_copies():
    # k = 1: radii 1, 1, 2, 10; the median is 1.5, so the balls of 0 and 1 are left.
    real = np.array([[0.0], [1.0], [3.0], [13.0]])
    fake = np.array([[-0.5], [1.0], [5.0]])
    np.testing.assert_allclose(realism(fake, real, k=1), [2.0, np.inf, 0.25])
    x, y = gauss(0, 300, 4), gauss(1, 200, 4)
    inside = realism(x, y) >= 1
    r2 = np.sort(np.square(y[:, None] - y[None]).sum(2), 1)[:, 3]
    kept = r2 <= np.median(r2)
    d2 = np.square(x[:, None] - y[kept][None]).sum(2)
    np.testing.assert_array_equal(inside, (d2 <= r2[kept]).any(1))
    np.testing.assert_allclose(realism(x, y), np.sqrt((r2[kept] / d2).max(1)), rtol=1e-12)
    assert realism(x * 3, y).mean() < realism(x, y).mean()
    with pytest.raises(ValueError, match="half of the 40 reals have 3 duplicates or more"):
        realism(x, np.zeros((40, 4)))


# Diversity and memorisation


def test_diversity_is_the_mean_over_different_pairs():
    images = np.arange(4.0)[:, None, None, None] * np.ones((4, 2, 2, 1))
    seen = []

    def distance(a, b):
        seen.append(len(a))
        return np.abs(a - b).mean((1, 2, 3))

    mean, error = diversity(distance, images, pairs=4000, batch=64)
    assert set(seen) == {64}
    exact = np.mean([abs(i - j) for i in range(4) for j in range(4) if i != j])
    assert abs(mean - exact) < 4 * error and error < 0.02
    assert diversity(distance, images[[1, 1, 1]]) == (0.0, 0.0)
    with pytest.raises(ValueError, match="needs 2 images and 2 pairs or more, got 1 and 1000"):
        diversity(distance, images[:1])
    with pytest.raises(ValueError, match="50 of 50 distances are not finite; look at the images"):
        diversity(lambda a, b: np.full(len(a), np.nan), images, pairs=50)


def test_memorisation_of_copies_of_fresh_and_of_far_samples():
    train, held_out, fresh = gauss(0, 400, 3), gauss(1, 200, 3), gauss(2, 300, 3)
    of = lambda x: memorisation.to_training(x, train)
    copies = of(train[:50] + 1e-6)
    np.testing.assert_array_equal(copies.index, np.arange(50))
    np.testing.assert_allclose(copies.distance, np.sqrt(3) * 1e-6, rtol=1e-6)
    score = lambda x: memorisation.memorisation(of(x), of(held_out))
    found = score(train[:50] + 1e-6)
    assert found["memorisation"] == 1.0 and found["copies"] == 1.0
    assert found["nearest_ratio"] < 1e-4
    found = score(fresh)
    assert abs(found["memorisation"] - 0.5) < 0.1 and 0.8 < found["nearest_ratio"] < 1.25
    assert found["copies"] < 0.05
    assert score(fresh + 50)["memorisation"] == 0.0
    by_hand = memorisation.memorisation(
        *(memorisation.Nearest(np.array(d), None) for d in ([1.0, 2.0], [2.0, 3.0]))
    )
    assert by_hand["memorisation"] == (1 + 0.5 + 1 + 1) / 4


# By name


def test_measures_by_name():
    real, fake, other = gauss(0, 120, 64), gauss(1, 110, 64), gauss(2, 40, 64)
    net = features.load("digits-classifier")
    settings = evaluate.Settings(subsets=5, subset_size=30, splits=2)
    names = ["frechet_infinity", "kernel_error", "kernel_subsets", "realism", "inception_score"]
    got = evaluate.compare(
        fake,
        real,
        [*names, "memorisation"],
        net_name="n",
        net=net,
        settings=settings,
        held_out=other,
    )
    keys = {*names, "kernel_subsets_std", "realism_inside", "inception_score_std"}
    assert set(got) == {f"{k}@n" for k in (*keys, "memorisation", "nearest_ratio", "copies")}
    logits = fake.astype(np.float32) @ net.params["head_w"]  # without the bias
    want = inception_score(logits, splits=2)
    np.testing.assert_allclose(got["inception_score@n"], want[0], rtol=1e-5)
    with pytest.raises(ValueError, match="memorisation needs held-out images beside the real"):
        evaluate.compare(fake, real, ["memorisation"], net_name="n")
    with pytest.raises(ValueError, match="lpips_diversity is of the net lpips, got digits-class"):
        evaluate.check_net(["lpips_diversity"], net)
    with pytest.raises(ValueError, match="pixels is no classifier"):
        evaluate.check_net(["inception_score"], features.load("pixels"))


@pytest.mark.parametrize("name", protocols.LIKE)
def test_settings_of_libraries(name):
    protocol, settings = protocols.LIKE[name], evaluate.like(name)
    assert settings.ddof == protocol.ddof and settings.half == protocol.half
    if protocol.kernel:
        assert (settings.subsets, settings.subset_size) == protocol.kernel
    assert settings.shuffle == protocol.shuffle and settings.ties == protocol.ties
    assert evaluate.Settings(ddof=0).changed() == {"ddof": 0}
    real, fake = gauss(0, 40, 3), gauss(1, 40, 3)
    got = evaluate.compare(fake, real, ["frechet"], net_name="n", settings=settings)
    assert got["frechet@n"] == frechet(fake, real, ddof=protocol.ddof)


def test_lpips_diversity_is_of_squared_differences_of_the_net():
    class Lpips:
        name = "lpips"

        def __call__(self, images):
            return images.reshape(len(images), -1).astype(np.float64)

    images = np.random.default_rng(0).integers(0, 2, (30, 2, 2, 1), np.uint8)
    got = evaluate.compare(
        images.reshape(30, -1), images, ["lpips_diversity"], net_name="lpips", net=Lpips(),
        images=images, settings=evaluate.Settings(pairs=3000),
    )  # fmt: skip
    flat = images.reshape(30, -1).astype(float)
    exact = np.square(flat[:, None] - flat[None]).sum() / (30 * 29)
    error = got["lpips_diversity_error@lpips"]
    assert abs(got["lpips_diversity@lpips"] - exact) < 4 * error and 0 < error < 0.05

"""Gradients of a Frechet distance against finite differences, transport, heat maps, resampling."""

import numpy as np
import pytest

from jaxgen.metrics import features, histogram_attack, sensitivity
from jaxgen.metrics.frechet import frechet, frechet_from_moments

RNG = np.random.default_rng(0)
D = 5


@pytest.fixture(scope="module")
def sets():
    """Generated (40, 5) and real (60, 5) features."""
    mix = RNG.normal(size=(D, D)) / 2
    return RNG.normal(size=(40, D)) @ mix + 0.3, RNG.normal(size=(60, D)) @ mix.T


def test_adding_one_image_is_the_distance_of_the_larger_set(sets):
    fake, real = sets
    f = RNG.normal(size=D)
    got = sensitivity.distance_with(f, sensitivity.fit(fake), sensitivity.fit(real))
    np.testing.assert_allclose(got, frechet(np.vstack([fake, f]), real), rtol=1e-9)


def test_transport_carries_one_covariance_to_the_other(sets):
    a, b = (sensitivity.fit(x).cov for x in sets)
    t = sensitivity.transport(a, sensitivity.root(b))
    np.testing.assert_allclose(t, t.T, atol=1e-12)
    np.testing.assert_allclose(t @ a @ t, b, atol=1e-10)
    np.testing.assert_allclose(sensitivity.transport(a, sensitivity.root(a)), np.eye(D), atol=1e-9)


def test_gradient_is_that_of_finite_differences(sets):
    fake, real = map(sensitivity.fit, sets)
    f = RNG.normal(size=(3, D))
    got, eps = sensitivity.gradient(f, fake, real), 1e-5
    for i in range(3):
        for j in range(D):
            step = eps * np.eye(D)[j]
            up, down = (sensitivity.distance_with(f[i] + s, fake, real) for s in (step, -step))
            np.testing.assert_allclose(got[i, j], (up - down) / (2 * eps), rtol=1e-5, atol=1e-9)


def test_a_set_that_is_already_right_is_not_sensitive(sets):
    """Equal Gaussians: one more image at the mean changes nothing to first order."""
    real = sensitivity.fit(sets[1])
    many = real._replace(count=100_000)
    g = sensitivity.gradient(real.mean[None], many, real)
    assert np.abs(g).max() < 1e-12


def test_heat_sums_to_the_change_and_predicts_a_region(sets):
    fake, real = map(sensitivity.fit, sets)
    maps = RNG.normal(size=(2, 3, 4, D))
    f = maps.mean((1, 2))
    g = sensitivity.gradient(f, fake, real)
    heat = sensitivity.heat(maps, g)
    np.testing.assert_allclose(heat.sum((1, 2)), (g * f).sum(1))
    # The activations of a region, a little weaker: the distance falls by that share of its heat.
    weaker, eps = maps.copy(), 1e-4
    weaker[:, :2, 1:3] *= 1 - eps
    for i in range(2):
        pair = (sensitivity.distance_with(m[i].mean((0, 1)), fake, real) for m in (maps, weaker))
        before, after = pair
        np.testing.assert_allclose((before - after) / eps, heat[i, :2, 1:3].sum(), rtol=1e-2)


def test_by_pixel_of_pixels_is_the_gradient():
    x = RNG.uniform(-1, 1, (2, 2, 3, 3)).astype(np.float32)
    g = RNG.normal(size=(2, 18))
    got = sensitivity.by_pixel(features.load("pixels"), x, g)
    np.testing.assert_allclose(got, np.abs(g.reshape(2, 2, 3, 3)).sum(-1), rtol=1e-5)
    net = features.load("random")  # floats in [-1, 1] keep their gradient through the resizer
    slope = sensitivity.by_pixel(net, x, RNG.normal(size=(2, 128)))
    assert slope.shape == (2, 2, 3) and np.all(slope > 0)


def test_sensitivity_errors(sets):
    fake, real = map(sensitivity.fit, sets)
    with pytest.raises(ValueError, match=r"must have one width, got \(2, 4\), \(5,\) and \(5,\)"):
        sensitivity.gradient(np.zeros((2, 4)), fake, real)
    with pytest.raises(ValueError, match=r"needs more than d = 5 generated images, got 5"):
        sensitivity.gradient(np.zeros((2, D)), fake._replace(count=5), real)
    with pytest.raises(ValueError, match=r"belong together, got \(2, 3, 3, 4\) and \(2, 5\)"):
        sensitivity.heat(np.zeros((2, 3, 3, 4)), np.zeros((2, 5)))


# -------------------------------------------------------------------------------- histogram attack


@pytest.fixture(scope="module")
def classes():
    """Three clusters, (features, classes) of generated ones with wrong shares and of real ones."""
    centres = 3 * RNG.normal(size=(3, D))

    def draw(shares):
        labels = np.repeat(np.arange(3), shares)
        return centres[labels] + RNG.normal(size=(len(labels), D)) * 0.5, labels

    return draw([200, 30, 70]), draw([100, 100, 100])


def test_equal_weights_are_no_weights(classes):
    (fake, _), (real, _) = classes
    n, fit = len(fake), sensitivity.fit(real)
    mean, cov = histogram_attack.weighted(fake, np.full(n, 1 / n))
    np.testing.assert_allclose(mean, fake.mean(0))
    np.testing.assert_allclose(cov, np.cov(fake.T, ddof=0))
    want = frechet_from_moments(mean, cov, fit.mean, fit.cov)
    np.testing.assert_allclose(histogram_attack.distance(fake, np.full(n, 1 / n), fit), want)


def test_matching_the_classes_lowers_the_distance(classes):
    (fake, labels), (real, real_labels) = classes
    w = histogram_attack.match(labels, real_labels)
    np.testing.assert_allclose(np.bincount(labels, w), [1 / 3] * 3)
    fit = sensitivity.fit(real)
    before = histogram_attack.distance(fake, np.full(len(fake), 1 / len(fake)), fit)
    assert histogram_attack.distance(fake, w, fit) < 0.2 * before
    # As many images as there are weights' worth, drawn anew, have the same classes.
    drawn = labels[histogram_attack.resample(w, 6000)]
    np.testing.assert_allclose(np.bincount(drawn) / 6000, [1 / 3] * 3, atol=0.03)
    want = 1 / ((1 / 3) ** 2 * (1 / 200 + 1 / 30 + 1 / 70))
    np.testing.assert_allclose(histogram_attack.effective(w), want)


def test_slope_is_that_of_finite_differences(classes):
    """Along directions in which the weights keep their sum."""
    (fake, _), (real, _) = classes
    x, fit = fake[::20], sensitivity.fit(real)
    w = RNG.uniform(1, 2, len(x))
    w /= w.sum()
    moments = histogram_attack.weighted(x, w)
    got = histogram_attack._slope(x, moments, fit, sensitivity.root(fit.cov))
    value = lambda w: frechet_from_moments(*histogram_attack.weighted(x, w), fit.mean, fit.cov)
    for _ in range(4):
        step = RNG.normal(size=len(x))
        step = 1e-6 * (step - step.mean())
        np.testing.assert_allclose((value(w + step) - value(w - step)) / 2, got @ step, rtol=1e-4)


def test_the_distance_is_convex_in_the_weights(classes):
    (fake, _), (real, _) = classes
    x, fit = fake[::10], sensitivity.fit(real)
    for _ in range(20):
        a, b = RNG.dirichlet(np.full(len(x), 0.3), 2)
        t = RNG.uniform()
        value = lambda w: histogram_attack.distance(x, w, fit)
        assert value(t * a + (1 - t) * b) <= t * value(a) + (1 - t) * value(b) + 1e-9


def test_minimising_keeps_a_distribution_and_never_rises(classes):
    (fake, labels), (real, _) = classes
    fit = sensitivity.fit(real)
    found = histogram_attack.minimise(fake, fit, steps=40)
    w = found.weights
    assert np.all(w >= 0) and np.isclose(w.sum(), 1) and len(found.distances) == 41
    assert np.all(np.diff(found.distances) <= 0)
    np.testing.assert_allclose(histogram_attack.distance(fake, w, fit), found.distances[-1])
    matched = histogram_attack.distance(fake, histogram_attack.match(labels, [0, 1, 2]), fit)
    assert found.distances[-1] < matched < found.distances[0]
    # No weights are further below than the gap, which closes.
    longer = histogram_attack.minimise(fake, fit, steps=400)
    assert 0 <= longer.gap < 0.2 * found.gap
    assert longer.distances[-1] > found.distances[-1] - found.gap
    # It finds the classes' shares without being told of classes.
    np.testing.assert_allclose(np.bincount(labels, w), [1 / 3] * 3, atol=0.05)
    again = histogram_attack.minimise(fake, fit, steps=3, weights=w)
    assert again.distances[0] == pytest.approx(found.distances[-1])


def test_attack_errors(classes):
    (fake, labels), (real, _) = classes
    with pytest.raises(ValueError, match=r"weights must be 300 numbers, .* shape \(3,\) and sum 3"):
        histogram_attack.distance(fake, np.ones(3), sensitivity.fit(real))
    with pytest.raises(ValueError, match=r"classes must be integers \(n,\), got float64 \(300,\)"):
        histogram_attack.match(labels * 1.0, labels)
    with pytest.raises(ValueError, match="no generated image is of a class that a real one has"):
        histogram_attack.match(labels, labels + 5)

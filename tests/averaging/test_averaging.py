"""Averages against their definitions: closed forms, direct tracking, exact reconstruction."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import averaging
from jaxgen.averaging import HalfLife, Power, posthoc, power


@pytest.mark.parametrize("s", [0.01, 0.05, 0.1, 0.2, 0.28])
def test_length_and_exponent_are_inverse(s):
    assert power.sigma_rel(power.gamma(s)) == pytest.approx(s, rel=1e-10)


def test_length_is_the_standard_deviation_of_the_profile():
    g = power.gamma(0.1)
    t = (np.arange(200_000) + 0.5) / 200_000
    p = t**g / np.sum(t**g)
    mean = np.sum(p * t)
    assert np.sqrt(np.sum(p * (t - mean) ** 2)) == pytest.approx(0.1, rel=1e-6)


@pytest.mark.parametrize("s", [0.0, -1, 0.2887, 1])
def test_impossible_length_is_refused(s):
    with pytest.raises(ValueError, match=r"sigma_rel.*must lie in \(0, 0.2887\)"):
        power.gamma(s)


def test_power_weight_is_exact_at_ten_billion_images():
    """beta is within 1e-5 of 1 there; 1 - beta must still have its digits in float32."""
    n, batch = 1e10, 2048
    got = float(Power(0.05).weight(jnp.float32(n), batch))
    want = -np.expm1((power.gamma(0.05) + 1) * np.log1p(-batch / n))
    assert got == pytest.approx(want, rel=1e-6)


def track(tracker, thetas, batch=1):
    avg = jnp.zeros(thetas.shape[1])
    for i, theta in enumerate(thetas):
        avg = averaging.update(avg, theta, tracker.weight(jnp.float32((i + 1) * batch), batch))
    return np.asarray(avg)


def test_first_update_copies_and_constants_are_kept():
    thetas = jnp.ones((20, 3)) * jnp.array([1.0, -2.0, 5.0])
    for tracker in (Power(0.05), HalfLife(10.0)):
        np.testing.assert_array_equal(track(tracker, thetas), thetas[0])


def test_power_average_is_the_power_weighted_mean():
    thetas = np.random.default_rng(0).normal(size=(300, 4)).astype(np.float32)
    tracker = Power(0.1)
    g = power.gamma(0.1)
    # theta(n) enters with weight (1 - beta_n) prod_{m > n} beta_m = (n/N)^(g+1) - ((n-1)/N)^(g+1).
    n = np.arange(301) / 300
    weights = n[1:] ** (g + 1) - n[:-1] ** (g + 1)
    np.testing.assert_allclose(track(tracker, jnp.asarray(thetas)), weights @ thetas, atol=2e-5)


def test_halflife_halves():
    """After `images` more images of another constant, half of the old value is left."""
    thetas = jnp.concatenate([jnp.zeros((1, 1)), jnp.ones((8, 1))])
    assert track(HalfLife(16.0, ramp=None), thetas, batch=2)[0] == pytest.approx(0.5, rel=1e-5)


def test_fixed_leaves_are_copied():
    got = averaging.update(
        {"a": jnp.zeros(2), "freqs": jnp.zeros(2)},
        {"a": jnp.ones(2), "freqs": jnp.full(2, 7.0)},
        jnp.float32(0.25),
        {"a": False, "freqs": True},
    )
    np.testing.assert_array_equal(got["a"], [0.25, 0.25])
    np.testing.assert_array_equal(got["freqs"], [7, 7])


def test_inner_product_is_the_integral():
    t = (np.arange(400_000) + 0.5) / 400_000

    def profile(end, g):
        return np.where(t <= end, (g + 1) / end * (t / end) ** g, 0)

    want = np.mean(profile(0.5, 3.0) * profile(0.9, 7.0))
    assert posthoc.inner(0.5, 3.0, 0.9, 7.0) == pytest.approx(want, rel=1e-5)


def test_posthoc_of_a_stored_snapshot_is_that_snapshot():
    times, lengths = [100, 200, 300, 300], [0.05, 0.05, 0.05, 0.1]
    x, error = posthoc.solve(times, lengths, 300, 0.1)
    np.testing.assert_allclose(x, [0, 0, 0, 1], atol=1e-9)
    assert error < 1e-6


@pytest.mark.parametrize("length, tolerance", [(0.04, 0.03), (0.07, 0.01), (0.15, 0.02)])
def test_posthoc_matches_direct_tracking(length, tolerance, capsys):
    """A drifting random walk: rebuilt against tracked, relative to the raw weights' distance."""
    gen = np.random.default_rng(1)
    thetas = jnp.asarray(np.cumsum(gen.normal(size=(1600, 16)) + 0.01, 0), jnp.float32)
    trackers = [Power(0.05), Power(0.10)]
    snaps, times, lengths = [], [], []
    values = [jnp.zeros(16) for _ in trackers]
    update = jax.jit(lambda a, p, w: averaging.update(a, p, w))
    for i, theta in enumerate(thetas):
        for j, tracker in enumerate(trackers):
            values[j] = update(values[j], theta, tracker.weight(jnp.float32(i + 1), 1))
            if (i + 1) % 100 == 0:
                snaps.append(np.asarray(values[j]))
                times.append(i + 1)
                lengths.append(tracker.sigma_rel)
    solution = posthoc.check_length(times, lengths, 1600, length)
    got = posthoc.reconstruct(lambda i: snaps[i], solution.coefficients)
    want = track(Power(length), thetas)
    error = np.linalg.norm(got - want) / np.linalg.norm(thetas[-1] - want)
    with capsys.disabled():
        print(f"post-hoc length {length}: relative error {error:.2e}")
    assert error < tolerance


def test_reconstruct_holds_one_snapshot_at_a_time():
    alive = []

    def load(i):
        assert not [r for r in alive if r() is not None], "the snapshot before is still in memory"
        import weakref

        array = jnp.full((8,), float(i))
        alive.append(weakref.ref(array))
        return {"w": array}

    total = posthoc.reconstruct(load, [0.5, 0.25, 0.25])
    np.testing.assert_allclose(total["w"], 0.75)


def test_half_precision_snapshots_are_accumulated_in_float32():
    total = posthoc.reconstruct(lambda i: {"w": np.full(3, 0.1, np.float16)}, [0.5, 0.5])
    assert total["w"].dtype == np.float32


def test_too_few_snapshots_says_how_to_get_more():
    with pytest.raises(ValueError, match=r"at least two snapshots, got 1.*snapshot_every"):
        posthoc.solve([100], [0.05], 100, 0.1)


@pytest.mark.parametrize("length", [0.004, 0.5, -0.1])
def test_unreachable_length_says_what_is_reachable(length):
    times = np.repeat(np.arange(1, 9) * 100, 2)
    with pytest.raises(ValueError, match=r"cannot be rebuilt.*reachable here: 0\.0\d+ to 0\.2\d+"):
        posthoc.check_length(times, np.tile([0.05, 0.1], 8), 800, length)

"""Guidance: closed forms on Gaussians, guides that are not asked, splits, nesting, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.noise.precondition import expand
from jaxgen.samplers import drive, grids, guidance, steps

X = jnp.asarray(np.random.default_rng(0).standard_normal((4, 3)), jnp.float32)
SIGMA = jnp.array([0.1, 0.5, 1.0, 3.0])
LABEL = {"label": jnp.eye(4)[:, :2], "augment": jnp.ones((4, 1))}
LEVELS = grids.edm(12)


def gaussian(mean, s=0.5):
    """The denoiser of N(mean, s^2)."""

    def denoise(x, sigma, cond=None):
        v = expand(sigma, x) ** 2
        return (s**2 * x + v * mean) / (s**2 + v)

    return denoise


def marked(x, sigma, cond=None):
    """A guide that can be found in a traced program."""
    return jax.lax.erf_inv(jnp.tanh(x) * 0.5)


def never(x, sigma, cond=None):
    raise AssertionError("the guide was asked")


def test_guidance_sharpens_a_gaussian():
    """D is linear in the means: weight w of N(a) guided by N(b) denoises to mean b + w (a - b)."""
    guided = guidance.autoguide(gaussian(1.0), gaussian(0.2), 3.0)
    np.testing.assert_allclose(guided(X, SIGMA), gaussian(0.2 + 3 * 0.8)(X, SIGMA), atol=1e-5)


def test_weights_one_an_image():
    weights = jnp.array([1.0, 0.0, 2.0, -1.0])
    got = guidance.autoguide(gaussian(1.0), gaussian(0.0), weights)(X, SIGMA)
    for i, w in enumerate(weights):
        np.testing.assert_allclose(got[i], gaussian(float(w))(X, SIGMA)[i], atol=1e-5)


def test_weight_one_does_not_ask_the_guide():
    main = gaussian(1.0)
    assert guidance.autoguide(main, never, 1.0) is main
    assert guidance.classifier_free(main, 1, never) is main
    assert guidance.classifier(main, never, 0.0) is main


def test_classifier_free_drops_the_label_and_keeps_the_rest():
    seen = []

    def watch(x, sigma, cond=None):
        seen.append(None if cond is None else sorted(cond))
        return x

    guidance.classifier_free(watch, 2.0)(X, SIGMA, LABEL)
    guidance.classifier_free(watch, 2.0)(X, SIGMA, {"label": LABEL["label"]})
    guidance.classifier_free(watch, 2.0, watch)(X, SIGMA, None)
    guidance.autoguide(watch, watch, 2.0)(X, SIGMA, LABEL)
    both = ["augment", "label"]
    assert seen == [both, ["augment"], ["label"], None, None, None, both, both]


def test_classifier_guidance_by_bayes():
    """p(x | y) ~ p(x) p(y | x): guided by the exact classifier, N(0) and N(1) halves give N(1)."""
    s, one, zero = 0.5, gaussian(1.0), gaussian(0.0)

    def logit(x, sigma):  # ln p(x | 1) - ln p(x | 0)
        return jnp.sum((x - 0.5) / (s**2 + expand(sigma, x) ** 2), 1)

    def mixture(x, sigma, cond=None):
        r = expand(jax.nn.sigmoid(logit(x, sigma)), x)
        return r * one(x, sigma) + (1 - r) * zero(x, sigma)

    log_prob = lambda x, sigma, cond: jax.nn.log_sigmoid(logit(x, sigma))
    guided = guidance.classifier(mixture, log_prob, 1.0)
    np.testing.assert_allclose(guided(X, SIGMA), one(X, SIGMA), atol=1e-5)


def scans_with_the_guide(denoise, solver=steps.heun):
    """Whether each scan of the traced program contains the marked guide."""
    jaxpr = jax.make_jaxpr(lambda x: drive.run(solver, denoise, x, LEVELS))(X)
    scans = [e for e in jaxpr.jaxpr.eqns if e.primitive.name == "scan"]
    assert "erf_inv" not in str([e for e in jaxpr.jaxpr.eqns if e not in scans])
    return [(e.params["length"], "erf_inv" in str(e.params["jaxpr"])) for e in scans]


def test_the_scan_is_split_and_its_other_parts_have_no_guide():
    main = gaussian(1.0)
    guided = guidance.autoguide(main, marked, 2.0)
    parts = lambda lo, hi: scans_with_the_guide(guidance.interval(guided, main, lo, hi))
    # 12 steps: 23 evaluations by Heun, two a step but for the last.
    assert parts(LEVELS[7], LEVELS[3]) == [(6, False), (8, True), (9, False)]
    assert parts(0, LEVELS[3]) == [(6, False), (17, True)]
    assert parts(LEVELS[7], np.inf) == [(14, True), (9, False)]
    assert parts(0, np.inf) == [(23, True)]
    assert parts(200, 300) == [(23, False)]
    by_step = guidance.interval_steps(guided, main, 3, 6)
    assert scans_with_the_guide(by_step) == [(6, False), (8, True), (9, False)]
    assert scans_with_the_guide(by_step, steps.euler) == [(3, False), (4, True), (5, False)]


def test_the_guide_is_asked_in_the_interval_only_and_the_split_changes_nothing():
    """Levels of the guide: those of the step's start and of its corrector, even outside."""
    seen = []

    def guide(x, sigma, cond=None):
        jax.debug.callback(lambda s: seen.append(float(s)), sigma[0])
        return gaussian(0.2)(x, sigma)

    main, x = gaussian(1.0), X * 80
    guided = guidance.interval(guidance.autoguide(main, guide, 2.0), main, LEVELS[6], LEVELS[4])
    out = drive.run(steps.heun, guided, x, LEVELS)
    jax.block_until_ready(out)
    jax.effects_barrier()
    np.testing.assert_allclose(sorted(seen), np.sort(LEVELS[[4, 5, 5, 6]]), rtol=1e-6)

    for part, mean in ((LEVELS[:5], 1.0), (LEVELS[4:7], 1.8), (LEVELS[6:], 1.0)):
        x = drive.run(steps.heun, gaussian(mean), x, part)
    np.testing.assert_allclose(out, x, rtol=1e-4, atol=1e-5)


def test_intervals_inside_of_combinations_split_as_well():
    main, guided = gaussian(1.0), guidance.autoguide(gaussian(1.0), marked, 2.0)
    inner = guidance.interval(guided, main, LEVELS[7], LEVELS[3])
    for outer in (
        guidance.autoguide(inner, gaussian(0.0), 1.5),
        guidance.classifier(inner, lambda x, sigma, cond: x.sum(1), 0.1),
        guidance.interval(inner, main, LEVELS[9], LEVELS[0]),
    ):
        found = scans_with_the_guide(outer)
        assert (8, True) in found and sum(n for n, on in found if on) == 8, found
        assert sum(n for n, _ in found) == 23


def test_an_interval_that_is_called_decides_by_itself():
    """Image by image; where no image is inside, the guide does not run."""
    calls = []

    def guide(x, sigma, cond=None):
        jax.debug.callback(lambda: calls.append(1))
        return gaussian(0.0)(x, sigma)

    main = gaussian(1.0)
    denoise = guidance.interval(guidance.autoguide(main, guide, 2.0), main, 0.5, 1.0)
    got = denoise(X, SIGMA)
    jax.effects_barrier()
    want = jnp.where((SIGMA == 1.0)[:, None], gaussian(2.0)(X, SIGMA), main(X, SIGMA))
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert len(calls) == 1
    np.testing.assert_allclose(denoise(X, SIGMA / 10), main(X, SIGMA / 10), atol=1e-6)
    jax.effects_barrier()
    assert len(calls) == 1


def test_errors_come_before_compilation():
    main, wide = gaussian(1.0), lambda x, sigma, cond=None: x[:, :1]
    for bad in (np.nan, np.inf, np.array([1.0, np.nan])):
        with pytest.raises(ValueError, match="guidance weight must be finite, got"):
            guidance.autoguide(main, main, bad)
    with pytest.raises(ValueError, match="classifier scale must be finite, got nan"):
        guidance.classifier(main, main, np.nan)
    for lo, hi in ((1, 1), (2, 1), (-1, 1), (np.nan, 1), (0, np.nan), (np.inf, np.inf)):
        with pytest.raises(ValueError, match="a guidance interval needs 0 <= lo < hi, got lo="):
            guidance.interval(main, main, lo, hi)
    with pytest.raises(ValueError, match="need 0 <= first <= last, got first=3, last=2"):
        guidance.interval_steps(main, main, 3, 2)
    with pytest.raises(ValueError, match=r"gives shape \(4, 1\) where the main .* gives \(4, 3\)"):
        drive.run(steps.heun, guidance.autoguide(main, wide, 2.0), X, LEVELS)
    with pytest.raises(ValueError, match=r"needs cond\['label'\] to drop, got conditions \[\]"):
        drive.run(steps.heun, guidance.classifier_free(main, 2.0), X, LEVELS)
    with pytest.raises(ValueError, match=r"one number an image.*= \(4,\), got \(4, 3\)"):
        guidance.classifier(main, lambda x, sigma, cond: x, 1.0)(X, SIGMA)
    with pytest.raises(ValueError, match="in steps only makes sense to a sampling loop"):
        guidance.interval_steps(main, main, 1, 2)(X, SIGMA)

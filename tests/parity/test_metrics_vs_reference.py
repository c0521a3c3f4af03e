"""Distances against reference numbers (official packages and float64 truth), JAXGEN_GOLDENS."""

import importlib.util

import numpy as np
import pytest

from jaxgen.metrics.frechet import frechet, frechet_from_moments
from jaxgen.metrics.inception_score import inception_score
from jaxgen.metrics.kernel import kernel, kernel_subsets, polynomial
from jaxgen.metrics.moments import Moments
from jaxgen.metrics.precision_recall import density_coverage, precision_recall, radii


@pytest.fixture(scope="module")
def recipe(goldens):
    """The module that makes the inputs that are too large to store."""
    spec = importlib.util.spec_from_file_location("recipe", goldens / "metrics" / "recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def moments(x):
    m = Moments(x.shape[1]).update(x)
    return m.mean, m.cov


EXACT = ("full", "scaled", "constdim", "bigmean", "rankdef", "rankdef_disjoint", "nearsing")


@pytest.mark.filterwarnings("ignore:a Frechet distance of:RuntimeWarning")
@pytest.mark.parametrize("case", EXACT)
def test_frechet(goldens, case):
    g = np.load(goldens / "metrics" / "frechet.npz")
    x, y, truth = g[f"{case}.x"], g[f"{case}.y"], g[f"{case}.fd"]
    np.testing.assert_allclose(frechet(x, y), truth, rtol=1e-9)
    np.testing.assert_allclose(frechet(x, y, ddof=0), g[f"{case}.fd_ddof0"], rtol=1e-9)
    rtol = 5e-6 if case in ("rankdef", "nearsing") else 1e-6
    np.testing.assert_allclose(frechet_from_moments(*moments(x), *moments(y)), truth, rtol=rtol)


@pytest.mark.parametrize("case", ["identical", "permuted"])
def test_frechet_of_equal_sets(goldens, case):
    g = np.load(goldens / "metrics" / "frechet.npz")
    assert abs(frechet(g[f"{case}.x"], g[f"{case}.y"])) < 1e-9


@pytest.mark.filterwarnings("ignore:a Frechet distance of:RuntimeWarning")
def test_frechet_2048(goldens, recipe):
    g = np.load(goldens / "metrics" / "frechet.npz")
    x = np.abs(0.4 * recipe.normalish("m1/frechet/x2048", (200, 2048)))
    y = 0.5 * np.abs(recipe.normalish("m1/frechet/y2048", (160, 2048))) + 0.01
    got = frechet(x.astype(np.float32), y.astype(np.float32))
    np.testing.assert_allclose(got, g["d2048.fd"], rtol=1e-9)


@pytest.mark.parametrize("case", ["easy", "bigmean"])
def test_streaming(goldens, recipe, case):
    g = np.load(goldens / "metrics" / "streaming.npz")
    mean, std = {"easy": (0.4, 0.4), "bigmean": (30.0, 0.05)}[case]

    def stream(key, factor):
        z = recipe.normalish(key, (3000, 16))
        x = (mean + factor * std * z * (1 + np.arange(16) / 16)).astype(np.float32)
        total = Moments(16)
        for i in range(0, 3000, 100):
            total.update(x[i : i + 100])
        return total

    a, b = stream(f"m1/stream/{case}", 1.0), stream(f"m1/stream/{case}y", 1.1)
    np.testing.assert_allclose(a.mean, g[f"{case}.mean"], rtol=1e-12)
    scale = np.abs(g[f"{case}.cov_ddof1"]).max()
    np.testing.assert_allclose(a.cov, g[f"{case}.cov_ddof1"], rtol=1e-9, atol=1e-9 * scale)
    truth = g[f"{case}.fd_true_sg3_sum32_chan32"][0]
    fd = frechet_from_moments(a.mean, a.cov, b.mean, b.cov)
    np.testing.assert_allclose(fd, truth, rtol=1e-6)


def test_kernel(goldens):
    g = np.load(goldens / "metrics" / "kid.npz")
    real, gen = g["real"].astype(np.float64), g["gen"].astype(np.float64)
    np.testing.assert_allclose(polynomial(gen[:4], real[:5]), g["kernel_corner"], rtol=1e-9)
    for block in (7, 1024):
        np.testing.assert_allclose(kernel(gen, real, block), g["full_unbiased"], rtol=1e-9)
    got = [kernel(gen[j], real[i]) for i, j in zip(g["real_idx"], g["gen_idx"], strict=True)]
    np.testing.assert_allclose(got, g["mmd2_unbiased"], rtol=1e-9)


@pytest.mark.parametrize(
    "library, seed", [("torch_fidelity", 2020), ("stylegan3", 7), ("cleanfid", 7)]
)
def test_kernel_subsets(goldens, library, seed):
    """The subsets of the libraries, draw by draw: one of the fakes, then one of the reals."""
    g = np.load(goldens / "metrics" / "kid.npz")
    draws = np.random.RandomState(seed)
    mean, std = kernel_subsets(g["gen"], g["real"], subsets=20, size=60, seed=draws)
    if library == "torch_fidelity":
        want = g["torch_fidelity_mean_std_f64"]
        np.testing.assert_allclose([mean, std], want, rtol=1e-9)
        np.testing.assert_allclose([mean, std], g["torch_fidelity_mean_std"], rtol=1e-5)
    else:
        np.testing.assert_allclose(mean, g[f"{library}_seed7"], rtol=1e-5)


def test_inception_score(goldens):
    g = np.load(goldens / "metrics" / "inception_score.npz")
    x, splits = g["logits"], int(g["splits"])
    for how, want in (
        ({"splits": splits, "shuffle": 2020}, g["torch_fidelity_shuffled"]),
        ({"splits": splits}, g["torch_fidelity_ordered"]),
        ({"splits": splits}, g["stylegan3"]),
        ({"splits": 1}, g["torch_fidelity_one"]),
    ):
        np.testing.assert_allclose(inception_score(x, **how), want, rtol=1e-6, atol=1e-9)
    biased = inception_score(x + g["bias"], splits=1)
    np.testing.assert_allclose(biased, g["one_with_bias"], rtol=1e-6)


@pytest.mark.parametrize("block", [None, 64])
@pytest.mark.parametrize("case", ["basic", "modedrop", "ties", "same", "far"])
@pytest.mark.parametrize("k", [3, 5])
def test_precision_recall(goldens, case, k, block):
    """With the border and without, on the host and by blocks on devices."""
    g = np.load(goldens / "metrics" / "prdc.npz")
    real, fake = g[f"{case}.real"], g[f"{case}.gen"]
    for ties, name in (("<=", "le"), ("<", "lt")):
        got = precision_recall(fake, real, k=k, ties=ties, block=block)
        got |= density_coverage(fake, real, k=k, ties=ties, block=block)
        got = [got[n] for n in ("precision", "recall", "density", "coverage")]
        np.testing.assert_allclose(got, g[f"{case}.k{k}.{name}"], atol=1e-7)
    np.testing.assert_allclose(got, g[f"{case}.k{k}.prdc"], atol=1e-7)
    got = precision_recall(fake, real, k=k, half=True, block=block)
    want = g[f"{case}.k{k}.stylegan3_fp16"]
    np.testing.assert_allclose([got["precision"], got["recall"]], want, atol=0.02)
    if k == 3:
        for x, of in ((real, "real"), (fake, "gen")):
            r = np.sqrt(radii(x, k, block))
            np.testing.assert_allclose(r, g[f"{case}.k3.{of}_radius"], rtol=1e-12)

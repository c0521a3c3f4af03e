"""Distances against reference numbers (official packages and float64 truth), JAXGEN_GOLDENS."""

import importlib.util

import numpy as np
import pytest

from jaxgen.metrics.frechet import frechet, frechet_from_moments
from jaxgen.metrics.kernel import kernel, polynomial
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


@pytest.mark.parametrize("case", EXACT)
def test_frechet(goldens, case):
    g = np.load(goldens / "metrics" / "frechet.npz")
    x, y, truth = g[f"{case}.x"], g[f"{case}.y"], g[f"{case}.fd"]
    np.testing.assert_allclose(frechet(x, y), truth, rtol=1e-9)
    rtol = 5e-6 if case in ("rankdef", "nearsing") else 1e-6
    np.testing.assert_allclose(frechet_from_moments(*moments(x), *moments(y)), truth, rtol=rtol)


@pytest.mark.parametrize("case", ["identical", "permuted"])
def test_frechet_of_equal_sets(goldens, case):
    g = np.load(goldens / "metrics" / "frechet.npz")
    assert abs(frechet(g[f"{case}.x"], g[f"{case}.y"])) < 1e-9


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


@pytest.mark.parametrize("case", ["basic", "modedrop", "ties", "same", "far"])
@pytest.mark.parametrize("k", [3, 5])
def test_precision_recall(goldens, case, k):
    g = np.load(goldens / "metrics" / "prdc.npz")
    real, fake = g[f"{case}.real"], g[f"{case}.gen"]
    got = precision_recall(fake, real, k=k, block=37)
    want = g[f"{case}.k{k}.le"]
    np.testing.assert_allclose([got["precision"], got["recall"]], want[:2], atol=1e-7)
    got = density_coverage(fake, real, k=k, block=37)
    want = g[f"{case}.k{k}.lt"]
    np.testing.assert_allclose([got["density"], got["coverage"]], want[2:], atol=1e-7)
    if k == 3:
        r = np.sqrt(radii(real.astype(np.float64), k))
        np.testing.assert_allclose(r, g[f"{case}.k3.real_radius"], rtol=1e-12)

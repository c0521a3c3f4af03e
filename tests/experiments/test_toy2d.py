"""The toy of `autoguidance-toy2d`: its network against the reference, its trees by construction."""

import importlib.util
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.noise.mixture import Mixture

PATH = Path(__file__).resolve().parents[2] / "experiments/autoguidance-toy2d/toy.py"
spec = importlib.util.spec_from_file_location("toy", PATH)
toy = importlib.util.module_from_spec(spec)
spec.loader.exec_module(toy)


def test_energy_score_and_loss_against_the_reference(goldens):
    z = np.load(goldens / "diffusion/toy2d.npz")
    layers = [z[f"model/param/layers.{2 * i}.weight"].T for i in range(4)]
    params = {f"layer{i}": {"w": jnp.asarray(w)} for i, w in enumerate(layers)}
    params["out"] = {"gain": jnp.asarray(z["model/param/gain"])}
    x, sigma = jnp.asarray(z["model/x"]), jnp.asarray(z["model/sigma"])
    net = toy.Energy(24, layers=len(layers))
    log = net.apply({"params": params}, x, sigma)
    score = (toy.denoiser(net, params)(x, sigma) - x) / sigma[:, None] ** 2
    np.testing.assert_allclose(log, z["model/logp"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(score, z["model/score"], rtol=1e-5, atol=2e-5)


def test_the_mixture_against_the_reference(goldens):
    z = np.load(goldens / "diffusion/toy2d.npz")
    w = z["gtA/phi"].astype(np.float64)
    data, x = Mixture(w / w.sum(), z["gtA/mu"], z["gtA/Sigma"]), z["gtA/points"]
    for level in (0.05, 0.3, 2.0):
        sigma = jnp.full(len(x), level)
        want = z[f"gtA/logp_sigma{level}"]
        np.testing.assert_allclose(data.log_density(x, sigma), want, rtol=1e-4, atol=1e-4)


@pytest.fixture(scope="module")
def trees():
    return toy.trees(depth=4, parts=3)


def test_trees_have_the_mass_and_size_they_should(trees):
    one, both = trees
    assert len(one.mixture.w) == 3 * 15 and len(both.mixture.w) == 2 * 3 * 15
    share = np.bincount(one.branch, one.mixture.w)
    levels = np.split(share, [1, 3, 7])
    np.testing.assert_allclose([v.sum() for v in levels], 0.25)  # every level has the same mass
    m = both.mixture
    mean = m.w @ m.mu
    np.testing.assert_allclose(mean, 0, atol=1e-12)
    spread = np.sqrt((m.w @ (m.mu - mean) ** 2).mean())
    np.testing.assert_allclose(spread, toy.SIGMA_DATA)
    np.testing.assert_array_equal(one.mixture.mu, m.mu[: len(one.mixture.mu)])
    thin = np.linalg.eigvalsh(one.mixture.cov)
    assert (thin[:, 0] < thin[:, 1] / 2).all()  # every Gaussian is elongated

"""Grids, the EDM sampler and the generalised sampler against independent float64 trajectories.

Tolerances are those of the reference's README: 1e-7 in float64 and 2e-4 in float32, relative where
a trajectory leaves the data's unit scale; 1e-4 where the reference's iDDPM table is float32.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixtures import Mixture

from jaxgen.noise import precondition
from jaxgen.samplers import drive, edm, grids

RANGES = {
    "vp": (float(grids.times.sigma(1e-3)), float(grids.times.sigma(1.0))),
    "ve": (0.02, 100.0),
    "iddpm": (0.002, 81.0),
    "edm": (0.002, 80.0),
}
TOLERANCE = {"float64": 1e-7, "float32": 2e-4}


@pytest.fixture(scope="module")
def trajectories(goldens):
    return np.load(goldens / "diffusion/samplers_edm.npz")


@pytest.fixture(scope="module")
def ablation(goldens):
    return np.load(goldens / "diffusion/samplers_ablate.npz")


def mixture(z):
    return Mixture(z["mixture/w"], z["mixture/mu"], z["mixture/s"])


def generalized(solver, discretisation, schedule, scaling, **options):
    """vp schedules are of the range asked for, which the iDDPM grid does not reach."""
    if schedule == "vp":
        schedule = edm.vp_schedule(*RANGES[discretisation])
    return edm.generalized(solver, schedule, scaling, cap=True, **options)


def churn(z, prefix="churn"):
    names = ("S_churn", "S_min", "S_max", "S_noise")
    keys = {n: [k for k in z.files if k.startswith(f"{prefix}/arg_{n}")] for n in names}
    return {n: float(z[k[0]]) for n, k in keys.items() if k}


def test_spot_values_of_the_mixture(trajectories):
    z = trajectories
    with jax.enable_x64(True):
        x, sigma = z["denoiser/x"], z["denoiser/sigma"]
        flat = jax.jit(mixture(z).denoise)(x.reshape(-1, x.shape[-1]), np.repeat(sigma, x.shape[1]))
        np.testing.assert_allclose(flat.reshape(x.shape), z["denoiser/D"], atol=1e-12)


@pytest.mark.parametrize("precision", TOLERANCE)
def test_edm_sampler(trajectories, precision):
    """Every point of evaluation and the result, with and without churn."""
    z, worst = trajectories, 0.0
    cases = sorted({k.split("/")[0] for k in z.files if k.startswith(("heun", "churn"))})
    cases = cases if precision == "float64" else ["heun5_rho3", "churn40"]  # with the largest gaps
    with jax.enable_x64(precision == "float64"):
        for case in cases:
            part = {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith(case + "/")}
            arg = lambda name, default, part=part: float(part.get(f"arg_{name}", default))
            n = int(part["arg_num_steps"])
            levels = grids.edm(n, arg("sigma_min", 0.002), arg("sigma_max", 80), arg("rho", 7))
            solver = edm.generalized(cap=True, **churn(z, case))
            x = jnp.asarray(z["latents"] * levels[0], precision)
            denoise, noise = mixture(z).denoise, part.get("noise")
            table, points = drive.trajectory(solver, denoise, x, levels, noise=noise)
            points, first = np.asarray(points), np.diff(table.step, prepend=-1) > 0
            np.testing.assert_allclose(table.sigma[first], part["t_hat"], rtol=1e-12)
            for got, want in (
                (points[:-1][first], part["x_hat"]),
                (points[:-1][~first], part["x_euler"]),
                (points[-1], part["out"]),
            ):
                gap = np.abs(got - want) / np.maximum(1, np.abs(want))
                worst = max(worst, gap.max())
    # float64 measured 1e-13, float32 1e-5.
    assert worst < TOLERANCE[precision], worst


@pytest.mark.parametrize("name", RANGES)
def test_grids(ablation, name):
    for n in (8, 18, 64, 256):
        want = ablation[f"grid/{name}/{n}"]
        rel = 5e-4 if name == "iddpm" else 1e-9  # the reference's table is a float32 recursion
        np.testing.assert_allclose(grids.GRIDS[name](n), want, rtol=rel)


@pytest.mark.parametrize("precision, n", (("float64", 8), ("float64", 18), ("float32", 8)))
@pytest.mark.parametrize("solver", ("euler", "heun"))
def test_all_combinations(ablation, solver, precision, n):
    """24 combinations of grid, schedule and scaling are 24 tables of one program."""
    z = ablation
    combinations = list(itertools.product(RANGES, ("vp", "ve", "linear"), ("vp", "none")))
    levels = [grids.GRIDS[d](n) for d, _, _ in combinations]
    tables = [generalized(solver, *c)(g) for c, g in zip(combinations, levels)]
    want = np.stack([z[f"det/{solver}/{'/'.join(c)}/{n}"] for c in combinations])
    assert len(tables[0].step) == (n if solver == "euler" else 2 * n - 1)
    with jax.enable_x64(precision == "float64"):
        kinds = {"f": precision, "i": "int32", "b": "bool"}
        rows = jax.tree.map(lambda *v: jnp.asarray(np.stack(v), kinds[v[0].dtype.kind]), *tables)
        x = jnp.asarray(np.stack([z["latents"] * g[0] for g in levels]), precision)

        def walk(rows, x):
            state = (x, *(None if v is None else x for v in (rows.ends, rows.previous)))
            return drive.walk(mixture(z).denoise, state, rows, None, None)[0][0]

        got = np.asarray(jax.jit(jax.vmap(walk))(rows, x))
    # Some combinations overshoot to 150 times the data's scale: relative to the largest value.
    gap = (np.abs(got - want) / np.maximum(1, np.abs(want).max((1, 2), keepdims=True))).max((1, 2))
    for c, each in zip(combinations, gap):
        limit = max(TOLERANCE[precision], 1e-4 if c[0] == "iddpm" else 0)
        assert each < limit, (c, each)


def test_alpha_and_churn(ablation):
    z, n = ablation, 8
    cases = [(f"alpha/{a}", ("heun", "edm", "linear", "none"), {"alpha": a}) for a in (0.5, 0.7)]
    for k in z.files:
        if k.startswith(("churn/euler", "churn/heun")):
            cases.append((k, k.split("/")[1:], churn(z)))
    assert len(cases) == 10
    with jax.enable_x64(True):
        for key, names, options in cases:
            levels = grids.GRIDS[names[1]](n)
            x = jnp.asarray(z["latents"] * levels[0])
            solver = generalized(*names, **options)
            got = drive.run(solver, mixture(z).denoise, x, levels, noise=z["churn/noise"])
            gap = np.abs(np.asarray(got) - z[key]).max()
            assert gap < (1e-4 if names[1] == "iddpm" else 1e-7), (key, gap)


NATIVE = {  # network, grid, schedule, scaling
    "vp": ("vp", "vp", "vp", "vp"),
    "ve": ("ve", "ve", "ve", "none"),
    "iddpm": ("iddpm", "iddpm", "linear", "none"),
    "iddpm2": ("iddpm", "edm", "linear", "none"),
    "iddpm_edm_sampler_churn": ("iddpm", "edm", "linear", "none"),
}


@pytest.mark.parametrize("case", NATIVE)
def test_with_the_levels_that_a_network_supports(ablation, case):
    z, (network, discretisation, schedule, scaling) = ablation, NATIVE[case]
    family = precondition.family(network)
    low, high = RANGES[discretisation]
    low, high = max(low, family.sigma_min), min(high, family.sigma_max)
    levels = grids.rounded(grids.GRIDS[discretisation](8, low, high), family.round_sigma)
    options = churn(z) if "churn" in case else {}
    solver = generalized(
        "heun", discretisation, schedule, scaling, round_sigma=family.round_sigma, **options
    )
    noise = z[f"native/{case}/noise"] if options else None
    with jax.enable_x64(True):
        x = jnp.asarray(z["latents"] * levels[0])
        table, points = drive.trajectory(solver, mixture(z).denoise, x, levels, noise=noise)
    exact = network != "iddpm"
    want = z[f"native/{case}/sigmas_evaluated"]
    np.testing.assert_allclose(table.sigma, want, rtol=1e-9 if exact else 5e-4)
    gap = np.abs(np.asarray(points[-1]) - z[f"native/{case}/out"]).max()
    assert gap < (1e-7 if exact else 1e-4), gap

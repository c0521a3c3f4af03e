"""Power-function profiles and their reconstruction against the independent tables (float64)."""

import numpy as np
import pytest

from jaxgen.averaging import posthoc, power


def test_tables(goldens):
    z = np.load(goldens / "diffusion/phema_tables.npz")
    got = [power.gamma(s) for s in z["std_to_exp/std"]]
    np.testing.assert_allclose(got, z["std_to_exp/exp"], rtol=1e-9)
    np.testing.assert_allclose(power.sigma_rel(z["exp_to_std/exp"]), z["exp_to_std/std"], rtol=1e-9)
    for key in (k for k in z.files if k.startswith("beta/std")):
        g = power.gamma(float(key[8:]))
        got = (1 - z["beta/t_delta"] / z["beta/t_next"]) ** (g + 1)
        np.testing.assert_allclose(got, z[key], rtol=1e-9)
    ga, gb = ([power.gamma(s) for s in z[f"corr/{c}_std"]] for c in "ab")
    got = posthoc.inner(z["corr/a_ofs"], np.array(ga), z["corr/b_ofs"], np.array(gb))
    np.testing.assert_allclose(got, z["corr/y"], rtol=1e-9)


def test_solutions(goldens):
    z = np.load(goldens / "diffusion/phema_tables.npz")
    problems = sorted({k.split("/")[1] for k in z.files if k.startswith("solve/")})
    assert len(problems) >= 5
    for name in problems:
        p = {k.split("/")[-1]: z[k] for k in z.files if k.startswith(f"solve/{name}/")}
        for j, (t, s) in enumerate(zip(p["out_ofs"], p["out_std"])):
            early = p["in_ofs"] <= t
            if not early.all():
                continue
            x, error = posthoc.solve(p["in_ofs"], p["in_std"], t, s)
            if p["cond"] < 1e6:
                tolerance = max(1e-8, 1e-13 * p["cond"])
                np.testing.assert_allclose(x, p["coefs"][:, j], atol=tolerance, err_msg=name)
            # Ill-conditioned: the profile, not its coefficients, is determined.
            assert error**2 == pytest.approx(p["rel_sq_error"][j], rel=1e-2, abs=1e-8), name


def test_walk(goldens):
    z = np.load(goldens / "diffusion/phema_walk.npz")
    for end in (1000, 2000):
        early = z["snap_t"] <= end
        t, s, snaps = z["snap_t"][early], z["snap_std"][early], z["snapshots"][early]
        for j, length in enumerate(z["out_std"]):
            x, _ = posthoc.solve(t, s, end, length)
            got = posthoc.reconstruct(lambda i, snaps=snaps: snaps[i], x)
            np.testing.assert_allclose(got, z[f"t{end}/reconstructed"][j], atol=2e-5)
            rms = np.sqrt(np.mean((np.asarray(got) - z[f"t{end}/true"][j]) ** 2))
            assert rms == pytest.approx(z[f"t{end}/rms_error"][j], abs=2e-5)

"""What to change when a plan does not fit: settings that do are found, the quickest first."""

import nets
import pytest

from jaxgen.common import mesh as meshes
from jaxgen.planning import estimate, report, search

BATCH, LAYERS = 2**13, 8
NOW = {"mesh.fsdp": 1, "microbatches": 1, "model.remat": False, "mesh.tensor": 1}


def estimator(gib):
    def run(setting):
        plan = nets.plan(layers=LAYERS, remat=setting["model.remat"])
        mesh = meshes.abstract_mesh(8, -1, setting["mesh.fsdp"])
        data, topology = nets.structs(BATCH), nets.small(8, hbm=gib)
        parts = setting["microbatches"]
        return estimate.estimate(plan, topology, mesh, data, microbatches=parts)

    return run


def test_candidates_are_possible_and_cheap_ones_come_first():
    found = search.candidates(BATCH, 8, NOW, remat=True, near=8)
    assert NOW not in found and len(found) == len({tuple(c.items()) for c in found})
    assert [c["microbatches"] for c in found] == sorted(c["microbatches"] for c in found)
    assert all(BATCH % (8 * c["microbatches"]) == 0 and 8 % c["mesh.fsdp"] == 0 for c in found)
    assert not any("model.remat" in c for c in search.candidates(64, 8, NOW, False, 8))
    assert search.candidates(12, 8, NOW, True, 8) == []  # does not divide over 8 chips


def test_what_fits_is_found():
    """Too little for a whole batch: half of it fits, and remat does in one piece."""
    whole = estimator(1.0)(NOW)
    halves = estimator(1.0)({**NOW, "microbatches": 4})
    remat = estimator(1.0)({**NOW, "model.remat": True})
    room = max(halves.need, remat.need) * 1.05
    assert room < whole.need
    run = estimator(room / 2**30)
    first, tries = run(NOW), search.candidates(BATCH, 8, NOW, True, 8)
    assert not first.fits
    told = []
    found = search.search(run, tries, NOW, first, told.append)
    assert found and all(f.estimate.fits for f in found)
    assert found[0].estimate.seconds["step"] == min(f.estimate.seconds["step"] for f in found)
    assert any("--config.model.remat=true" in f.flags for f in found)
    assert len(told) >= len(found)
    assert found[0].flags in report.found(found, first)


def test_nothing_fits():
    run = estimator(1e-6)
    first, tries = run(NOW), search.candidates(BATCH, 8, NOW, True, 8)
    assert search.search(run, tries, NOW, first, limit=3) == []
    assert "nothing that was tried fits" in report.found([], first)


def test_settings_that_cannot_be_are_told_and_left_out():
    def refuses(setting):
        raise ValueError("the leaf 'x' cannot be split")

    first, told = estimator(1.0)(NOW), []
    tries = [{**NOW, "mesh.fsdp": 8}]
    assert [f.changes for f in search.search(refuses, tries, NOW, first, told.append)] == [{}]
    assert told == ["--config.mesh.fsdp=8: the leaf 'x' cannot be split"]


@pytest.mark.parametrize("n, want", [(12, [1, 2, 3, 4, 6, 12]), (1, [1])])
def test_divisors(n, want):
    assert search.divisors(n) == want

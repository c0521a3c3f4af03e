"""This machine: the step is compiled and timed, and the estimate stands beside it."""

import jax
import nets

from jaxgen.common import mesh as meshes
from jaxgen.planning import estimate, here, report


def test_the_machine_has_memory_and_rates():
    found = here.topology()
    assert found.name == "cpu" and found.chips == len(jax.devices())
    assert found.chip.hbm > 0.1 and found.chip.f32 > 1e-4 and found.chip.bandwidth > 0.01


def test_a_step_is_measured_beside_its_estimate():
    plan, mesh = nets.plan(lazy=2), meshes.make_mesh(-1, 2)
    data = nets.structs(64)
    got = here.measure(plan, mesh, data, runs=2)
    assert 0 < got.seconds < 60 and got.compile_seconds > 0
    topology = nets.small(8)
    e = estimate.estimate(plan, topology, mesh, data)
    given = sum(e.memory[k] for k in estimate.STATE)
    assert abs(got.arguments - given) < 4096  # metrics, the key; what is not read is left out
    assert got.need >= got.arguments
    assert "compiler" in report.memory(e, got.need) and "measured" in report.time(e, got.seconds)

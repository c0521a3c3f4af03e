"""The split of a step into parts, and the benchmarks of saves and starts, at toy sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import bench_parts  # noqa: E402
import bench_scaling  # noqa: E402
import bench_start  # noqa: E402
import bench_store  # noqa: E402

from jaxgen.cli import common  # noqa: E402
from jaxgen.common import mesh as meshes  # noqa: E402
from jaxgen.planning.hlo import Collective  # noqa: E402


def test_cases():
    assert bench_scaling.parse_cases("1x1,2x4") == [(1, 1), (2, 4)]
    for wrong in ("4", "0x1", "1xa", ""):
        with pytest.raises(ValueError, match="PROCESSESxDEVICES"):
            bench_scaling.parse_cases(wrong)
    flags = bench_scaling.environment(4)["XLA_FLAGS"].split()
    assert [f for f in flags if f.startswith(bench_scaling.DEVICES)] == [
        f"{bench_scaling.DEVICES}=4"
    ]


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh(data=2, fsdp=4)


def test_collectives_alone_are_those_of_the_step(mesh):
    kinds = {
        "all-reduce": 8,
        "all-gather": 4,
        "reduce-scatter": 2,
        "collective-permute": 0,  # its text names pairs, no groups
    }
    sent = [
        Collective(k, 1 + i, 4096 * (1 + i), g, False, "") for i, (k, g) in enumerate(kinds.items())
    ]
    _, compiled = bench_parts.only_collectives(mesh, sent)
    made = bench_parts.collectives_of(compiled)
    assert bench_parts.by_kind(made) == bench_parts.by_kind(sent)
    assert {(c.kind, c.group) for c in made} == {(c.kind, c.group) for c in sent}
    assert bench_parts.only_collectives(mesh, []) is None


def test_a_group_that_no_axes_have(mesh):
    assert bench_parts.axes_of(mesh, 8) == ("data", "fsdp")
    with pytest.raises(RuntimeError, match="3 devices in a group"):
        bench_parts.axes_of(mesh, 3)


def test_all_parts_of_a_step():
    """Small networks on all devices: each part is there, gradients are summed over all."""
    config = common.load_config("configs/gan/digits.py:debug", ["--config.batch=16"])
    found = bench_parts.case(config, calls=1, repeats=2)
    for part in ("step", "compute", "collectives", "save"):
        assert 0 < found[part]["min"] <= found[part]["median"] <= found[part]["max"]
    assert found["mesh"] == {"data": len(jax.devices()), "fsdp": 1, "tensor": 1}
    params = found["state_bytes"] / (1 + 2 + 2)  # and Adam's moments, two averages
    # The discriminator's gradients of real and of generated images are summed apart.
    assert params < found["sent"]["all-reduce"]["bytes"] < 2 * params
    assert "all-gather" not in found["sent"]
    text = bench_scaling.row("1x8", found, found)
    assert text.split()[0] == "1x8" and float(text.split()[-1]) == 1.0


def test_a_restore_is_checked_and_timed(tmp_path):
    found = bench_store.restore(megabytes=1, leaves=5)
    assert found["state_bytes"] == 10**6 and found["disk_bytes"] > 0.8 * 10**6
    assert 0 < found["checked"] < found["restored"] and found["read"] > 0


@pytest.mark.slow
def test_two_processes(tmp_path):
    out = tmp_path / "b.json"
    command = [
        sys.executable,
        "scripts/bench.py",
        "scaling",
        "--cases",
        "1x1,2x1",
        "--json",
        str(out),
    ]
    command += ["--config", "configs/gan/digits.py:debug", "--steps", "1", "--repeats", "1"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=580, env={**os.environ, "XLA_FLAGS": ""})
    found = json.loads(out.read_text())["cases"]
    assert found["2x1"]["processes"] == 2 and found["2x1"]["sent"] and not found["1x1"]["sent"]


@pytest.mark.slow
def test_saves_and_starts(tmp_path):
    found = bench_store.saves("configs/edm2/digits.py:debug", 8, batch=8, count=2, between=2)
    assert 0 < found["held"]["median"] < found["written"]["median"]
    parts = bench_start.start("configs/gan/digits.py:debug", [], tmp_path, 300)
    assert [*parts] == [*(name for _, name in bench_start.MARKS), "all"]
    assert abs(sum(list(parts.values())[:-1]) - parts["all"]) < 0.1
    with pytest.raises(RuntimeError, match="before its first step"):
        bench_start.start("configs/gan/digits.py:debug", ["--config.batch=-1"], tmp_path, 300)

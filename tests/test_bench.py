"""Benchmarks: timing in rounds, and each mode once at debug size."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "scripts"))
import measure  # noqa: E402


def test_rounds_hold_whole_cycles_of_lazy_phases():
    calls = []
    measure.repeat(lambda: calls.append(1), repeats=2, warmup=1, multiple=16, most=20)
    assert len(calls) == 1 + 2 * 32


SLOW = [pytest.param(mode, marks=pytest.mark.slow) for mode in ("train", "sample", "input")]


@pytest.mark.parametrize("mode", ["posthoc", *SLOW])
def test_every_mode(mode, tmp_path):
    config = ["--config", "configs/noise2noise/digits.py:debug", "--json", str(tmp_path / "b.json")]
    flags = ["--repeats", "2", "--warmup", "1", "--num", "8", "--snapshots", "3", "--length", "0.1"]
    command = [sys.executable, "scripts/bench.py", mode, *config, *flags, "--config.batch=8"]
    one_device = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run(command, cwd=ROOT, check=True, timeout=300, env=one_device)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["config"]["batch"] == 8 and found["seconds"]["median"] > 0
    assert found["machine"]["versions"]["jax"] == jax.__version__


def test_evaluation(tmp_path):
    flags = ["--nets", "pixels", "--rows", "40", "--dim", "8", "--repeats", "1", "--images", "4"]
    command = [
        sys.executable,
        "scripts/bench.py",
        "evaluate",
        *flags,
        "--json",
        tmp_path / "b.json",
    ]
    one_device = {**os.environ, "XLA_FLAGS": ""}
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True, timeout=300, env=one_device)
    found = json.loads((tmp_path / "b.json").read_text())
    assert found["nets"]["pixels"]["images_per_second"] > 0
    assert found["frechet"]["sqrtm"]["median"] > 0
    assert found["precision_recall"]["three products"]["median"] > 0

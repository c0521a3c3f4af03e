"""A short fault campaign with real processes, and that a campaign would notice what is wrong."""

import csv
import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import fault_campaign  # noqa: E402
import fault_ground  # noqa: E402
import faults  # noqa: E402

SHORT = (
    "kill: any moment", "kill: in a step", "kill: in a prefetch", "kill: in a checkpoint",
    "kill: in a snapshot", "kill: at a commit", "SIGTERM", "flipped bit", "bad image",
)  # fmt: skip


def test_ten_trials(tmp_path):
    """Each kills, starves or damages a run; the same command then ends as if nothing had been."""
    command = [
        sys.executable, ROOT / "scripts" / "fault_campaign.py", "--trials", "10", "--seed", "7",
        "--run", "gan", "--faults", ",".join(SHORT), "--out", tmp_path,
    ]  # fmt: skip
    quick = {**os.environ, "XLA_FLAGS": "--xla_backend_optimization_level=0"}  # and one device
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, env=quick)
    assert done.returncode == 0, done.stdout + done.stderr
    with (tmp_path / "trials.csv").open() as f:
        rows = list(csv.DictReader(f))
    assert {r["fault"] for r in rows} == set(SHORT)
    assert all(r["resumed"] == r["exact"] == "1" and r["hung"] == "0" for r in rows), done.stdout
    hurt = [r for r in rows if r["ended"] != "exit 0"]
    assert len(hurt) >= 7, f"faults that came after the end hurt nobody: {done.stdout}"
    assert {"SIGKILL", "exit 143", "exit 2"} <= {r["ended"] for r in rows}, done.stdout
    assert [r["lost_steps"] for r in rows if r["fault"] == "SIGTERM"] == ["0"]


def test_the_trials_of_a_campaign_have_the_shares_of_the_faults():
    names = list(faults.FAULTS)
    order = fault_campaign.schedule(names, 200)
    for name in names:
        assert abs(order.count(name) - faults.FAULTS[name].share * 200 / sum(
            f.share for f in faults.FAULTS.values())) <= 1.0, name  # fmt: skip
    assert order[:50] == fault_campaign.schedule(names, 50)
    assert len(set(order[:10])) >= 8, "even a short campaign tries many faults"


@pytest.fixture
def pair(tmp_path):
    """Two cases with the same files: an undisturbed run and a resumed one."""

    class Ground:
        out, pictures = tmp_path, tmp_path

        def reference(self, run, nan=False):
            return like

    cases = [fault_ground.Case(Ground(), name, random.Random(0), "gan") for name in "ab"]
    for case in cases:
        case.workdir.mkdir()
        (case.folder / "digest.json").write_text(json.dumps({"snapshots/96/x": "12"}))
        rows = [{"nimg": n, "gen/loss": n / 7, "time/step": n * random.random()} for n in (8, 16)]
        text = "".join(json.dumps(r) + "\n" for r in rows)
        (case.workdir / "metrics.jsonl").write_text(text)
        (case.workdir / "results.json").write_text("{}")
    like = cases[0]
    return cases[1]


def test_equal_runs_have_no_differences(pair):
    assert pair.differences() == []


@pytest.mark.parametrize(
    "name, text, words",
    [
        ("../digest.json", '{"snapshots/96/x": "13"}', "1 arrays differ, such as snapshots/96/x"),
        ("../digest.json", "{}", "1 arrays differ, such as snapshots/96/x"),
        ("metrics.jsonl", '{"nimg": 8, "gen/loss": 1.142857142857142}\n', "metrics differ at"),
        ("metrics.jsonl", '{"nimg": 8, "a": 1}\n{"nimg": 8, "a": 1}\n', "two records at 8 images"),
        ("checkpoints/64.orbax-checkpoint-tmp/x", "", "left behind: ['64.orbax-checkpoint-tmp']"),
    ],
)
def test_a_difference_is_noticed(pair, name, text, words):
    path = pair.workdir / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(text)
    assert words in "; ".join(pair.differences())


def test_the_newest_intact_checkpoint_is_found_without_the_store(pair):
    for n in (64, 128):
        entry = pair.workdir / "checkpoints" / str(n)
        entry.mkdir(parents=True)
        (entry / "x").write_text("x")
        sums = {"sha256": {"x": fault_ground.hashlib.sha256(b"x").hexdigest()}}
        manifest = pair.workdir / "checkpoints" / "manifests" / f"{n}.json"
        manifest.parent.mkdir(exist_ok=True)
        manifest.write_text(json.dumps(sums))
    assert pair.newest() == 128
    (pair.workdir / "checkpoints" / "128" / "x").write_text("y")
    assert pair.newest() == 64
    manifest.with_name("64.json").unlink()
    assert pair.newest() == 0

"""Each lineage learns: real commands, real digits, a fixed seed, metrics far beyond noise."""

import json
import os
import subprocess
import sys

import pytest

from jaxgen.train import writer

# config, images to train, overrides; loss, its largest share that may be left; metric and its test.
CASES = {
    "edm2": (
        "configs/edm2/digits.py",
        "16k",
        ["--config.model.model_channels=8", "--config.model.channels_per_head=8"],
        ("score/mse", 0.75),
    ),
    "stylegan2": ("configs/stylegan2/digits.py", "16k", [], None),
    "noise2noise": ("configs/noise2noise/digits.py", "10k", [], ("regression/loss", 0.6)),
}


def jaxgen(*args, cwd):
    environment = {**os.environ, "XLA_FLAGS": "", "JAXGEN_TRACEBACK": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "jaxgen", *map(str, args)],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(
    "name",
    ["noise2noise", *(pytest.param(n, marks=pytest.mark.slow) for n in ("edm2", "stylegan2"))],
)
def test_learns(name, tmp_path, request, capsys):
    config, images, overrides, loss = CASES[name]
    root = request.config.rootpath
    common = ["--config.images=" + images, "--config.snapshot_every=2k", "--config.log_every=2k"]
    jaxgen(
        "train", "--config", config, "--workdir", tmp_path, "--no_progress", *common, *overrides,
        cwd=root,
    )  # fmt: skip
    records = [r for r in writer.read(tmp_path / "metrics.jsonl") if "time/seconds" in r]
    out = tmp_path / "scores.json"
    jaxgen("evaluate", "--workdir", tmp_path, "--num", 300, "--out", out, cwd=root)
    scores = json.loads(out.read_text())["scores"]
    with capsys.disabled():
        print(f"\n{name}: {scores}")
    if loss:
        key, share = loss
        with capsys.disabled():
            print(f"{key}: {records[0][key]:.3f} -> {records[-1][key]:.3f}")
        assert records[-1][key] < share * records[0][key]
    if name == "noise2noise":
        assert scores["psnr"] > scores["psnr_input"] + 1.0
    else:  # a third of what noise has
        assert scores["frechet@digits-classifier"] < 30.4 / 3
        assert scores["kernel@digits-classifier"] < 0.656 / 3

"""Guidance on the command line: guides of three kinds, and every mistake explained before work."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxgen import recipes
from jaxgen.__main__ import main
from jaxgen.cli import common
from jaxgen.train import snapshot
from jaxgen.train import state as states
from jaxgen.train.store import Store, write_json

CONFIGS = {
    "main": ("configs/edm2/digits.py:debug", "--config.loss.label_dropout=0.2"),
    "weak": ("configs/edm2/digits.py:debug", "--config.seed=1"),
    "free": ("configs/edm2/digits.py:debug", "--config.data.labels=False"),
    "classifier": ("configs/adm_classifier/digits.py:debug",),
}


def write_run(folder, spec, *overrides):
    """A workdir with a snapshot of random weights: training real ones compiles for minutes."""
    config = common.load_config(spec, overrides)
    facts = common.source_facts(common.load_source(config.data.source, "test"), config)
    plan = recipes.build(config, facts)
    mesh = common.make_mesh(config)
    rng = np.random.default_rng(config.seed)
    draw = lambda x: np.asarray(rng.normal(0, 0.3, x.shape), x.dtype)
    state = states.abstract(plan, mesh)
    state = dataclasses.replace(state, averages=jax.tree.map(draw, state.averages))
    saved = {"config": json.loads(config.to_json()), "facts": facts, "command": {}}
    write_json(folder / "config.json", saved)
    with Store(folder / "snapshots") as store:
        snapshot.save(store, plan, state, 32, "float32", {})


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        folder = tmp_path_factory.mktemp("runs")
        for name, args in CONFIGS.items():
            write_run(folder / name, *args)
        yield folder


def sample(runs, capsys, run, *args, code=0):
    out = runs / "out.npz"
    args = ["--workdir", runs / run, "--num", "6", "--classes", "3", "--out", out, *args]
    got = main(["sample", *map(str, args)])
    text = capsys.readouterr()
    assert got == code, text.err
    if code:
        return text.err
    return np.load(out)["image"].astype(int), json.loads(out.with_suffix(".json").read_text())


def test_guides_change_the_images_and_are_written_down(runs, capsys):
    plain, facts = sample(runs, capsys, "main")
    assert "guide" not in facts
    weak = ["--guide", f"{runs / 'weak'}@0.05", "--guidance"]
    same, _ = sample(runs, capsys, "main", *weak, "1")
    np.testing.assert_array_equal(same, plain)
    guided, facts = sample(runs, capsys, "main", *weak, "3", "--interval", "0.2,50")
    assert facts["guidance"] == 3 and facts["interval"] == [0.2, 50]
    assert facts["guide"].endswith("power_0.050 at 32 images (tracked)")
    assert np.abs(guided - plain).mean() > 1
    for guide in ("unconditional", runs / "free"):
        free, _ = sample(runs, capsys, "main", "--guide", guide, "--guidance", "3")
        assert np.abs(free - plain).mean() > 0.2 and np.abs(free - guided).mean() > 0.2


@pytest.mark.slow
def test_a_classifier_steers_a_run_without_labels(runs, capsys):
    plain, _ = sample(runs, capsys, "free", "--guide", runs / "classifier", "--guidance", "0")
    steered, facts = sample(runs, capsys, "free", "--guide", runs / "classifier", "--guidance", "9")
    assert np.abs(steered - plain).mean() > 1 and "classifier" in facts["guide"]


@pytest.mark.parametrize(
    "run, args, text",
    [
        ("main", ["--guidance", "2"], "--guidance and --interval need a --guide"),
        ("main", ["--guide", "{weak}", "--interval", "1"], "--interval is LO,HI"),
        ("main", ["--guide", "{weak}", "--interval", "3,1"], "needs 0 <= lo < hi"),
        ("main", ["--guide", "{weak}", "--guidance", "nan"], "guidance weight must be finite"),
        ("weak", ["--guide", "unconditional"], "trained with labels of which some were dropped"),
        ("main", ["--guide", "nowhere"], "nowhere holds no run"),
        ("main", ["--guide", "{other}"], "makes images (28, 28, 1) (h, w, c), this run (8, 8, 1)"),
        ("main", ["--guide", "{fewer}"], "knows 7 classes (class), this run 10 (class)"),
        ("main", ["--option", "solver=rk4"], "unknown solver 'rk4'; known are euler, heun"),
        ("main", ["--option", "S_churn=9"], "solver 'heun' has no options ['S_churn']"),
        (
            "main",
            ["--option", "solver=edm", "--option", "S_churn=9"],
            "S_churn = 9.0 is too large for 3 steps: at most",
        ),
        ("main", ["--option", "sigma_min=90"], "0 < sigma_min < sigma_max"),
        ("main", ["--option", "grid=line"], "sampler.grid must be one of"),
    ],
)
def test_mistakes_are_explained(runs, capsys, run, args, text):
    for name, change in {
        "other": {"shape": [28, 28, 1]},
        "fewer": {"label_dim": 7},
    }.items():
        saved = json.loads((runs / "weak" / "config.json").read_text())
        saved["facts"] |= change
        (runs / name).mkdir(exist_ok=True)
        (runs / name / "config.json").write_text(json.dumps(saved))
    names = {n: runs / n for n in ("weak", "other", "fewer")}
    args = [a.format(**names) for a in args]
    assert text in sample(runs, capsys, run, *args, code=2)

"""A results.json is enough to start its run again and to tell whether it is the same run."""

import json
import shutil

import pytest

from jaxgen.__main__ import main
from jaxgen.data.fingerprint import fingerprint
from jaxgen.data.source import ArraySource, Source, subset
from jaxgen.train import firsts

CONFIG = "configs/gan/digits.py:mlp,debug"


def call(capsys, *argv, code=0):
    found = main([*map(str, argv)])
    out = capsys.readouterr()
    assert found == code, out.out + out.err
    return out.out + out.err


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", "--config", CONFIG, "--workdir", str(folder), "--no_progress"]) == 0
    return folder


def edited(run, folder, **changes):
    """A results.json with other facts of how the run started."""
    saved = json.loads((run / "results.json").read_text())
    for name in ("first_steps", "last", "config"):
        saved[name] = changes.pop(name, saved[name])
    saved["started"] |= changes
    path = folder / "results.json"
    path.write_text(json.dumps(saved))
    return path


def test_results_tell_all_of_the_run(run):
    saved = json.loads((run / "results.json").read_text())
    assert saved["finished"] and saved["nimg"] == 64 and saved["seed"] == 0
    assert [s["step"] for s in saved["first_steps"]] == [0, 1, 2, 3]
    assert firsts.losses(saved["last"]) == firsts.losses(saved["first_steps"][-1])
    assert saved["mesh"] == {"data": 8, "fsdp": 1, "tensor": 1} and saved["processes"] == 1
    assert saved["command"]["config"] == CONFIG and saved["history"] == []
    for name, value in saved["started"].items():
        assert saved[name] == value, name
    versions = {"jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "jaxgen"}
    assert versions <= saved["versions"].keys()
    assert len(saved["data_fingerprint"]) == 64 and {"commit", "machine", "device"} <= saved.keys()


def test_the_same_bits(run, capsys):
    before = sorted(p.name for p in run.rglob("*"))
    text = call(capsys, "reproduce", run, "--no_progress", "--steps", 3)
    assert "everything that is known to matter is the same" in text
    assert "all 6 losses of 3 steps are the same bit for bit" in text
    assert sorted(p.name for p in run.rglob("*")) == before


def test_elsewhere_within_a_tolerance(run, tmp_path, capsys):
    saved = json.loads((run / "results.json").read_text())
    versions = saved["versions"] | {"jax": "0.9.0"}
    path = edited(run, tmp_path, versions=versions, commit="abc")
    text = call(capsys, "reproduce", path, "--config.mesh.fsdp=2", "--no_progress")
    assert "jax: 0.9.0 -> " in text and "commit: abc -> " in text
    assert "mesh: data 8 x fsdp 1 x tensor 1 -> data 4 x fsdp 2 x tensor 1" in text
    assert "all 8 losses of 4 steps are the same within 0.001 of the largest loss" in text


def test_another_loss_is_told(run, tmp_path, capsys):
    steps = json.loads((run / "results.json").read_text())["first_steps"]
    steps[1]["gen/loss"] *= 1 + 2**-22  # two units in the last place of a float32
    path = edited(run, tmp_path, first_steps=steps)
    text = call(capsys, "reproduce", path, "--no_progress", "--steps", 2, code=1)
    assert "1 of 4 losses are not the same bit for bit" in text
    wrong = next(x for x in text.splitlines() if x.endswith("differs"))
    assert wrong.split()[:2] == ["1", "gen"]


def test_other_data_are_refused(run, tmp_path, capsys):
    path = edited(run, tmp_path, data_fingerprint="0" * 64)
    text = call(capsys, "reproduce", path, "--no_progress", code=2)
    assert "'digits' have changed since the run began" in text and "--allow_other_data" in text


def test_to_the_end_and_on(run, tmp_path, capsys):
    new = tmp_path / "new"
    args = ["reproduce", run / "results.json", "--full", "--no_progress"]
    text = call(capsys, *args, "--workdir", new)
    last = [line.split() for line in text.splitlines() if line.lstrip().startswith("end")]
    assert len(last) == 2 and all(recorded == again for _, _, recorded, again in last)
    assert "holds a run already" in call(capsys, *args, "--workdir", new, code=2)
    shutil.rmtree(new / "checkpoints" / "64")  # as if it had been cut off before
    text = call(capsys, "train", "--workdir", new, "--no_progress")
    assert "resuming at 32 images" in text and "finished: 64 images" in text


def test_mistakes(run, tmp_path, capsys):
    path = edited(run, tmp_path, config={"batch": 1})
    cases = {
        ("--steps", "5"): "--steps must be in 1..4, the steps that",
        ("--full", "--workdir", tmp_path / "x"): "were changed on the way (",
    }
    for args, text in cases.items():
        assert text in call(capsys, "reproduce", path, *args, code=2)
    for args, text in {
        ("--full",): "--full needs a --workdir",
        ("--config.batch=2",): "only --config.mesh.NAME=VALUE and --config.microbatches=N",
    }.items():
        with pytest.raises(SystemExit):
            main(["reproduce", str(path), *args])
        assert text in capsys.readouterr().err
    assert "there is no" in call(capsys, "reproduce", tmp_path / "none.json", code=2)
    path.write_text("{}")
    assert "has no record of the run's first steps" in call(capsys, "reproduce", path, code=2)
    path.write_text("[")
    assert "is not the results.json of a run" in call(capsys, "reproduce", path, code=2)


def test_losses_are_compared_by_their_size():
    recorded = [{"step": 0, "a/loss": 100.0}, {"step": 1, "a/loss": 0.0, "b/loss": None}]
    near = [{"step": 0, "a/loss": 100.05}, {"step": 1, "a/loss": 0.05, "b/loss": None}]
    assert firsts.compare(recorded, near, 1e-3)[1] == []
    assert len(firsts.compare(recorded, near, 0.0)[1]) == 2
    far = [near[0], {"step": 1, "a/loss": None, "b/loss": 1.0}]
    assert [r[1] for r in firsts.compare(recorded, far, 1e-3)[1]] == ["a/loss", "b/loss"]


class Lazy(Source):
    """A source that is not in memory, and counts what is read."""

    def __init__(self, source):
        super().__init__(**source.facts)
        self.source, self.asked = source, []

    def __len__(self):
        return len(self.source)

    def __getitem__(self, i):
        self.asked.append(i)
        return self.source[i]


def test_a_fingerprint_tells_data_apart(rng):
    images = rng.integers(0, 256, (600, 4, 4, 3), "uint8")
    labels = rng.integers(0, 5, 600)
    source = ArraySource(images, labels)
    same = fingerprint(ArraySource(images.copy(), labels.copy()))
    assert fingerprint(source) == same
    other = images.copy()
    other[311, 0, 0, 0] ^= 1
    changed = [
        ArraySource(other, labels),
        ArraySource(images, labels[::-1]),
        ArraySource(images),
        subset(source, range(599)),
        subset(source, [1, 0, *range(2, 600)]),
    ]
    found = [fingerprint(s) for s in changed]
    assert len({same, *found}) == 6
    lazy = Lazy(source)
    digest = fingerprint(lazy)
    assert len(lazy.asked) == 256 and {0, 599} <= set(lazy.asked)
    assert digest == fingerprint(Lazy(ArraySource(images, labels)))
    lazies = [fingerprint(Lazy(s)) for s in changed[1:]]
    assert len({digest, *lazies}) == 5


@pytest.fixture
def rng():
    import numpy as np

    return np.random.default_rng(0)

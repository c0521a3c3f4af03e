"""The commands on a debug run of the digits, as a user types them."""

import json

import numpy as np
import pytest

from jaxgen.__main__ import main
from jaxgen.cli import common
from jaxgen.data import source, sources
from jaxgen.metrics import features, frechet

CONFIG = "configs/edm2/digits.py:debug"


@pytest.fixture(scope="module", autouse=True)
def at_the_repository_root(request):
    import os

    before = os.getcwd()
    os.chdir(request.config.rootpath)
    yield
    os.chdir(before)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    assert main(["train", "--config", CONFIG, "--workdir", str(folder), "--no_progress"]) == 0
    return folder


def call(capsys, *args, code=0):
    got = main(list(map(str, args)))
    out = capsys.readouterr()
    assert got == code, out.err
    return out.out + out.err


def test_a_run_leaves_what_is_needed_later(run):
    saved = json.loads((run / "config.json").read_text())
    assert saved["config"]["batch"] == 16 and saved["facts"]["name"] == "digits"
    results = json.loads((run / "results.json").read_text())
    assert results["nimg"] == 64 and results["versions"]["jax"] and "commit" in results
    assert (run / "metrics.jsonl").is_file() and (run / "snapshots/64").is_dir()


def test_the_same_command_finds_the_finished_run(run, capsys):
    text = call(capsys, "train", "--config", CONFIG, "--workdir", run, "--no_progress")
    assert "resuming at 64 images" in text and "compiling" not in text
    text = call(capsys, "train", "--workdir", run, "--no_progress")
    assert "resuming at 64 images" in text


def test_another_config_is_refused_with_the_keys(run, capsys):
    args = ["train", "--config", CONFIG, "--workdir", run, "--config.optimizer.ref_lr=0.5"]
    text = call(capsys, *args, code=2)
    assert "optimizer.ref_lr: 0.02 -> 0.5" in text and "--allow_changes" in text
    assert "batch" not in text


def test_allowed_changes_go_on(run, tmp_path, capsys):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    args = ["train", "--config", CONFIG, "--workdir", copy, "--config.images=96", "--no_progress"]
    changes = ["--config.data.limit=600", "--allow_changes"]
    text = call(capsys, *args, *changes)
    assert "changed: images: 64 -> 96" in text and "finished: 96 images" in text
    assert "data: <digits train: 600 of 8x8x1" in text
    saved = json.loads((copy / "config.json").read_text())
    assert saved["config"]["images"] == "96" and saved["facts"]["length"] == 600
    assert saved["history"] == ["images: 64 -> 96", "data.limit: 0 -> 600"]
    text = call(capsys, *args, "--config.data.limit=1300", "--allow_changes", code=2)
    assert "the train split has 1200 images, config.data.limit is 1300; set it to 1..1200" in text


def test_samples_do_not_depend_on_how_they_are_drawn(run, tmp_path, capsys):
    """The same image 5 whatever the batch and the number of images; the seed changes it."""
    draw = ["sample", "--workdir", run, "--classes", "3"]
    text = call(capsys, *draw, "--num", 12, "--out", tmp_path / "a.npz")
    assert "average: power_0.100 at 64 images (tracked)" in text
    call(capsys, *draw, "--num", 6, "--batch", 8, "--out", tmp_path / "b.npz")
    call(capsys, *draw, "--num", 6, "--seed", 1, "--out", tmp_path / "c.npz")
    a, b, c = (np.load(tmp_path / f"{n}.npz") for n in "abc")
    assert a["image"].shape == (12, 8, 8, 1) and a["image"].dtype == np.uint8
    assert np.abs(a["image"][:6].astype(int) - b["image"]).max() <= 1
    assert np.abs(a["image"][:6].astype(int) - c["image"]).mean() > 5
    facts = json.loads((tmp_path / "a.json").read_text())
    assert facts["seed"] == 0 and facts["num"] == 12 and "power_0.100" in facts["average"]
    np.testing.assert_array_equal(a["label"], 3)


def test_grids_and_folders(run, tmp_path, capsys):
    from PIL import Image

    draw = ["sample", "--workdir", run, "--num", 20]
    call(capsys, *draw, "--out", tmp_path / "grid.png", "--columns", 10, "--average", "raw")
    assert Image.open(tmp_path / "grid.png").size == (10 * 65 + 1, 2 * 65 + 1)
    assert "raw weights" in json.loads((tmp_path / "grid.json").read_text())["average"]
    call(capsys, *draw, "--out", tmp_path / "files", "--option", "steps=2")
    names = sorted(p.name for p in (tmp_path / "files").glob("*.png"))
    assert len(names) == 20 and names[0] == "000000_class0.png" and names[-1].endswith("class9.png")
    text = call(capsys, *draw, "--out", tmp_path / "files", code=2)
    assert "folder with files in it" in text


def test_averages_of_several_lengths_are_rebuilt_and_scored(run, tmp_path, capsys):
    args = ["--lengths", "0.06:0.1:3", "--metrics", "frechet", "--num", 30, "--out", tmp_path / "o"]
    text = call(capsys, "average", "--workdir", run, *args)
    assert "post-hoc from 2 snapshots" in text and "(tracked)" in text
    assert "frechet@digits-classifier" in text
    found = json.loads((tmp_path / "o/averages.json").read_text())
    assert [a["length"] for a in found["averages"]] == [0.06, 0.08, 0.1]
    assert found["feature_net"]["name"] == "digits-classifier"
    assert (tmp_path / "o/power_0.080@64/64").is_dir()


def test_evaluate_names_everything(run, capsys):
    args = ["--metrics", "frechet,kernel,precision_recall", "--num", 30]
    text = call(capsys, "evaluate", "--workdir", run, *args)
    for name in ("frechet", "kernel", "precision", "recall"):
        assert f"{name}@digits-classifier" in text
    (path,) = (run / "evaluations").glob("*.json")
    found = json.loads(path.read_text())
    wanted = {"scores", "num", "num_real", "seed", "feature_net", "floor", "average", "versions"}
    assert wanted <= found.keys()
    assert {"name", "resizer"} <= found["feature_net"].keys()


def test_evaluate_takes_real_images_of_every_class(run, capsys):
    """Less than all: of each class its share; the distance is that of their features."""
    args = ["--workdir", run, "--metrics", "frechet", "--num", 30]
    text = call(capsys, "evaluate", *args, "--num_real", 300)
    assert "30 and 300 samples are few for a Frechet distance in 64 dimensions" in text
    (path,) = (run / "evaluations").glob("*300real.json")
    found = json.loads(path.read_text())
    assert found["num_real"] == 300
    net = features.load("digits-classifier")
    chosen = lambda split, n: source.limited(sources.load("digits", split), n).arrays
    images, labels = chosen("train", 300)
    assert np.ptp(np.bincount(labels)) <= 3
    want = frechet.frechet(net(chosen("test", 30)[0]), net(images))
    np.testing.assert_allclose(found["floor"]["frechet@digits-classifier"], want, rtol=1e-4)
    for wrong in (1, 1201):
        text = call(capsys, "evaluate", *args, "--num_real", wrong, code=2)
        assert f"num_real must be 2 to 1200, the images, got {wrong}" in text


@pytest.mark.parametrize(
    "args, text",
    [
        (["trian"], "no command 'trian'. Did you mean 'train'?"),
        (
            ["train", "--workdir", "x", "--config", "configs/no.py"],
            "there is no file configs/no.py",
        ),
        (
            ["train", "--workdir", "x", "--config", CONFIG, "--config.bach=3"],
            'Did you mean "batch"',
        ),
        (["train", "--workdir", "x", "--config", CONFIG, "--config.batch=ten"], "ten"),
        (
            ["train", "--workdir", "x", "--config", CONFIG + ",deep"],
            "unknown config argument 'deep'",
        ),
        (
            ["train", "--workdir", "x", "--config", CONFIG, "--config.batch=12"],
            "multiple of devices",
        ),
        (
            ["train", "--workdir", "x", "--config", CONFIG, "--config.recipe=edm3"],
            "did you mean 'edm",
        ),
        (["sample", "--workdir", "nowhere", "--out", "x.png"], "nowhere holds no run"),
        (["average", "--workdir", "x", "--lengths", "1:2"], "expected numbers like 0.05,0.1"),
    ],
)
def test_mistakes_are_explained(args, text, tmp_path, capsys, monkeypatch):
    args = [str(tmp_path / a) if a == "x" else a for a in args]
    assert text in call(capsys, *args, code=2)
    assert not list(tmp_path.iterdir()), "a mistake left something behind"


@pytest.mark.parametrize(
    "args, text",
    [
        (["--classes", "4-12", "--out", "x.png"], r"[10, 11, 12] are not below the 10 classes"),
        (["--classes", "a-b", "--out", "x.png"], "--classes must look like 0-9"),
        (["--out", "x.jpg"], "must end in .png or .npz"),
        (["--option", "psi=0.7", "--out", "x.png"], "this run's sampler has {"),
        (["--average", "0.29", "--out", "x.png"], "reachable here"),
        (["--average", "ema", "--out", "x.png"], "no average 'ema'; tracked are"),
        (["--nimg", "5", "--out", "x.png"], "no snapshot at 5 images; there are [32, 64]"),
    ],
)
def test_mistakes_in_sampling_are_explained(run, args, text, tmp_path, capsys):
    args = [str(tmp_path / a) if a.startswith("x.") else a for a in args]
    assert text in call(capsys, "sample", "--workdir", run, "--num", 4, *args, code=2)


def test_unknown_flags_name_the_nearest(run, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["sample", "--workdir", str(run), "--out", "x.png", "--clases", "3"])
    assert stop.value.code == 2 and "did you mean --classes?" in capsys.readouterr().err


def test_imported_weights_are_not_trained_on(tmp_path, capsys):
    saved = {"config": {}, "facts": {}, "command": {"import": ["net.pkl"]}}
    (tmp_path / "config.json").write_text(json.dumps(saved))
    text = call(capsys, "train", "--config", CONFIG, "--workdir", tmp_path, code=2)
    assert "holds imported weights" in text and "another --workdir" in text


def test_classes_and_lengths():
    assert common.parse_classes("0-2,7", 10) == [0, 1, 2, 7]
    assert common.parse_numbers("0.02:0.2:4") == [0.02, 0.08, 0.14, 0.2]
    assert common.parse_numbers("0.05,0.1") == [0.05, 0.1]

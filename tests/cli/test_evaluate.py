"""`jaxgen evaluate`: new measures, real images computed once, and what is refused."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
import toy_styles as toy

from jaxgen.__main__ import main
from jaxgen.cli import common, evaluate, references
from jaxgen.data import source as sources
from jaxgen.data.source import ArraySource
from jaxgen.metrics import features

pytestmark = pytest.mark.filterwarnings("ignore:a Frechet distance of:RuntimeWarning")
REAL = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The toy with random images as its data: 40 to train on, sorted by class, and 20."""
    found = toy.run(tmp_path)
    monkeypatch.setattr(common.Run, "open", lambda workdir, verify=True: found)

    def load(spec, split):
        rows = slice(0, 40) if split == "train" else slice(40, 60)
        labels = np.arange(60) // 10 % 4
        return ArraySource(REAL[rows], labels[rows], name="digits", split=split)

    monkeypatch.setattr(common, "load_source", load)
    return found


def call(capsys, *args, code=0):
    got = main(["evaluate", "--workdir", "toy", "--num", "24", *map(str, args)])
    out = capsys.readouterr()
    assert got == code, out.err
    return out.out + out.err


def scores(tmp_path):
    (path,) = (tmp_path / "evaluations").glob("*.json")
    return toy.facts_of(path)


def test_new_measures_and_a_picture(run, tmp_path, capsys):
    names = "memorisation,realism,inception_score,kernel_subsets,kernel_error"
    text = call(capsys, "--metrics", names, "--subsets", "3x8", "--splits", 2, "--k", 2)
    found = scores(tmp_path)
    keys = {n.partition("@")[0] for n in found["scores"]}
    assert keys >= {"memorisation", "copies", "realism", "inception_score_std", "kernel_error"}
    assert found["settings"] == {
        "neighbours": 2, "subsets": 3, "subset_size": 8, "splits": 2,
    }  # fmt: skip
    assert "inception_score@digits-classifier" in found["floor"]
    assert "memorisation@digits-classifier" not in found["floor"]
    (picture,) = (tmp_path / "evaluations").glob("*.nearest.png")
    from PIL import Image

    # 24 pairs of two 8x8 images at 8 times their size, 6 a row, 3 pixels between.
    assert Image.open(picture).size == (6 * (2 * 64 + 3) + 3, 4 * (64 + 3) + 3)
    assert str(picture) in text


def test_only_moments_are_kept_of_many(run, capsys, monkeypatch, tmp_path):
    """More images than FEW a dimension and only `frechet`: the same number without features."""
    call(capsys, "--metrics", "frechet", "--out", tmp_path / "a.json", "--cache", "none")
    monkeypatch.setattr(evaluate, "FEW", 0)
    monkeypatch.setattr("jaxgen.metrics.stream.features", None)
    call(capsys, "--metrics", "frechet", "--out", tmp_path / "b.json", "--cache", "none")
    a, b = (json.loads((tmp_path / f"{n}.json").read_text()) for n in "ab")
    for of in ("scores", "floor"):
        name = "frechet@digits-classifier"
        assert b[of][name] == pytest.approx(a[of][name], rel=1e-5)


def test_real_images_are_computed_once(run, tmp_path, capsys, user_cache, monkeypatch):
    args = ["--metrics", "frechet,kernel", "--cache", tmp_path / "cache"]
    call(capsys, *args, "--out", tmp_path / "a.json")
    files = sorted((tmp_path / "cache").iterdir())
    assert len(files) == 2 and all(f.name.startswith("digits-digits-class") for f in files)
    read = []
    monkeypatch.setattr(references, "images", lambda source, rows: read.append(rows))
    call(capsys, *args, "--out", tmp_path / "b.json")
    a, b = (json.loads((tmp_path / f"{n}.json").read_text()) for n in "ab")
    assert a["scores"] == b["scores"] and a["floor"] == b["floor"] and not read
    monkeypatch.undo()


def test_a_damaged_file_is_named_and_made_anew(run, tmp_path, capsys):
    args = ["--metrics", "frechet", "--cache", tmp_path / "cache", "--out", tmp_path / "a.json"]
    call(capsys, *args)
    path = sorted((tmp_path / "cache").iterdir())[0]
    data = path.read_bytes()
    path.write_bytes(data[:-100])
    text = call(capsys, *args)
    assert f"computing the reference anew: {path} is damaged" in text
    with np.load(path) as again:
        assert "sha256" in again.files


def test_a_given_reference_must_fit(run, tmp_path, capsys):
    file = tmp_path / "real.npz"
    args = ["--metrics", "frechet", "--out", tmp_path / "a.json", "--reference", file]
    call(capsys, *args)
    call(capsys, *args)
    text = call(capsys, *args, "--num_real", 30, code=2)
    assert f"--reference {file} was made of something else (file -> asked for)" in text
    assert "data.images: 40 -> 30" in text and "data.sha256" in text
    text = call(capsys, *args, "--features", "pixels", code=2)
    assert "net.name: digits-classifier -> pixels" in text
    file.write_bytes(b"no archive")
    assert "is damaged or no reference file" in call(capsys, *args, code=2)


def test_real_images_are_chosen_over_classes(run):
    source = common.load_source("digits", "train")
    chosen = references.choose(source, 12)
    np.testing.assert_array_equal(np.bincount(chosen.arrays[1]), [3, 3, 3, 3])
    assert references.choose(source, None) is source and references.choose(source, 40) is source
    again = np.concatenate(list(references.images(chosen, slice(3, 12))))
    np.testing.assert_array_equal(again, chosen.arrays[0][3:])


def test_the_fingerprint_is_of_the_images():
    one, two = ArraySource(REAL[:30], name="x"), ArraySource(REAL[1:31], name="x")
    assert references.data_facts(one)["sha256"] != references.data_facts(two)["sha256"]
    assert references.data_facts(one) == references.data_facts(ArraySource(REAL[:30], name="x"))
    outside = sources._Subset(one, np.arange(30), one.facts)  # not in memory: some of its images
    assert references.data_facts(outside)["images"] == 30


def test_a_library_selects_settings(run, tmp_path, capsys):
    flags = ["--metrics", "precision_recall", "--like", "stylegan3", "--features", "pixels"]
    text = call(capsys, *flags, code=2)
    assert "--like stylegan3 is about the net inception" in text
    args = evaluate.parser().parse_args(["--workdir", "x", "--like", "stylegan3", "--k", "4"])
    found = evaluate.settings_of(args)
    assert (found.ddof, found.half, found.neighbours, found.splits) == (0, True, 4, 10)


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--metrics", "precision_recal"], "did you mean 'precision_recall'"),
        (["--metrics", "precision_recall", "--k", 24], "k must be in 1..19 for 20 samples"),
        (["--metrics", "kernel_subsets"], "must have 2 to 24 samples for sets of 24 and 40"),
        (["--metrics", "kernel_subsets", "--subsets", 8], "--subsets must look like 100x1000"),
        (["--metrics", "lpips_diversity"], "lpips_diversity is of the net lpips, got digits-cl"),
        (["--metrics", "inception_score", "--splits", 30], "30 parts needs as many samples"),
        (["--metrics", "frechet", "--features", "pixel"], "no feature net 'pixel'"),
        (["--metrics", "frechet", "--num_real", 1], "num_real must be 2 to 40, the images, got 1"),
    ],
)
def test_mistakes_are_explained(run, flags, text, capsys):
    assert text in call(capsys, "--cache", "none", *flags, code=2)


def test_features_that_are_not_finite_are_told(run, capsys, monkeypatch):
    monkeypatch.setattr(
        "jaxgen.metrics.classifier.features", lambda p, x, spec: x.reshape(len(x), -1) / 0
    )
    features._apply.clear_cache()
    text = call(capsys, "--metrics", "frechet", "--cache", "none", code=2)
    features._apply.clear_cache()
    assert "rows of" in text and "are not finite; look at the images they came from" in text


@pytest.mark.slow
@pytest.mark.parametrize(
    "metrics", [("frechet,kernel,precision_recall,memorisation",), ("frechet", 0)]
)
def test_two_processes_give_the_numbers_of_one(tmp_path, metrics):
    """Real processes; features are joined, or, in the second case, moments."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    paths = os.pathsep.join([*sys.path, os.path.dirname(__file__)])
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": paths}

    def start(port, number, name):
        (tmp_path / name).mkdir(exist_ok=True)
        args = ["-m", "run_evaluate", port, number, tmp_path / name, *metrics]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        return subprocess.Popen([sys.executable, *map(str, args)], env=environment, **pipes)

    for process in (start(0, 0, "one"), start(port, 0, "two"), start(port, 1, "two")):
        text = process.communicate(timeout=300)[0]
        assert process.returncode == 0, text
    one, two = (json.loads((tmp_path / n / "found.json").read_text()) for n in ("one", "two"))
    for of in ("scores", "floor"):
        assert one[of].keys() == two[of].keys() and one[of]
        for name in one[of]:
            assert two[of][name] == pytest.approx(one[of][name], rel=1e-6, abs=1e-7), name
    assert len(list((tmp_path / "two/cache").iterdir())) == 2

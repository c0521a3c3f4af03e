"""`jaxgen project` on a toy: an image that it made is found again, and mistakes are told early."""

import numpy as np
import pytest
import toy_styles as toy
from PIL import Image

from jaxgen.__main__ import main
from jaxgen.cli import common
from jaxgen.common import pictures, units


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`--workdir toy` is the toy, `--workdir plain` one without styles."""
    runs = {"toy": toy.run(tmp_path), "plain": toy.run(tmp_path, styled=False)}
    monkeypatch.setattr(common.Run, "open", lambda workdir, verify=True: runs[str(workdir)])
    monkeypatch.setattr("jaxgen.cli.project.SAMPLES", 1000)
    return runs["toy"]


def call(capsys, *args, code=0):
    got = main(list(map(str, args)))
    out = capsys.readouterr()
    assert got == code, out.err
    return out.out + out.err


def test_an_image_of_the_generator_is_found_again(run, tmp_path, capsys):
    w = np.array([[0.9, -1.2, 0.7]], "f4")
    x = units.to_uint8(toy.generator(toy.PARAMS, {}).synthesis(w))[0]
    pictures.save_png(x, tmp_path / "x.png")
    out = tmp_path / "found"
    flags = ["--steps", 300, "--strip", 3, "--features", "pixels", "--noise_weight", 1]
    text = call(capsys, "project", tmp_path / "x.png", "--workdir", "toy", "--out", out, *flags)
    assert "   100 of 300" in text and "dB after 300 steps" in text
    names = {"projected.png", "strip.png", "w.npz", "facts.json"}
    assert {p.name for p in out.iterdir()} == names
    facts = toy.facts_of(out / "facts.json")
    assert facts["before"]["pixels"] > 50 * facts["after"]["pixels"]
    assert facts["psnr"] > 30 and facts["search"]["steps"] == 300 and facts["image"] == "x.png"
    assert facts["average"] == "the toy's" and facts["feature_net"]["name"] == "pixels"
    found = np.load(out / "w.npz")
    np.testing.assert_allclose(found["w"], w[0], atol=0.15)
    assert found["noise/generator/noise_const"].shape == (8, 8)
    image = np.asarray(Image.open(out / "projected.png"))
    assert np.abs(image.astype(int) - x[..., 0]).mean() < 5
    assert Image.open(out / "strip.png").size == (5 * 65 + 1, 66)  # begin, three, the target


@pytest.mark.parametrize(
    "make, flags, text",
    [
        (lambda p: Image.new("L", (9, 8)).save(p), [], "x.png has 9x8 pixels of mode L"),
        (lambda p: Image.new("RGB", (8, 8)).save(p), [], "8x8 of mode L are needed"),
        (lambda p: p.write_text("no"), [], "x.png is no picture"),
        (lambda p: None, [], "there is no file"),
        (lambda p: None, ["--workdir", "plain"], "jaxgen project needs a generator with styles"),
        (lambda p: Image.new("L", (8, 8)).save(p), ["--classes", "5"], "not below the 3 classes"),
        (lambda p: p.with_name("f").write_text(""), ["--out", "."], "is there already"),
    ],
)
def test_mistakes_are_told_early(run, tmp_path, capsys, monkeypatch, make, flags, text):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "x.png")
    before = sorted(tmp_path.iterdir())
    args = ["project", "x.png", "--workdir", "toy", "--out", "out", *flags]
    assert text in call(capsys, *args, code=2)
    assert sorted(tmp_path.iterdir()) == before


def test_images_that_are_not_finite(run, tmp_path, capsys, monkeypatch):
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    weights = {**toy.PARAMS["generator"], "b": np.full((toy.DIM, toy.SIZE), np.nan, "f4")}
    monkeypatch.setattr(toy, "PARAMS", {"generator": weights})
    args = ["project", tmp_path / "x.png", "--workdir", "toy", "--out", tmp_path / "o"]
    text = call(capsys, *args, "--features", "pixels", code=2)
    assert "after 0 steps the generator's image is not finite" in text
    assert not (tmp_path / "o").exists()


def test_impossible_numbers(capsys):
    for flags in (["--steps", "0"], ["--strip", "9", "--steps", "8"]):
        with pytest.raises(SystemExit):
            main(["project", "x.png", "--workdir", "toy", "--out", "o", *flags])
        assert "--strip between 1 and --steps" in capsys.readouterr().err

"""Tools of generators with styles on a toy whose images show which layer had which style."""

import numpy as np
import pytest
import toy_styles as toy
from PIL import Image

from jaxgen.__main__ import main
from jaxgen.cli import common, styles


@pytest.fixture
def run(tmp_path, monkeypatch):
    """`--workdir toy` is the toy, `--workdir plain` one without styles."""
    runs = {"toy": toy.run(tmp_path), "plain": toy.run(tmp_path, styled=False)}
    monkeypatch.setattr(common.Run, "open", lambda workdir, verify=True: runs[str(workdir)])
    return runs["toy"]


def call(capsys, *args, code=0):
    got = main(list(map(str, args)))
    out = capsys.readouterr()
    assert got == code, out.err
    return out.out + out.err


def tiles(path, columns):
    """The tiles (n, 8, 8) of a saved grid, of which each pixel is 8 x 8 pixels."""
    x = np.asarray(Image.open(path).convert("L"))[1:, 1:]
    rows = len(x) // 65
    return x.reshape(rows, 65, columns, 65)[:, :64:8, :, :64:8].swapaxes(1, 2).reshape(-1, 8, 8)


def test_mixtures_with_their_sources_along_the_edges(run, tmp_path, capsys):
    """Image i is that of `jaxgen sample`; layer l of the toy fills rows 2l and 2l + 1."""
    out = tmp_path / "mix.png"
    mix = ["sample", "--workdir", "toy", "--mix", "1+3,4-6", "--layers", "0+2", "--out", out]
    text = call(capsys, *mix, "--option", "psi=0.5", "--classes", "2")
    assert "2 x 3 mixtures in layers [0, 2]" in text
    found = tiles(out, 4).reshape(3, 4, 8, 8)
    draw = ["sample", "--workdir", "toy", "--num", 8, "--classes", "2", "--option", "psi=0.5"]
    call(capsys, *draw, "--out", tmp_path / "x.npz")
    images = np.load(tmp_path / "x.npz")["image"][..., 0]
    assert (found[0, 0] == 255).all()
    np.testing.assert_array_equal(found[1:, 0], images[[1, 3]])
    np.testing.assert_array_equal(found[0, 1:], images[4:7])
    for i, row in enumerate((1, 3)):
        for j, column in enumerate((4, 5, 6)):
            want = images[row].copy()
            want[[0, 1, 4, 5]] = images[column][[0, 1, 4, 5]]
            np.testing.assert_array_equal(found[1 + i, 1 + j], want)
    facts = toy.facts_of(tmp_path / "mix.json")
    assert facts["rows"] == [1, 3] and facts["columns"] == [4, 5, 6] and facts["layers"] == [0, 2]
    assert facts["options"] == {"psi": 0.5, "cutoff": 0} and facts["average"] == "the toy's"


def test_rows_are_those_of_the_image_numbers(run):
    rows = styles.rows_of(run, [4, 0], 0, "1-2")
    np.testing.assert_array_equal(rows["label"], np.eye(3)[[1, 1]])
    one = styles.rows_of(run, [4], 0)
    np.testing.assert_array_equal(one["label"], np.eye(3)[[1]])
    tool = styles.Tool(run, lambda g, r: g.latents(r["key"]), 8)
    both, alone = (tool.whole(toy.PARAMS, r, len(r["label"])) for r in (rows, one))
    np.testing.assert_array_equal(both[0], alone[0])
    assert np.abs(both[1] - both[0]).max() > 0.1


def test_numbers():
    assert styles.numbers("0-3", "x") == [0, 1, 2, 3]
    assert styles.numbers("5+17+20-22", "x") == [5, 17, 20, 21, 22]
    for text in ("", "3-1", "a", "1,2", "-1", "1-"):
        with pytest.raises(ValueError, match=r"^x must look like 0-3, 5 or 5"):
            styles.numbers(text, "x")


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--mix", "0-3"], "--mix is ROWS,COLUMNS"),
        (["--mix", "0-3,z"], "--mix: columns must look like"),
        (["--mix", "0,1", "--layers", "9"], "layers [9] are not among the 4"),
        (["--mix", "0,1", "--layers", "x"], "--layers must look like"),
        (["--layers", "1"], "give --mix too"),
        (["--mix", "0,1", "--out", "x.npz"], "must end in .png"),
        (["--mix", "0,1", "--workdir", "plain"], "needs a generator with styles"),
        (["--mix", "0,1", "--guide", "x"], "is no score network"),
        (["--mix", "0,1", "--option", "steps=2"], "this run's sampler has {'psi': 1.0"),
        (["--mix", "0,1", "--classes", "7"], "not below the 3 classes"),
    ],
)
def test_mistakes_are_told_early(run, tmp_path, capsys, flags, text):
    base = ["sample", "--workdir", "toy", "--out", tmp_path / "x.png"]
    assert text in call(capsys, *base, *flags, code=2)
    assert not list(tmp_path.iterdir())

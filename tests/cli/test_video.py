"""`jaxgen sample --video` on a toy: closed ways through its images, and no half-written files."""

import numpy as np
import pytest
import toy_styles as toy
from PIL import Image

from jaxgen.__main__ import main
from jaxgen.cli import common, video


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


def frames_of(path):
    with Image.open(path) as gif:
        return [
            np.asarray((gif.seek(i), gif.convert("L"))[1])[::32, ::32].astype(int)
            for i in range(gif.n_frames)
        ]


@pytest.mark.parametrize("space", ["w", "z"])
def test_a_way_passes_through_its_images(run, tmp_path, capsys, space):
    """Frame 0, 3, 6 are images 2, 5, 0 in w; in z their latents keep directions only."""
    out = tmp_path / "way.gif"
    args = ["sample", "--workdir", "toy", "--through", "2+5+0", "--frames", 3, "--fps", 10]
    args += ["--classes", 1, "--space", space, "--video", out]
    assert "9 frames, 0.9 s" in call(capsys, *args)
    found = frames_of(out)
    assert len(found) == 9 and found[0].shape == (8, 8)
    with Image.open(out) as gif:
        assert gif.size == (256, 256) and gif.info["duration"] == 100 and gif.info["loop"] == 0
    if space == "w":
        draw = ["sample", "--workdir", "toy", "--num", 6, "--classes", 1]
        call(capsys, *draw, "--out", tmp_path / "x.npz")
        images = np.load(tmp_path / "x.npz")["image"][..., 0]
        for i, n in enumerate((2, 5, 0)):
            assert np.abs(found[3 * i] - images[n]).max() <= 4  # GIF has 256 colours
    steps = [np.abs(a - b).mean() for a, b in zip(found, found[1:] + found[:1])]
    assert max(steps) < 120 and min(steps) > 0
    facts = toy.facts_of(tmp_path / "way.json")
    assert facts["through"] == [2, 5, 0] and facts["space"] == space and facts["frames"] == 3
    assert sorted(p.suffix for p in tmp_path.iterdir()) == sorted(
        [".gif", ".json", *([".npz", ".json"] if space == "w" else [])]
    )


def test_nothing_is_left_when_drawing_fails(tmp_path):
    def images():
        yield np.zeros((8, 8, 1), "u1")
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        video.save(tmp_path / "x.gif", images(), 10)
    assert not list(tmp_path.iterdir())


def test_frames_are_colour_of_even_sides():
    x = video.frame(np.arange(5 * 7, dtype="u1").reshape(5, 7, 1))
    assert x.shape == (5 * 36, 7 * 36, 3) and x[36, 36, 1] == 8
    assert video.frame(np.zeros((257, 301, 3), "u1")).shape == (258, 302, 3)


def test_mp4(tmp_path):
    imageio_ffmpeg = pytest.importorskip("imageio_ffmpeg")
    images = (np.full((8, 8, 1), 20 * i, "u1") for i in range(6))
    video.save(tmp_path / "x.mp4", images, 12)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "x.mp4"))
    facts = next(reader)
    assert facts["size"] == (256, 256) and facts["fps"] == 12
    levels = [np.frombuffer(f, "u1").mean() for f in reader]
    np.testing.assert_allclose(levels, 20 * np.arange(6), atol=4)


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--video", "x.avi"], "--video must end in .mp4 or .gif"),
        (["--video", "x.mp4"], "pip install 'jaxgen[video]', or name a .gif"),
        (["--video", "x.gif", "--frames", "0"], "--frames must be at least 1"),
        (["--video", "x.gif", "--through", "z"], "--through must look like"),
        (["--video", "x.gif", "--mix", "0,1"], "--mix and --layers make a picture"),
        (["--video", "x.gif", "--workdir", "plain"], "--video needs a generator with styles"),
        (["--video", "x.gif", "--space", "z"], "--space z keeps one class"),
    ],
)
def test_mistakes_are_told_early(run, tmp_path, capsys, monkeypatch, flags, text):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert text in call(capsys, "sample", "--workdir", "toy", *flags, code=2)
    assert not list(tmp_path.iterdir())


def test_one_output(capsys):
    for flags in ([], ["--out", "x.png", "--video", "x.gif"]):
        with pytest.raises(SystemExit):
            main(["sample", "--workdir", "toy", *flags])
        assert "one of --out and --video is needed" in capsys.readouterr().err

"""Facts, pictures, the mirror, and the `jaxgen data` command."""

import os
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from PIL import Image

from jaxgen.cli.data import main
from jaxgen.common import pictures, rng
from jaxgen.data.augmentations import hflip
from jaxgen.data.inspect import contact_sheet, density, facts
from jaxgen.data.source import ArraySource
from jaxgen.data.sources import load

RNG = np.random.default_rng(2)


def test_facts_are_numpys():
    images = RNG.integers(0, 256, (300, 5, 4, 3), dtype=np.uint8)
    labels = RNG.integers(0, 3, 300)
    got, picture = facts(ArraySource(images, labels, name="x", class_names=["a", "b", "c"]))
    np.testing.assert_allclose(got["mean"], (images / 255).mean((0, 1, 2)), atol=1e-5)
    np.testing.assert_allclose(got["std"], (images / 255).std((0, 1, 2)), atol=1e-5)
    assert got["histogram"] == dict(zip("abc", np.bincount(labels).tolist()))
    assert (got["images"], got["shape"], got["labels"]) == (300, (5, 4, 3), "3 class")
    assert picture.dtype == np.uint8 and picture.shape == (3 * 61 + 1, 10 * 49 + 1, 3)
    np.testing.assert_array_equal(picture[1, 1], images[labels == 0][0][0, 0])


@pytest.mark.parametrize("n,c,labels", [(1, 1, None), (250, 4, None), (150, 3, 2.0)])
def test_facts_of_other_kinds(n, c, labels):
    images = RNG.integers(0, 256, (n, 4, 4, c), dtype=np.uint8)
    vectors = None if labels is None else np.full((n, 2), labels)
    got, picture = facts(ArraySource(images, vectors))
    assert got["labels"] == ("none" if labels is None else "2 vector")
    assert labels is None or got["label_mean"] == [2, 2]
    assert picture.ndim == 3 and picture.shape[-1] == min(c, 3)


def test_points_become_a_density():
    got, picture = facts(load("mixture2d:ring?num=2000"))
    assert got["dtype"] == "float32" and picture.shape == (256, 256, 1)
    corner = density(np.array([[1.0, 1.0]]))
    rows, columns = np.nonzero(corner[..., 0] == 0)
    assert len(rows) == 1 and rows[0] < 128 < columns[0]


def test_grid_places_every_image():
    images = RNG.integers(0, 255, (5, 2, 3, 3), dtype=np.uint8)
    sheet = pictures.grid(images, columns=2, scale=2, pad=1)
    assert sheet.shape == (3 * 5 + 1, 2 * 7 + 1, 3)
    for i in range(5):
        top, left = 1 + (i // 2) * 5, 1 + (i % 2) * 7
        tile = sheet[top : top + 4, left : left + 6]
        np.testing.assert_array_equal(tile[::2, ::2], images[i])
        np.testing.assert_array_equal(tile[1::2, 1::2], images[i])
    assert (sheet[11:, 8:] == 255).all() and (sheet[0] == 255).all()
    np.testing.assert_array_equal(contact_sheet(images, 2), pictures.grid(images, 2, scale=21))
    np.testing.assert_array_equal(pictures.grid(images[:4], pad=0, scale=1)[:2, :3], images[0])
    with pytest.raises(ValueError, match="to_uint8 makes them"):
        pictures.grid(images / 255, 2)
    with pytest.raises(ValueError, match="an image and a column"):
        pictures.grid(images[:0], 2)


def test_save_png_is_whole_or_absent(tmp_path, monkeypatch):
    array = RNG.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    path = tmp_path / "deep" / "x.png"
    for a in (array, array[..., :1], array[..., 0]):
        pictures.save_png(a, path)
        np.testing.assert_array_equal(np.asarray(Image.open(path)), a.squeeze())
    monkeypatch.setattr(os, "replace", lambda *a: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        pictures.save_png(array, tmp_path / "y.png")
    assert [p.name for p in tmp_path.iterdir()] == ["deep"]
    assert [p.name for p in path.parent.iterdir()] == ["x.png"]
    with pytest.raises(ValueError, match="a PNG is written from uint8"):
        pictures.save_png(array / 255, path)


def test_hflip():
    x = np.asarray(RNG.normal(size=(400, 3, 4, 2)), np.float32)
    keys = rng.image_keys(jax.random.key(0), 400)
    y = np.asarray(jax.jit(hflip)(keys, x))
    mirrored = (y == x[:, :, ::-1]).all((1, 2, 3))
    assert (mirrored | (y == x).all((1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.5) < 0.1
    np.testing.assert_array_equal(y[37:40], hflip(keys[37:40], x[37:40]))
    assert hflip(keys[:2], x[:2].astype(np.uint8)).dtype == np.uint8


def test_command_inspect(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    assert main(["inspect", "digits", "--split", "test", "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "images     597" in text and "shape      8x8x1" in text and f"wrote {out}" in text
    assert Image.open(out).size == (651, 651)
    assert main(["inspect", "digitz"]) == 2
    assert "error: unknown data set 'digitz'; did you mean digits?" in capsys.readouterr().err


def test_command_prepare(tmp_path, capsys):
    root = tmp_path / "in"
    root.mkdir()
    for i in range(3):
        array = RNG.integers(0, 256, (6 + i, 6, 3), dtype=np.uint8)
        Image.fromarray(array).save(root / f"{i}.png")
    out = tmp_path / "out"
    assert main(["prepare", str(root), "--out", str(out)]) == 2
    assert "error: 2 images" in capsys.readouterr().err and not out.exists()
    (root / "bad.png").write_bytes(b"")
    args = ["prepare", str(root), "--out", str(out), "--size", "8x4", "--skip_bad"]
    assert main([*args, "--name", "three"]) == 0
    text = capsys.readouterr().out
    assert "left out bad.png:" in text and "wrote 3 images of 8x4x3" in text
    assert "2 images were smaller than 8x4" in text and f"use it as tfds_dir:{out}" in text
    assert load(f"tfds_dir:{out}").name == "three"
    assert main(args) == 2
    assert "exists already" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([*args[:4], "--size", "big"])
    assert "expected 64 or 64x96, got 'big'" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["inspect"], ["prepare"]])
def test_help_is_quick_and_has_an_example(command):
    code = "import sys; from jaxgen.cli.data import main; main(sys.argv[1:])"
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *command, "--help"], capture_output=True, text=True
    )
    assert done.returncode == 0 and "example" in done.stdout
    assert len(done.stdout.splitlines()) < 40
    assert time.perf_counter() - begin < 10  # under 2 s on an idle machine

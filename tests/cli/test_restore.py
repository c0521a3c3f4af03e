"""`jaxgen restore`: photos and folders of them, notes, errors, decibels, and DnCNN's own number."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from configs import denoisers
from configs.edm import digits as edm_digits
from jaxgen.__main__ import main
from jaxgen.cli import common, restore
from jaxgen.common import rng, units
from jaxgen.interop import dncnn
from jaxgen.train import snapshot, state
from jaxgen.train.store import Store, write_json

TILES = ("--tile", "32", "--overlap", "16")


def weights(channels, seed=0):
    """Official arrays of a network of 3 layers that changes an image a little."""
    draw, arrays = np.random.default_rng(seed), {}
    for i, (a, b) in enumerate([(channels, 4), (4, 4), (4, channels)]):
        arrays[f"model.{2 * i}.weight"] = draw.normal(0, 0.15, (b, a, 3, 3)).astype("f4")
        arrays[f"model.{2 * i}.bias"] = draw.normal(0, 0.02, b).astype("f4")
    return arrays


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Imported networks by channels: grey and colour."""
    folder = tmp_path_factory.mktemp("runs")
    for c in (1, 3):
        np.savez(folder / f"w{c}_25.npz", **weights(c))
        assert main(["import", str(folder / f"w{c}_25.npz"), "--out", str(folder / str(c))]) == 0
    return {c: folder / str(c) for c in (1, 3)}


def by_network(channels, pixels):
    """uint8 (h, w, c) restored whole, without tiles or files."""
    net = dncnn.load(weights(channels))
    x = units.from_uint8(jnp.asarray(pixels))[None]
    return units.to_uint8(net.module.apply(net.variables, x)[0])


def photo(path, *shape, seed=0, **how):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(seed).integers(0, 256, shape).astype("u1")
    Image.fromarray(array).save(path, **how)
    return array.reshape(*array.shape[:2], -1)


def call(capsys, *args, code=0):
    got = main(["restore", *map(str, args)])
    out = capsys.readouterr()
    assert got == code, out.err
    return out.out + out.err


def pixels_of(path):
    with Image.open(path) as image:
        array = np.asarray(image)
    return array.reshape(*array.shape[:2], -1).astype(int)


def test_a_folder_keeps_names_and_goes_on_after_a_bad_file(runs, tmp_path, capsys):
    """Photos of any size below it come out as the network makes them; one cannot be read."""
    source, out = tmp_path / "in", tmp_path / "out"
    a = photo(source / "a.png", 45, 70)
    b = photo(source / "deep" / "er" / "b.tif", 33, 32, seed=1)
    (source / "deep" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    (source / "notes.txt").write_text("no photo either")
    text = call(capsys, source, "--workdir", runs[1], "--out", out, *TILES, code=1)
    assert "bad.jpg: cannot be read" in text and "error: 1 photos could not be restored" in text
    assert "note: 1 files that are no photos" in text and "2 of 3 photos restored" in text
    files = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert files == ["a.png", "deep/er/b.tif"]
    for name, array in (("a.png", a), ("deep/er/b.tif", b)):
        assert np.abs(pixels_of(out / name) - by_network(1, array)).max() <= 1  # of 255: rounding
    assert np.abs(by_network(1, a).astype(int) - a).max() > 20, "the network does something"


def test_one_photo_to_a_file_or_a_folder(runs, tmp_path, capsys):
    a = photo(tmp_path / "a.png", 33, 40, 3)
    args = [tmp_path / "a.png", "--workdir", runs[3], *TILES, "--out"]
    call(capsys, *args, tmp_path / "b.webp")
    call(capsys, *args, tmp_path / "folder")
    assert np.abs(pixels_of(tmp_path / "folder" / "a.png") - by_network(3, a)).max() <= 1
    with Image.open(tmp_path / "b.webp") as image:
        assert image.format == "WEBP" and image.size == (40, 33)


@pytest.mark.parametrize("orientation", [1, 6])
def test_the_network_sees_photos_upright_and_alpha_is_not_touched(
    runs, tmp_path, capsys, orientation
):
    exif = Image.Exif()
    exif[0x0112] = orientation
    a = photo(tmp_path / "a.png", 34, 47, 4, exif=exif.tobytes())
    call(capsys, tmp_path / "a.png", "--workdir", runs[3], *TILES, "--out", tmp_path / "b.png")
    turn = 0 if orientation == 1 else -1
    want = np.rot90(by_network(3, np.rot90(a[..., :3], turn)), -turn)
    got = pixels_of(tmp_path / "b.png")
    assert np.abs(got[..., :3] - want).max() <= 1
    np.testing.assert_array_equal(got[..., 3], a[..., 3])
    with Image.open(tmp_path / "b.png") as image:
        assert image.getexif()[0x0112] == orientation


def test_colours_through_a_grey_network_and_the_other_way_round(runs, tmp_path, capsys):
    colour = photo(tmp_path / "in" / "c.png", 40, 33, 3)
    grey = photo(tmp_path / "in" / "g.png", 40, 33)
    args = [tmp_path / "in", *TILES, "--out"]
    text = call(capsys, *args, tmp_path / "grey", "--workdir", runs[1])
    assert "note: colours go through the network for grey images one by one (c.png)" in text
    each = [by_network(1, colour[..., i : i + 1]) for i in range(3)]
    got = pixels_of(tmp_path / "grey" / "c.png")
    assert np.abs(got - np.concatenate(each, -1)).max() <= 1
    text = call(capsys, *args, tmp_path / "colour", "--workdir", runs[3])
    assert "note: grey photos go through the network for colours as grey colours (g.png)" in text
    got = pixels_of(tmp_path / "colour" / "g.png")
    net = dncnn.load(weights(3))
    x = jnp.repeat(units.from_uint8(jnp.asarray(grey))[None], 3, -1)
    want = units.to_uint8(net.module.apply(net.variables, x)[0].mean(-1, keepdims=True))
    assert got.shape == (40, 33, 1) and np.abs(got - want).max() <= 1


def test_the_whole_photo_at_once_is_the_same(runs, tmp_path, capsys):
    photo(tmp_path / "a.png", 50, 61)
    args = [tmp_path / "a.png", "--workdir", runs[1], "--out"]
    call(capsys, *args, tmp_path / "whole.png", "--tile", 0)
    call(capsys, *args, tmp_path / "tiles.png", *TILES)
    a, b = pixels_of(tmp_path / "whole.png"), pixels_of(tmp_path / "tiles.png")
    assert np.abs(a - b).max() <= 1


def decibels(a, b):
    return 20 * np.log10(255) - 10 * np.log10(np.mean((a.astype(float) - b) ** 2))


def test_decibels_against_clean_photos(runs, tmp_path, capsys):
    """The mean of single photos' PSNR, of photos of two sizes, on what was written."""
    clean, noisy = tmp_path / "clean", tmp_path / "noisy"
    shapes = {"a.png": (40, 50), "x/b.png": (33, 32)}
    values = {"psnr": [], "psnr_input": []}
    for i, (name, shape) in enumerate(shapes.items()):
        photo(clean / name, *shape, seed=i)
        photo(noisy / name, *shape, seed=i + 7)
    args = [noisy, "--workdir", runs[1], "--out", tmp_path / "out", *TILES]
    text = call(capsys, *args, "--reference", clean)
    for name in shapes:
        values["psnr"].append(decibels(pixels_of(tmp_path / "out" / name), pixels_of(clean / name)))
        values["psnr_input"].append(decibels(pixels_of(noisy / name), pixels_of(clean / name)))
    before, after = np.mean(values["psnr_input"]), np.mean(values["psnr"])
    assert f"mean of 2: {before:.2f} -> {after:.2f} dB" in text
    (clean / "a.png").unlink()
    photo(clean / "x" / "b.png", 33, 33)
    text = call(capsys, *args, "--reference", clean, code=1)
    assert "there is no photo" in text and "(33, 33, 1), and the photo is (33, 32, 1)" in text


def test_noise_is_that_of_the_operator_and_of_the_name(runs, tmp_path, capsys):
    """Unclipped and unrounded, and another for another name or seed."""
    a = photo(tmp_path / "a.png", 30, 20)
    noise = restore.Noise("gaussian,sigma=25,seed=3")
    got = noise("a.png", a)
    key = rng.fold(jax.random.key(3), "noise", "a.png")[None]
    want = noise.corruption.corrupt(key, units.from_uint8(jnp.asarray(a))[None])[0]
    np.testing.assert_array_equal(got, want)
    assert got.max() > 1 and got.min() < -1
    assert np.abs(got - noise("b.png", a)).mean() > 0.1
    assert np.abs(got - restore.Noise("gaussian,sigma=25")("a.png", a)).mean() > 0.1
    args = [tmp_path / "a.png", "--workdir", runs[1], "--out", tmp_path / "b.png", *TILES]
    text = call(capsys, *args, "--add_noise", "gaussian,sigma=25,seed=3")
    noisy = units.to_uint8(got)
    assert (
        f"a.png: {decibels(noisy, a):.2f} -> {decibels(pixels_of(tmp_path / 'b.png'), a):.2f}"
        in (text)
    )


def test_an_input_is_never_overwritten(runs, tmp_path, capsys):
    source = tmp_path / "in"
    photo(source / "a.png", 32, 32)
    before = (source / "a.png").read_bytes()
    args = ["--workdir", runs[1], *TILES, "--out"]
    text = call(capsys, source, *args, source / "restored", code=2)
    assert "lies in" in text and "name another" in text
    for out in (source, source / "a.png"):
        text = call(capsys, source / "a.png", *args, out, code=2)
        assert "is a photo that is read, and is not overwritten" in text
    (tmp_path / "link").mkdir()
    os.link(source / "a.png", tmp_path / "link" / "a.png")
    text = call(capsys, source, *args, tmp_path / "link", code=2)
    assert "is not overwritten" in text
    assert (source / "a.png").read_bytes() == before


REFUSED = {
    "nothing there": (["no.png"], "there is no photo or folder"),
    "no photo": (["text.txt"], "photos are .png, .jpg, .jpeg, .webp, .tif, .tiff, got '.txt'"),
    "an empty folder": (["empty"], "no photos (.png, .jpg, .jpeg, .webp, .tif, .tiff) in"),
    "a level": (["a.png", "--sigma", "25"], "does not use the noise level; leave it out"),
    "twice a reference": (
        ["a.png", "--add_noise", "gaussian", "--reference", "x"],
        "compares with the photos before the noise",
    ),
    "a noise": (["a.png", "--add_noise", "gausian"], "unknown operator 'gausian'"),
    "a setting": (["a.png", "--add_noise", "gaussian,sigma"], "--add_noise is NAME,KEY=VALUE"),
    "an overlap": (["a.png", "--overlap", "200"], "--overlap 0 to half of it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(runs, tmp_path, capsys, case):
    (source, *flags), match = REFUSED[case]
    photo(tmp_path / "a.png", 32, 32)
    (tmp_path / "text.txt").write_text("x")
    (tmp_path / "empty").mkdir()
    out = tmp_path / "out"
    text = call(capsys, tmp_path / source, "--workdir", runs[1], "--out", out, *flags, code=2)
    assert match in text and not out.exists()


@pytest.fixture(scope="module")
def informed(tmp_path_factory):
    """A run whose method reads the noise level: a small blind-spot network, not trained."""
    folder = tmp_path_factory.mktemp("informed")
    config = denoisers.base("digits", "blindspot")
    config.model = {"network": "blindspot", "features": (2, 3), "depth": 1}
    config.averages.power = ()
    config.average = "ema"
    facts = {"name": "x", "shape": (8, 8, 1), "label_kind": "none", "label_dim": 0, "length": 9}
    write_json(folder / "config.json", {"config": config.to_dict(), "facts": facts, "command": {}})
    run = common.Run.open(folder)
    params = {n: p.init(jax.random.key(0)) for n, p in run.plan.players.items()}
    end = state.TrainState(None, {}, {}, {}, {"ema": params}, {})
    with Store(folder / "snapshots") as store:
        snapshot.save(store, run.plan, end, 0, "float32", {})
    return folder


def test_a_level_is_wanted_and_used(informed, tmp_path, capsys):
    a = photo(tmp_path / "a.png", 16, 16)
    flags = ["--workdir", informed, "--tile", 0, "--out", tmp_path / "b.png"]
    text = call(capsys, tmp_path / "a.png", *flags, code=2)
    assert "needs the noise level of each image, (b,) (--sigma)" in text
    run = common.Run.open(informed)
    restore_fn = run.plan.exports["restore"].fn(run.average(None).params, {})
    found = {}
    for sigma in (10.0, 50.0):
        call(capsys, tmp_path / "a.png", *flags, "--sigma", sigma)
        found[sigma] = pixels_of(tmp_path / "b.png")
        x = units.from_uint8(jnp.asarray(a))[None]
        want = units.to_uint8(jax.jit(restore_fn)(x, jnp.full((1,), sigma))[0])
        assert np.abs(found[sigma] - want).max() <= 1
    assert np.abs(found[10.0] - found[50.0]).max() > 2


def test_a_run_that_restores_nothing(informed, tmp_path, capsys):
    photo(tmp_path / "a.png", 16, 16)
    saved = common.read_saved(informed)
    config = edm_digits.get_config("debug").to_dict()
    facts = {**saved["facts"], "class_names": None}
    write_json(tmp_path / "run" / "config.json", {"config": config, "facts": facts, "command": {}})
    flags = ["--workdir", tmp_path / "run", "--out", tmp_path / "b.png"]
    text = call(capsys, tmp_path / "a.png", *flags, code=2)
    assert "recipe 'edm' restores no photos" in text


@pytest.mark.slow
def test_the_published_network_has_the_published_decibels(tmp_path, capsys):
    """DnCNN-S, sigma 25, Set12: 30.43 dB by others' code with another stream of noise."""
    folder = os.environ.get("JAXGEN_DATA")
    if not folder or not (Path(folder) / "denoise_gray" / "dncnn_sigma25.npz").is_file():
        pytest.skip("JAXGEN_DATA has no denoise_gray: no published weights to check")
    data = Path(folder) / "denoise_gray"
    assert main(["import", str(data / "dncnn_sigma25.npz"), "--out", str(tmp_path / "run")]) == 0
    flags = ["--workdir", tmp_path / "run", "--out", tmp_path / "out"]
    text = call(capsys, data / "set12", *flags, "--add_noise", "gaussian,sigma=25")
    mean = float(text.partition("mean of 12:")[2].partition("->")[2].split()[0])
    assert abs(mean - 30.43) <= 0.03

"""DnCNN's published form: names and layouts, there and back; an imported run; refusals."""

import itertools
import json

import numpy as np
import pytest

from configs import denoisers
from jaxgen.__main__ import main
from jaxgen.cli import common
from jaxgen.common import trees
from jaxgen.interop import dncnn, families


def draw(depth=3, features=4, channels=1, prefix="", seed=0):
    """Official arrays of a small network."""
    rng, arrays = np.random.default_rng(seed), {}
    widths = [channels, *[features] * (depth - 1), channels]
    for i, (a, b) in enumerate(itertools.pairwise(widths)):
        arrays[f"{prefix}model.{2 * i}.weight"] = rng.normal(0, 0.2, (b, a, 3, 3)).astype("f4")
        arrays[f"{prefix}model.{2 * i}.bias"] = rng.normal(0, 0.1, b).astype("f4")
    return arrays


def by_hand(arrays, x):
    """x - net(x) of one image (c, h, w) in [0, 1], in float64 with the official layout."""
    h = x
    layers = sorted({int(n.split(".")[1]) for n in arrays})
    for i in layers:
        w, b = (arrays[f"model.{i}.{n}"].astype(np.float64) for n in ("weight", "bias"))
        padded = np.pad(h, ((0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
        h = np.einsum("cyxij,ocij->oyx", windows, w) + b[:, None, None]
        h = np.maximum(h, 0) if i < layers[-1] else h
    return x - h


def test_the_official_network_in_its_own_units():
    arrays = draw(channels=3)
    x = np.random.default_rng(1).uniform(size=(3, 8, 6))
    found = dncnn.load(arrays)
    assert (found.module.depth, found.module.features, found.channels) == (3, 4, 3)
    ours = np.float32(2 * x.transpose(1, 2, 0)[None] - 1)
    got = np.asarray(found.module.apply(found.variables, ours))[0]
    np.testing.assert_allclose((got + 1) / 2, by_hand(arrays, x).transpose(1, 2, 0), atol=1e-5)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_there_and_back(prefix):
    arrays = draw(5, 3, prefix=prefix)
    back = dncnn.dump(dncnn.load(arrays))
    assert back.keys() == arrays.keys()
    for name, x in arrays.items():
        np.testing.assert_array_equal(back[name], x, err_msg=name)


def test_the_family_is_told_by_its_names():
    assert families.looks_like(draw()) == "dncnn"


def without(name):
    return {n: x for n, x in draw().items() if n != name}


BROKEN = {
    "other names": ({"body.weight": np.zeros(3)}, "expected model.0.weight of shape"),
    "a hole": (without("model.2.bias"), "missing: model.2.bias"),
    "a shape": (
        draw() | {"model.4.weight": np.zeros((2, 4, 3, 3))},
        r"shape of model.4.weight: expected \(1, 4, 3, 3\), got \(2, 4, 3, 3\)",
    ),
    "a normalisation": (
        draw() | {"model.5.weight": np.zeros(4)},
        "the last layer is model.5, .* merge the normalisation first",
    ),
    "no number": (draw() | {"model.0.bias": np.full(4, np.nan)}, "NaN or infinity in model.0.bias"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_arrays_of_no_such_network(case):
    arrays, match = BROKEN[case]
    with pytest.raises(ValueError, match=match):
        dncnn.load(arrays)


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dncnn")
    np.savez(folder / "dncnn_sigma25.npz", **draw())
    assert main(["import", str(folder / "dncnn_sigma25.npz"), "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_an_import_is_a_run_with_these_weights(imported):
    run = common.Run.open(imported)
    assert run.config.recipe == "denoise" and run.config.noise.sigma == 25.0
    found = run.average(None, players=("restorer",)).params["restorer"]
    want = dncnn.load(draw()).variables["params"]
    for (name, a), b in zip(trees.leaves(want).items(), trees.leaves(found).values(), strict=True):
        np.testing.assert_array_equal(a, b, err_msg=name)


def test_an_import_has_the_keys_of_every_denoiser(imported):
    """All that a config has, but for the arguments of the network."""
    saved = common.flatten(common.read_saved(imported)["config"])
    other = common.flatten(denoisers.base("digits"))
    of_model = lambda name: name.startswith("model.") and name != "model.network"
    assert {n for n in saved if not of_model(n)} == {n for n in other if not of_model(n)}


def test_an_import_without_data_has_nothing_to_be_scored_on(imported, capsys):
    assert main(["evaluate", "--workdir", str(imported)]) == 2
    assert "was imported without data, which it samples from; import it" in capsys.readouterr().err


def test_an_import_is_scored_on_data_of_any_size(tmp_path, capsys):
    np.savez(tmp_path / "x_25.npz", **draw())
    data = np.random.default_rng(0).integers(0, 256, (20, 8, 12, 1)).astype("u1")
    np.savez(tmp_path / "data.npz", image=data)
    flags = ["--data", f"npz:{tmp_path / 'data.npz'}", "--out", str(tmp_path / "run")]
    assert main(["import", str(tmp_path / "x_25.npz"), *flags]) == 0
    assert common.Run.open(tmp_path / "run").facts["shape"] == (8, 12, 1)
    capsys.readouterr()
    assert main(["evaluate", "--workdir", str(tmp_path / "run"), "--num", "8"]) == 0
    assert "psnr_input" in capsys.readouterr().out


REFUSED = {
    "no level": ("weights.npz", [], "neither name nor file tells the noise level"),
    "keywords": ("x_25.npz", ["--init", '{"depth": 3}'], "of a DnCNN is"),
    "a length": ("x_25.npz", ["--length", "0.1"], "there are no averages of it"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_imports(tmp_path, capsys, case):
    name, flags, match = REFUSED[case]
    np.savez(tmp_path / name, **draw())
    code = main(["import", str(tmp_path / name), "--out", str(tmp_path / "run"), *flags])
    assert code == 2 and match in capsys.readouterr().err


def test_data_with_other_channels(tmp_path, capsys):
    np.savez(tmp_path / "x_25.npz", **draw(channels=3))
    flags = ["--data", "digits", "--out", str(tmp_path / "run")]
    assert main(["import", str(tmp_path / "x_25.npz"), *flags]) == 2
    assert "has images (8, 8, 1), the network makes (8, 8, 3)" in capsys.readouterr().err


def test_a_blind_network_has_a_range(tmp_path):
    np.savez(tmp_path / "x.npz", **draw())
    init = json.dumps({"sigma": [0, 55]})
    flags = ["--init", init, "--out", str(tmp_path / "run")]
    assert main(["import", str(tmp_path / "x.npz"), *flags]) == 0
    assert common.Run.open(tmp_path / "run").config.noise.sigma == (0.0, 55.0)

"""`jaxgen invert` with a Gaussian of the digits as its score network; mistakes are explained."""

import json
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxgen.__main__ import main
from jaxgen.cli import common, values
from jaxgen.common import pictures
from jaxgen.data import sources
from jaxgen.metrics.psnr import psnr_8bit
from jaxgen.noise import precondition
from jaxgen.recipes import score


def gaussian(params):
    """The denoiser of N(mean, cov) of images of 64 pixels."""

    def denoise(x, sigma, cond=None):
        values, axes, mean = (params[n] for n in ("values", "axes", "mean"))
        along = (x.reshape(len(x), -1) - mean) @ axes
        return (along * values / (values + sigma[:, None] ** 2) @ axes.T + mean).reshape(x.shape)

    return denoise


@pytest.fixture(scope="module")
def runs(tmp_path_factory, request):
    """A folder of pictures; `Run.open` gives a run whose network is `gaussian` of the digits."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(request.config.rootpath)
        folder = tmp_path_factory.mktemp("runs")
        config = common.load_config("configs/edm2/digits.py:debug", ())
        train, test = (sources.load("digits", split) for split in ("train", "test"))
        facts = common.source_facts(test, config)
        shape, family = facts["shape"], precondition.EDM()
        plan = types.SimpleNamespace(
            **score.sampling(config, facts, shape, gaussian, family), frozen={}
        )
        flat = train.arrays[0].reshape(len(train), -1) / 127.5 - 1
        values, axes = np.linalg.eigh(np.cov(flat.T) + 1e-4 * np.eye(64))
        params = {"values": values, "axes": axes, "mean": flat.mean(0)}
        params = {"network": {n: jnp.asarray(v, jnp.float32) for n, v in params.items()}}
        average = types.SimpleNamespace(params=params, facts={"average": "a Gaussian"})
        patch.setattr(common.Run, "average", lambda self, average_, nimg=None: average)

        def open_run(workdir, verify=True):
            if "latent" in workdir:
                config.data.latents = True
            run = common.Run(folder, config.copy_and_resolve_references(), facts, plan, mesh)
            config.data.latents = latents
            return run

        latents, mesh = config.data.latents, common.make_mesh(config)
        patch.setattr(common.Run, "open", open_run)
        for i, name in enumerate("ab"):
            pictures.save_png(test[i]["image"], folder / f"{name}.png")
        pictures.save_png(np.full((4, 4, 1), 200, np.uint8), folder / "small.png")
        yield folder


def call(runs, capsys, *args, code=0):
    out = runs / "out.npz"
    given = ["invert", "--workdir", "main", "--num", 6, "--option", "steps=24", "--out", out, *args]
    got = main([str(a).format(runs=runs) for a in given])
    text = capsys.readouterr()
    assert got == code, text.err
    if code:
        return text.err
    return dict(np.load(out)), json.loads(out.with_suffix(".json").read_text()), text.out


SMALLER = ("--operator", "downsample,factor=2", "--steer", "tweedie")


def test_samples_agree_with_the_measurement_and_it_is_written_down(runs, capsys):
    found, facts, text = call(runs, capsys, *SMALLER)
    held_out = sources.load("digits", "test")
    want = np.stack([held_out[i]["image"] for i in range(6)])
    np.testing.assert_array_equal(found["target"], want)
    np.testing.assert_array_equal(found["label"], [held_out[i]["label"] for i in range(6)])
    blocks = lambda x: x.astype(float).reshape(6, 4, 2, 4, 2).mean((2, 4))
    np.testing.assert_allclose(blocks(found["input"]), blocks(want), atol=0.6)
    off = np.abs(blocks(found["image"]) - blocks(want)).mean()
    assert off < 8 and np.abs(blocks(found["input"]) - blocks(want)[::-1]).mean() > 5 * off
    assert facts["operator"] == {"name": "downsample", "sigma": 0.0, "factor": 2, "kernel": "box"}
    assert facts["steer"] == ["tweedie", {}] and facts["measured"] == "test split"
    np.testing.assert_allclose(facts["psnr"], psnr_8bit(found["image"], want).mean(), atol=0.05)
    assert facts["psnr"] > 12 and f"PSNR {facts['psnr']:.2f} dB" in text
    part, _, _ = call(runs, capsys, *SMALLER, "--num", 3, "--batch", 8)
    assert np.abs(part["image"].astype(int) - found["image"][:3]).max() <= 1


def test_pictures_from_files_are_measured_in_turn(runs, capsys):
    args = ["--measure", "{runs}/a.png", "{runs}/b.png", "--classes", "3"]
    found, facts, _ = call(runs, capsys, "--operator", "mask,box=0.5,sigma=0.1", *args)
    np.testing.assert_array_equal(found["target"][0, ..., 0], Image.open(runs / "a.png"))
    np.testing.assert_array_equal(found["target"][1], found["target"][5])
    np.testing.assert_array_equal(found["input"][0], found["input"][2])  # one measurement of each
    assert np.abs(found["image"][0].astype(int) - found["image"][2]).max() > 1  # many samples
    assert (found["label"] == 3).all() and facts["measured"] == [
        str(runs / f"{n}.png") for n in "ab"
    ]


def test_a_picture_may_be_a_measurement(runs, capsys):
    given = ["--measured", "{runs}/small.png", "--classes", "3", "--steer", "dps,zeta=3"]
    found, facts, text = call(runs, capsys, *SMALLER[:2], *given)
    assert "target" not in found and "psnr" not in facts and "PSNR" not in text
    assert (found["input"] == 200).all() and facts["steer"] == ["dps", {"zeta": 3}]


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["--operator", "text"], "'text' is no linear operator, which a measurement needs; there"),
        (["--operator", "blurr"], "unknown operator 'blurr' (did you mean 'blur'?)"),
        (["--operator", "blur,std"], "--operator is NAME,KEY=VALUE,KEY=VALUE, got 'std' in 'blur,"),
        (["--operator", "blur,sigma=x"], "sigma is the standard deviation of the measurement"),
        ([*SMALLER, "--steer", "best"], "unknown steering 'best'; known are dps, pigdm, tweedie"),
        ([*SMALLER, "--steer", "pigdm,gain=2"], "got an unexpected keyword argument 'gain'"),
        ([*SMALLER, "--steer", "dps"], "dps divides by sigma^2 of the operator, which is 0"),
        (["--operator", "downsample,factor=3"], "by 3 needs sides that it divides, got 8 x 8"),
        ([*SMALLER, "--measure", "{runs}/small.png"], "has 4x4 pixels of mode L, 8x8 of mode L"),
        ([*SMALLER, "--measured", "{runs}/a.png"], "has 8x8 pixels of mode L, 4x4 of mode L are"),
        (["--operator", "kspace", "--measured", "{runs}/a.png"], "measurements of shape (8, 8, 2)"),
        ([*SMALLER, "--measure", "{runs}/a.png"], "has 10 classes and those of the pictures are"),
        ([*SMALLER, "--measure", "x", "--measured", "y"], "(--measure) or measurements (--measu"),
        ([*SMALLER, "--workdir", "latent"], "is no score network of pictures"),
        ([*SMALLER, "--out", "x.jpg"], "--out must end in .png or .npz"),
    ],
)
def test_mistakes_are_explained(runs, capsys, args, text):
    assert text in call(runs, capsys, *args, code=2)


def test_settings_are_numbers_or_words():
    found = values.parse_named("--operator", "downsample,factor=2,kernel=box,sigma=1e-2")
    assert found == ("downsample", {"factor": 2, "kernel": "box", "sigma": 0.01})
    assert isinstance(found[1]["factor"], int)

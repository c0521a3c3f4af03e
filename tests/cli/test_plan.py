"""`jaxgen plan`: published data that are not here, machines that are not here, refusals."""

import json

import pytest

from jaxgen import __main__
from jaxgen.cli import plan

SMALL = ["--config", "configs/edm2/imagenet512.py:debug"]


def run(*flags):
    return plan.main([*SMALL, *flags])


def test_a_published_set_on_a_machine_that_is_not_here(tmp_path, capsys):
    path = tmp_path / "plan.json"
    assert run("--topology", "h200:8", "--json", str(path), "--config.mesh.fsdp=2") == 0
    text = capsys.readouterr().out
    assert "64x64x8 float32, 1000 class labels (as published, not opened)" in text
    assert "h200:8 = 8 chips (data 4 x fsdp 2 x tensor 1)" in text
    for word in ("memory of a chip", "activations", "fits", "all-gather over fsdp", "MFU",
                 "with --config.model.remat=true: activations",
                 "chip-hours", "assumed: products reach"):  # fmt: skip
        assert word in text, word
    found = json.loads(path.read_text())
    assert found["config"]["dtype"] == "bfloat16"  # auto, as on that machine
    assert found["estimate"]["flops"]["bfloat16"] > 0
    assert found["estimate"]["need"] == sum(found["estimate"]["memory"].values())


def test_a_search_on_slices_gives_flags(capsys):
    assert run("--topology", "v5e:2x2", "--slices", "2", "--search") == 0
    text = capsys.readouterr().out
    assert "v5e:2x2 x 2 slices = 8 chips" in text and "over the network" in text
    assert "search: these fit, the quickest first" in text and "--config.mesh.fsdp=2" in text


def test_facts_from_flags_and_from_a_source_that_is_here(capsys):
    given = ["--shape", "16x16x8", "--labels", "7", "--topology", "v6e:2x2"]
    assert run(*given) == 0
    assert "16x16x8 float32, 7 class labels (as given by flags)" in capsys.readouterr().out
    digits = ["--config", "configs/noise2noise/digits.py:debug", "--no_measure"]
    assert plan.main([*digits, "--topology", "here"]) == 0
    text = capsys.readouterr().out
    assert "digits: 8x8x1 uint8" in text and "(opened)" in text and "on cpu:" in text


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--topology", "v5p:8x8"], "3 sides"),
        (["--topology", "h200:8", "--shape", "64x64"], "HEIGHTxWIDTHxCHANNELS"),
        (["--topology", "h200:8", "--labels", "3"], "--labels goes with --shape"),
        (["--topology", "h200:64"], "config.batch must be a multiple"),
        (["--topology", "v5e:2x2", "--slices", "2", "--config.mesh.fsdp=8"], "mesh.data must be"),
        (["--topology", "h200:8", "--config.data.source=folder:nowhere"], "say it with --shape"),
    ],
)
def test_refusals(flags, words, capsys):
    assert __main__.main(["plan", *SMALL, *flags]) == 2
    assert words in capsys.readouterr().err

"""`jaxgen evaluate` on metrics of latents, with the toy whose images show its styles."""

import jax
import numpy as np
import pytest
import toy_styles as toy

from jaxgen.__main__ import main
from jaxgen.cli import common, styles
from jaxgen.data.source import ArraySource
from jaxgen.metrics import evaluate, perceptual_path


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


def test_path_lengths_of_the_toy(run, tmp_path, capsys):
    names = ["ppl_w_end", "ppl_z_full_crop"]
    score = ["evaluate", "--workdir", "toy", "--metrics", ",".join(names), "--num", 40]
    text = call(capsys, *score, "--seed", 3, "--features", "pixels")
    (path,) = (tmp_path / "evaluations").glob("*.json")
    found = toy.facts_of(path)
    assert set(found["scores"]) == {"ppl_w_end@pixels", "ppl_z_full_crop@pixels"}
    assert "num_real" not in found and found["feature_net"]["name"] == "pixels"
    assert "ppl_w_end@pixels" in text

    g, rows = toy.generator(toy.PARAMS, {}), styles.rows_of(run, range(40), 3)
    flat = lambda x: x.reshape(len(x), -1)
    given = g.latents, g.mapping, g.synthesis, flat, styles.cond_of(rows)

    @jax.jit
    def direct(keys):
        return {n: perceptual_path.lengths(keys, *given, **evaluate.PATHS[n]) for n in names}

    for n, x in direct(rows["key"]).items():
        want = perceptual_path.mean(x)
        assert found["scores"][f"{n}@pixels"] == pytest.approx(want, rel=0.02)


def test_separability_of_the_toy(run, tmp_path, capsys):
    score = ["evaluate", "--workdir", "toy", "--metrics", "separability", "--num", 40]
    call(capsys, *score)
    (path,) = (tmp_path / "evaluations").glob("*.json")
    found = toy.facts_of(path)["scores"]
    assert set(found) == {f"separability_{s}@digits-classifier" for s in "zw"}
    assert all(1 <= x <= 10 for x in found.values())


def test_equivariance_is_of_whole_batches(run, tmp_path, capsys, monkeypatch):
    """Styles come as a batch of the mesh; the compiled synthesis is given each transform."""
    seen = []

    def measure(synthesis, ways, seed):
        for ws in ways:
            seen.append(ws)
            assert synthesis(ws, 2.0 * np.eye(3)).shape == (8, 8, 8, 1)
        return {"eq_t": float(synthesis(ws, np.eye(3)).sum()), "eq_t_frac": 2.0, "eq_r": seed}

    monkeypatch.setattr("jaxgen.metrics.equivariance.measure", measure)
    score = ["evaluate", "--workdir", "toy", "--metrics", "eq_r,eq_t", "--num", 9, "--seed", 5]
    call(capsys, *score)
    (path,) = (tmp_path / "evaluations").glob("*.json")
    found = toy.facts_of(path)
    assert set(found["scores"]) == {"eq_t", "eq_r"} and found["scores"]["eq_r"] == 5
    assert "feature_net" not in found and [len(ws) for ws in seen] == [8, 8]
    g, rows = toy.generator(toy.PARAMS, {}), styles.rows_of(run, range(8, 16), 5)
    w = jax.jit(lambda k: g.mapping(g.latents(k), styles.cond_of(rows)))(rows["key"])
    np.testing.assert_allclose(seen[1], w, atol=1e-5)


def test_an_input_that_cannot_be_moved(run, capsys, monkeypatch):
    monkeypatch.setattr(toy, "MOVED", False)
    run.config.generator = {"network": "stylegan2"}
    score = ["evaluate", "--workdir", "toy", "--metrics", "eq_t", "--num", 4]
    text = call(capsys, *score, code=2)
    assert "whose input can be moved (stylegan3)" in text and "is 'stylegan2'" in text


@pytest.mark.parametrize(
    "flags, text",
    [
        (["--metrics", "ppl_w_ful"], "did you mean 'ppl_w_full'"),
        (["--metrics", "separability", "--workdir", "plain"], "needs a generator with styles"),
        (["--metrics", "ppl_w_end", "--option", "psi=0.5"], "without truncation; leave --option"),
        (["--metrics", "separability", "--features", "pixels"], "pixels is no classifier"),
    ],
)
def test_mistakes_are_told_early(run, tmp_path, capsys, flags, text):
    assert text in call(capsys, "evaluate", "--workdir", "toy", "--num", 8, *flags, code=2)
    assert not list(tmp_path.iterdir())


def test_a_sweep_of_truncation_is_the_command_repeated(run, tmp_path, capsys, monkeypatch):
    """Precision and recall over psi: each value has its own file."""
    images = np.random.default_rng(0).integers(0, 256, (20, 8, 8, 1), np.uint8)
    real = ArraySource(images, name="digits")
    monkeypatch.setattr(common, "load_source", lambda spec, split: real)
    score = ["evaluate", "--workdir", "toy", "--metrics", "precision_recall", "--num", 12]
    for psi in (0.25, 1.0):
        call(capsys, *score, "--option", f"psi={psi}")
    found = {p.name: toy.facts_of(p) for p in (tmp_path / "evaluations").iterdir()}
    assert sorted(found) == ["toy@0-12-seed0-psi=0.25.json", "toy@0-12-seed0-psi=1.0.json"]
    for name, facts in found.items():
        assert facts["options"]["psi"] == float(name.partition("=")[2].removesuffix(".json"))
        assert {"precision@digits-classifier", "recall@digits-classifier"} <= facts["scores"].keys()


def test_features_alone_do_not_make_a_path_length():
    with pytest.raises(ValueError, match=r"\['ppl_w_end'\] are of generators"):
        evaluate.compare(np.eye(3), np.eye(3), ["ppl_w_end"], net_name="x")

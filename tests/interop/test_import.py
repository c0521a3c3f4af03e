"""`jaxgen import`: published weights are a run that is sampled and averaged like any other."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen.__main__ import main
from jaxgen.averaging import posthoc
from jaxgen.cli import common
from jaxgen.common import trees
from jaxgen.interop import edm, edm2
from jaxgen.train.store import Store

TIMES, LENGTHS = (1000, 2000, 3000), (0.05, 0.1)


def beside(name):
    """A test file of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


tiny = beside("test_edm2")


def call(capsys, *args, code=0):
    got = main(list(map(str, args)))
    out = capsys.readouterr()
    assert got == code, out.err
    return out.out + out.err


def save(path, arrays, init=tiny.INIT):
    np.savez(path, **arrays, **({"init": json.dumps(init)} if init else {}))
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Six files of a run: two lengths at three times."""
    folder = tmp_path_factory.mktemp("published")
    return {
        (t, s): save(folder / f"net-{t:07d}-{s:.3f}.npz", tiny.draw(i, "unet."))
        for i, (t, s) in enumerate((t, s) for t in TIMES for s in LENGTHS)
    }


@pytest.fixture(scope="module")
def imported(published, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "imported"
    files = [str(p) for p in published.values()]
    assert main(["import", *files[::-1], "--out", str(out)]) == 0
    return out


def arrays_of(params, player):
    leaves = trees.leaves(params[player])
    prefix = "unet." if player == "network" else "logvar_"
    return {n: leaves[ours] for ours, n in edm2.official_names(leaves, prefix).items()}


def test_a_golden_network_is_sampled(goldens, tmp_path, capsys):
    z = np.load(goldens / "diffusion/edm2_train.npz")
    arrays = {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith(("param/", "buffer/"))}
    init = {
        "img_resolution": 8,
        "img_channels": 3,
        "label_dim": 4,
        "model_channels": 16,
        "channel_mult": [1, 2],
        "num_blocks": 1,
        "attn_resolutions": [4],
        "channels_per_head": 16,
        "logvar_channels": 32,
    }
    text = call(capsys, "import", save(tmp_path / "a.npz", arrays, init), "--out", tmp_path / "run")
    assert "1 averages of a network for recipe 'edm2'" in text
    draw = ["sample", "--workdir", tmp_path / "run", "--num", 4, "--option", "steps=2"]
    draw += ["--option", "solver=euler"]
    text = call(capsys, *draw, "--out", tmp_path / "x.npz")
    assert "average: ema at 0 images (tracked)" in text
    assert np.load(tmp_path / "x.npz")["image"].shape == (4, 8, 8, 3)
    run = common.Run.open(tmp_path / "run")
    params, published = run.average(None).params, edm2.load(arrays, **init)
    x, cond = jax.random.normal(jax.random.key(0), (2, 8, 8, 3)), {"label": jnp.eye(4)[:2]}

    @jax.jit
    def both(params):
        denoise = run.plan.exports["denoise"].fn(params, {})
        return denoise(x, jnp.full((2,), 0.5), cond), published(x, 0.5, cond["label"])

    got, want = both(params)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_set_keeps_every_snapshot(imported, published):
    with Store(imported / "snapshots") as store:
        assert store.numbers() == [t * 1000 for t in TIMES]
        assert store.meta(1_000_000)["sigma_rel"] == {f"power_{s:.3f}": s for s in LENGTHS}
    run = common.Run.open(imported)
    for (t, s), path in published.items():
        params = run.average(s, t * 1000, ("network", "uncertainty")).params
        for player in params:
            for name, x in arrays_of(params, player).items():
                with np.load(path) as z:
                    want = edm2.common.to_ours(z[name])
                np.testing.assert_array_equal(x, want, err_msg=name)


def test_other_lengths_are_rebuilt(imported, published, tmp_path, capsys):
    """The coefficients of post-hoc EMA on the files' numbers; fixed frequencies are copied."""
    args = ["--lengths", "0.07", "--out", tmp_path / "o"]
    text = call(capsys, "average", "--workdir", imported, *args)
    assert "post-hoc from 3 snapshots" in text
    found = common.Run.open(imported).average(0.07)
    keys = [(t * 1000, s) for t, s in published]
    x = posthoc.solve([t for t, _ in keys], [s for _, s in keys], 3_000_000, 0.07).coefficients
    for name, got in arrays_of(found.params, "network").items():
        parts = [edm2.common.to_ours(np.load(p)[name]) for p in published.values()]
        want = parts[-1] if "fourier" in name else sum(c * w for c, w in zip(x, parts, strict=True))
        np.testing.assert_allclose(got, want, atol=1e-5, err_msg=name)


def test_safetensors_with_keywords_apart(tmp_path, capsys):
    arrays = tiny.draw()
    body = b"".join(x.tobytes() for x in arrays.values())
    header, at = {}, 0
    for name, x in arrays.items():
        header[name] = {"dtype": "F32", "shape": x.shape, "data_offsets": [at, at + x.nbytes]}
        at += x.nbytes
    text = json.dumps(header).encode()
    path = tmp_path / "x.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    (tmp_path / "init.json").write_text(json.dumps(tiny.INIT))
    flags = ["--init", tmp_path / "init.json", "--nimg", "5M", "--length", "0.08"]
    call(capsys, "import", path, "--out", tmp_path / "run", *flags)
    saved = common.read_saved(tmp_path / "run")
    assert saved["config"]["averages"]["power"] == (0.08,)
    assert saved["facts"]["shape"] == (4, 4, 2) and saved["facts"]["label_dim"] == 3
    assert saved["command"]["import"] == ("x.safetensors",)
    average = common.Run.open(tmp_path / "run").average(None)
    assert str(average) == "power_0.080 at 5000000 images (tracked)"


SONG = {
    "model_type": "SongUNet",
    "img_resolution": 16,
    "img_channels": 3,
    "label_dim": 4,
    "augment_dim": 9,
    "model_channels": 16,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [8],
    "dropout": 0.0,
}
NCSNPP = {"embedding_type": "fourier", "encoder_type": "residual", "channel_mult_noise": 2}
ADM = {"model_type": "DhariwalUNet", "model_channels": 32, "channel_mult_emb": 3}
EDM = {
    "ddpmpp": ("vp", SONG),
    "ncsnpp": ("ve", {**SONG, **NCSNPP, "resample_filter": [1, 3, 3, 1]}),
    "adm": ("iddpm", {**SONG, **ADM}),
}


@pytest.mark.parametrize(
    "network", ["ncsnpp", *(pytest.param(n, marks=pytest.mark.slow) for n in ("adm", "ddpmpp"))]
)
def test_networks_of_edm_have_one_average(goldens, tmp_path, capsys, network):
    """The recipe that is written down makes the same network, level coefficients and names."""
    precond, init = EDM[network]
    z = np.load(goldens / f"diffusion/edm1_{network}.npz")
    arrays = {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith(("param/", "buffer/"))}
    if precond == "iddpm":
        arrays |= {k.split("/", 1)[1]: z[k] for k in z.files if k.startswith("param_iddpm/")}
    name = {"vp": "VP", "ve": "VE", "iddpm": "iDDPM"}[precond] + "Precond"
    text = json.dumps({"init": init, "class_name": name})
    np.savez(path := tmp_path / "x.npz", **arrays, __metadata__=text)
    call(capsys, "import", path, "--out", tmp_path / "run", "--nimg", "200M")
    run = common.Run.open(tmp_path / "run")
    assert run.config.recipe == "edm" and run.config.model.network == network
    assert run.config.precond.name == precond and run.config.augment.p == 0.12
    found = run.average(None)
    assert str(found) == "ema at 200000000 images (tracked)"
    want = edm.load(arrays, **init, precond=precond).variables["params"]
    for (name, a), b in zip(
        trees.leaves(want).items(), jax.tree.leaves(found.params["network"]), strict=True
    ):
        np.testing.assert_array_equal(a, b, err_msg=name)
    with pytest.raises(ValueError, match="at least two snapshots, got 0"):
        run.average(0.05)


def test_a_data_set_gives_the_facts(tmp_path, capsys):
    init = {**tiny.INIT, "img_channels": 1, "label_dim": 10}
    arrays = tiny.draw()
    arrays["emb_label.weight"] = np.ones((4, 10))
    arrays["enc.4x4_conv.weight"] = np.ones((4, 2, 3, 3))
    arrays["out_conv.weight"] = np.ones((1, 4, 3, 3))
    path = save(tmp_path / "x.npz", arrays, init)
    np.savez(tmp_path / "data.npz", image=np.zeros((40, 4, 4, 1), "u1"), label=np.arange(40) % 10)
    flags = ["--data", f"npz:{tmp_path / 'data.npz'}"]
    call(capsys, "import", path, "--out", tmp_path / "run", *flags)
    facts = common.Run.open(tmp_path / "run").facts
    assert facts["name"] == "data" and facts["length"] == 36 and facts["label_dim"] == 10
    text = call(capsys, "import", path, "--out", tmp_path / "r2", "--data", "digits", code=2)
    assert "has images (8, 8, 1), the network makes (4, 4, 1)" in text
    assert not (tmp_path / "r2").exists()


def wrong_set(folder):
    save(folder / "n-1000-0.050.npz", tiny.draw())
    other = {**tiny.INIT, "res_balance": 0.4}
    save(folder / "n-2000-0.050.npz", tiny.draw(), other)
    broken = tiny.draw()
    del broken["out_gain"]
    broken["emb_noise.weight"][0, 0] = np.inf
    save(folder / "n-3000-0.050.npz", broken)
    return [folder / f"n-{t}-0.050.npz" for t in TIMES]


def one(folder, init=tiny.INIT):
    return [save(folder / "x.npz", tiny.draw(), init)]


def named(*names):
    return lambda folder: [folder / f"{n}.npz" for n in names]


FAILING = {
    "no file": (named("no"), [], "there is no file"),
    "other keywords": (wrong_set, [], "another network than"),
    "which ones": (wrong_set, [], "res_balance 0.3 -> 0.4"),
    "and all files": (wrong_set, [], "missing: out_gain"),
    "family": (one, ["--family", "edm"], "not of the family 'edm', its names look like 'edm2'"),
    "no keywords": (lambda f: one(f, None), [], "lacks ['img_channels', 'img_resolution']"),
    "a hint": (lambda f: one(f, None), [], "give them by --init"),
    "no JSON": (one, ["--init", "{'a': 1}"], "--init is not JSON"),
    "no JSON file": (one, ["--init", "x.json"], "or a file, and x.json is neither"),
    "a length": (one, ["--length", "0.4"], "must lie in (0, 0.2887"),
    "names": (named("a", "b"), [], "named NAME-KIMG-LENGTH"),
    "a hole": (
        named("n-1000-0.050", "n-1000-0.100", "n-2000-0.050"),
        [],
        "missing (KIMG-LENGTH): 2000-0.100; repeated: none",
    ),
    "twice": (named("n-1000-0.050", "m-1000-0.050"), [], "repeated: 1000-0.050"),
    "one file's flags": (named("a", "b"), ["--nimg", "1M"], "say it of one file"),
}


@pytest.mark.parametrize("case", FAILING)
def test_failing_imports_leave_nothing(tmp_path, capsys, case):
    files, flags, match = FAILING[case]
    (tmp_path / "published").mkdir()
    paths = files(tmp_path / "published")
    text = call(capsys, "import", *paths, "--out", tmp_path / "runs" / "x", *flags, code=2)
    assert match in text
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_a_folder_with_files_is_not_touched(imported, published, capsys):
    before = sorted(imported.rglob("*"))
    text = call(capsys, "import", next(iter(published.values())), "--out", imported, code=2)
    assert "is there already" in text and sorted(imported.rglob("*")) == before

"""`jaxgen import` of the authors' GAN pickles: three networks become a run that can go on."""

import collections
import importlib.util
import pickle
import sys
import types
from pathlib import Path

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import gans
from jaxgen.__main__ import main
from jaxgen.cli import common, import_weights
from jaxgen.common import trees
from jaxgen.interop import families, reader, stylegan2, stylegan3
from jaxgen.interop import stylegan2_keywords as keywords
from jaxgen.recipes import gan_networks
from jaxgen.train import state
from jaxgen.train.store import Store


def beside(name):
    """A test file of this folder."""
    spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


files, r3 = beside("test_reader"), beside("test_r3gan")
stand_ins = files.stand_ins
SHARED = {"c_dim": 10, "img_resolution": 8, "img_channels": 1, "mapping_kwargs": {"num_layers": 1}}
WIDTHS = {"channel_base": 32, "channel_max": 4}
G_INIT = {**SHARED, "z_dim": 4, "w_dim": 3, "synthesis_kwargs": {**WIDTHS, "num_fp16_res": 1}}
D_INIT = {**SHARED, **WIDTHS, "epilogue_kwargs": {"mbstd_group_size": 2}}
SG3_INIT = {
    **SHARED, "img_resolution": 16, "z_dim": 4, "w_dim": 3, "num_layers": 2, "num_critical": 1,
    **WIDTHS,
}  # fmt: skip
NUMBERS = np.random.default_rng(0)


def drawn(shapes):
    return {n: np.float32(NUMBERS.standard_normal(s)) for n, s in shapes.items()}


def generator():
    module = keywords.generator(keywords.complete_generator(G_INIT))
    shapes = stylegan2.LAYOUT.expected(module, jax.ShapeDtypeStruct((1, 4), "f4"), 10)[1]
    constants = stylegan2.filters(shapes, ("conv0", "skip"), keywords.TAPS)
    return {**drawn({**shapes, stylegan2.W_AVG: (3,)}), **constants}


def discriminator(size=8, **init):
    module = keywords.discriminator(keywords.complete_discriminator({**D_INIT, **init}))
    x = jax.ShapeDtypeStruct((1, size, size, 1), "f4")
    shapes = stylegan2.LAYOUT.expected(module, x, 10)[1]
    return {**drawn(shapes), **stylegan2.filters(shapes, ("conv1", "skip"), keywords.TAPS)}


def alias_free():
    module = stylegan3.generator(stylegan3.complete(SG3_INIT))
    of = stylegan3.layout(module)
    shapes = of.expected(module, jax.ShapeDtypeStruct((1, 4), "f4"), 10)[1]
    arrays = drawn({**shapes, stylegan2.W_AVG: (3,)})
    arrays |= {n: np.abs(x) + 0.5 for n, x in arrays.items() if n.endswith("magnitude_ema")}
    return {**arrays, stylegan3.TRANSFORM: np.eye(3, dtype="f4"), **stylegan3.filters(module)}


class Plain:
    """An instance of a class that is pickled by its name."""


def nested(arrays, make, name="", **state):
    """The tree of modules that PyTorch names like this."""
    own = {n: x for n, x in arrays.items() if "." not in n}
    inside = collections.defaultdict(dict)
    for n, x in arrays.items():
        if "." in n:
            child, _, rest = n.partition(".")
            inside[child][rest] = x
    buffer = lambda n: n in ("w_avg", "resample_filter", "transform", "freqs", "Kernel")
    return make(
        name,
        parameters=[(n, files.Tensor(x, True)) for n, x in own.items() if not buffer(n)],
        buffers=[(n, files.Tensor(x)) for n, x in own.items() if buffer(n)],
        children={n: nested(a, make, n) for n, a in inside.items()},
        **state,
    )


def plain(name, parameters, buffers, children, **state):
    made = (Plain if name else sys.modules["R3GAN.Networks"].Generator)()
    made.__dict__.update(
        _parameters=dict(parameters), _buffers=dict(buffers), _modules=dict(children), **state
    )
    return made


def pickled(path, networks, **more):
    """The authors' file; networks: name -> (class, arrays, keywords)."""
    made = {
        n: nested(a, files.module, c, _init_args=(), _init_kwargs=files.EasyDict(init))
        for n, (c, a, init) in networks.items()
    }
    path.write_bytes(
        pickle.dumps({**made, "training_set_kwargs": files.EasyDict(path="x"), **more})
    )
    return path


@pytest.fixture
def published(stand_ins, tmp_path, monkeypatch):
    """(file, the arrays in it) of a StyleGAN2 for the digits."""
    arrays = {"G": generator(), "D": discriminator(), "G_ema": generator()}
    networks = {
        n: ("Discriminator", a, D_INIT) if n == "D" else ("Generator", a, G_INIT)
        for n, a in arrays.items()
    }
    pipe = files.Persistent("AugmentPipe", p=0.1)
    path = pickled(tmp_path / "network-snapshot-000064.pkl", networks, augment_pipe=pipe)
    monkeypatch.undo()  # tensorboardX looks for PyTorch
    return path, arrays


def call(capsys, *args, code=0):
    got = main(list(map(str, args)))
    out = capsys.readouterr()
    assert got == code, out.err
    return out.out + out.err


def same(tree, want):
    """Equal arrays by name."""
    found, want = trees.leaves(tree), trees.leaves(want)
    assert found.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_array_equal(found[name], x, err_msg=name)


def test_three_networks_become_a_run(published, tmp_path, capsys):
    path, arrays = published
    out = tmp_path / "run"
    text = call(capsys, "import", path, "--out", out, "--data", "digits")
    assert "for recipe 'gan'" in text
    run = common.Run.open(out)
    want = {
        n: stylegan2.load_discriminator(a, **D_INIT)
        if n == "D"
        else stylegan2.load_generator(a, **G_INIT)
        for n, a in arrays.items()
    }
    tree = {n: x.variables["params"] for n, x in want.items()}
    average = run.average(None, players=("generator", "discriminator"))
    assert str(average) == "halflife_10000 at 64000 images (tracked)"
    same(average.params, {"generator": tree["G_ema"], "discriminator": tree["D"]})
    with Store(out / "checkpoints") as store:
        found = store.restore(64_000, "state", state.abstract(run.plan, run.mesh))
    same(found.params, {"generator": tree["G"], "discriminator": tree["D"]})
    same(found.averages["halflife_10000"], average.params)
    np.testing.assert_array_equal(found.stats["w_avg"], arrays["G"]["mapping.w_avg"])
    assert int(found.step) == 2000 and run.facts["length"] == 1200
    assert not any(np.any(x) for x in jax.tree.leaves(found.opt))

    made = gan_networks.Networks.make(run.config, run.facts)
    assert made.generator == want["G_ema"].module and made.discriminator == want["D"].module
    assert run.config.loss.r1_gamma == 2e-4 * 64 / 32 and "generator" in run.plan.exports


@pytest.mark.slow
def test_training_goes_on(published, tmp_path, capsys):
    path, _ = published
    out = tmp_path / "run"
    call(capsys, "import", path, "--out", out, "--data", "digits")
    train = ["train", "--workdir", out, "--no_progress"]
    text = call(capsys, *train, "--config.images=64032", code=2)
    assert "images: 64000 -> 64032" in text and "--allow_changes" in text
    text = call(capsys, *train, "--config.images=64032", "--allow_changes")
    assert "resuming at 64000 images" in text and "finished: 64.03k images" in text
    saved = common.read_saved(out)
    assert saved["command"]["import"] == (path.name,) and saved["config"]["images"] == "64032"
    assert common.Run.open(out).average(None).facts["nimg"] == 64_032
    assert "resuming at 64032 images" in call(capsys, *train)
    text = call(capsys, *train, "--config", "configs/gan/digits.py", code=2)
    assert "leave --config out" in text


def test_without_data_there_is_no_training(published, tmp_path, capsys):
    path, _ = published
    call(capsys, "import", path, "--out", tmp_path / "run", "--nimg", "100")
    found = common.read_saved(tmp_path / "run")["config"]
    assert found["images"] == "96"  # whole batches
    text = call(capsys, "train", "--workdir", tmp_path / "run", code=2)
    assert "was imported without data to train on" in text
    own = ("generator.", "discriminator.")
    keys = lambda c: {k for k in common.flatten(c) if not k.startswith(own)}
    assert keys(found) == keys(gans.base("digits", "stylegan2"))


def prepared(path, *flags):
    """(config, networks of the recipe) of the run that an import would write."""
    args = import_weights.parser().parse_args([str(path), "--out", "x", *flags])
    made = import_weights.prepare(import_weights.entries(args), args, {})
    facts = import_weights.data_facts(made, None)
    config = ConfigDict(made.config)
    return config, gan_networks.Networks.make(config, facts)


def test_alias_free_generators(stand_ins, tmp_path):
    d = {**D_INIT, "img_resolution": 16}
    networks = {n: ("Generator", alias_free(), SG3_INIT) for n in ("G", "G_ema")}
    networks["D"] = ("Discriminator", discriminator(16, **d), d)
    path = pickled(tmp_path / "stylegan3.pkl", networks)
    config, made = prepared(path, "--nimg", "25M")
    assert made.generator == stylegan3.generator(stylegan3.complete(SG3_INIT))
    assert (config.generator.network, config.discriminator.network) == ("stylegan3", "stylegan2")
    assert config.loss.r1_gamma == pytest.approx(1e-3 * 256 / 32)


def test_networks_of_r3gan_hold_classes_by_name(stand_ins, tmp_path, monkeypatch):
    """Their modules are pickled by the names of classes, none of which is imported."""
    for name, made in (("R3GAN.Networks", "Generator"), ("torch.nn.modules.conv", "Conv2d")):
        fake = types.ModuleType(name)
        kind = type(made, (), {"__module__": name})
        setattr(fake, made, kind)
        monkeypatch.setitem(sys.modules, name, fake)
    monkeypatch.setitem(sys.modules, "R3GAN", types.ModuleType("R3GAN"))
    monkeypatch.setitem(globals(), "Plain", sys.modules["torch.nn.modules.conv"].Conv2d)

    def wrapped(shapes, name, init):
        model = nested(r3.draw(shapes), plain)
        return files.module(name, children={"Model": model}, _init_args=(), _init_kwargs=init)

    g = lambda: wrapped(r3.generator_shapes(), "Generator", r3.G_INIT)
    value = {"G": g(), "G_ema": g(), "D": wrapped(r3.discriminator_shapes(), "D", r3.D_INIT)}
    path = tmp_path / "r3gan-100352.pkl"
    path.write_bytes(pickle.dumps(value))
    config, made = prepared(path)
    assert made.facts["shape"] == (16, 16, 3) and config.images == "100352000"
    assert config.loss.name == "relativistic" and config.loss.r2_gamma > 0
    want = r3.interop.load_generator(r3.draw(r3.generator_shapes()), **r3.G_INIT)
    assert made.generator == want.module
    same(dict(reader.read_networks(path)["G"].arrays), r3.draw(r3.generator_shapes(), "Model."))


def test_families_are_told_by_names():
    names = {
        "stylegan2": ["mapping.fc0.weight", "synthesis.b4.const"],
        "stylegan3": ["synthesis.input.weight", "mapping.fc0.weight"],
        "r3gan": ["Model.MainLayers.0.Layers.0.Basis"],
        "edm": ["model.map_layer0.weight", "model.map_noise.freqs"],
        "edm2": ["unet.out_gain"],
        None: ["backbone.synthesis.b4.const", "layers.0.weight"],
    }
    for family, found in names.items():
        assert families.looks_like(found) == family
    families.check(names["edm"], "edm", "x")
    families.check(names[None], "edm", "x")
    with pytest.raises(ValueError, match="x: not of the family 'edm', its names look like 'r3gan'"):
        families.check(names["r3gan"], "edm", "x")


def broken(networks):
    """Something is wrong with every network."""
    del networks["G"][1]["mapping.fc0.bias"]
    networks["D"][1]["strange"] = np.ones(2, "f4")
    networks["G_ema"][1]["mapping.w_avg"] = np.full(3, np.nan, "f4")


def another_average(networks):
    networks["G_ema"] = ("Generator", generator(), {**G_INIT, "w_dim": 3})
    networks["G_ema"][2]["synthesis_kwargs"] = {**WIDTHS, "num_fp16_res": 2}


def larger(networks):
    init = {**D_INIT, "img_resolution": 16}
    networks["D"] = ("Discriminator", discriminator(16, **init), init)


def stranger(networks):
    for n in networks:
        networks[n] = ("TriPlaneGenerator", drawn({"backbone.fc.weight": (2, 2)}), {})


FAILING = {
    "each network": (broken, [], ["G: ", "missing: mapping.fc0.bias", "D: ", "unknown: strange",
                                  "G_ema: ", "NaN or infinity in mapping.w_avg"]),
    "a pair": (another_average, [], ["G and G_ema are different networks"]),
    "sizes": (larger, [], ["G makes images of 8 with 10 classes, and D judges images of 16"]),
    "no family": (stranger, [], ["a TriPlaneGenerator whose names are those of no family"]),
    "another family": (lambda n: None, ["--family", "stylegan3"],
                       ["not of the family 'stylegan3', its names look like 'stylegan2'"]),
    "a part": (lambda n: n.pop("D"), [], ["without D it is no state of a training"]),
    "a length": (lambda n: None, ["--length", "0.1"], ["has a half-life, and no length"]),
    "keywords": (lambda n: None, ["--init", '{"z_dim": 3}'], ["is {\"G\": {...}, \"D\": {...}}"]),
    "data": (lambda n: None, ["--data", "npz:DATA"], ["has images (4, 4, 1), the network makes"]),
}  # fmt: skip


@pytest.mark.parametrize("case", FAILING)
def test_failing_imports_leave_nothing(stand_ins, tmp_path, capsys, case):
    change, flags, texts = FAILING[case]
    networks = {n: ("Generator", generator(), dict(G_INIT)) for n in ("G", "G_ema")}
    networks["D"] = ("Discriminator", discriminator(), D_INIT)
    change(networks)
    path = pickled(tmp_path / "x.pkl", networks)
    np.savez(tmp_path / "data.npz", image=np.zeros((40, 4, 4, 1), "u1"), label=np.arange(40) % 10)
    flags = [f.replace("DATA", str(tmp_path / "data.npz")) for f in flags]
    found = call(capsys, "import", path, "--out", tmp_path / "runs" / "x", *flags, code=2)
    assert all(text in found for text in texts), found
    assert not (tmp_path / "runs").exists() or not any((tmp_path / "runs").iterdir())


def test_readers_of_one_network_refuse_three(published):
    with pytest.raises(ValueError, match="holds the networks G, D, G_ema of a GAN, and not one"):
        reader.read(published[0])

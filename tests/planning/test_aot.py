"""The step compiled for TPUs that are not here; skipped where libtpu is not installed."""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import optax
import pytest

from jaxgen import averaging
from jaxgen.cli import plan as command
from jaxgen.common import mesh as meshes
from jaxgen.planning import aot
from jaxgen.train.plan import Aux, Phase, Plan, Player

ROOT = Path(__file__).resolve().parents[2]
DIGITS = ["--config", str(ROOT / "configs/edm2/digits.py:debug"), "--compile"]
tpu = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason='needs libtpu: pip install "jaxgen[tpu]"'
)
WIDTH, BATCH = 1024, 4096


def loss(params, batch, key, context):
    y = batch["image"]
    for w in params["network"].values():
        y = jnp.tanh(y @ w)
    return jnp.mean(jnp.square(y - batch["image"]), -1), Aux()


def init(key):
    return {
        f"w{i}": jax.random.normal(k, (WIDTH, WIDTH)) for i, k in enumerate(jax.random.split(key))
    }


def dense_plan(every=()):
    """Two matrices, of sizes that a TPU does not pad; a phase more for each of `every`."""
    phases = [Phase(f"lazy{n}", ("network",), loss, n) for n in every]
    return Plan(
        players={"network": Player(init, optax.adam(1e-3))},
        phases=[*phases, Phase("score", ("network",), loss)],
        averages=averaging.tracks(power=(0.10,)),
    )


def data():
    return {"image": jax.ShapeDtypeStruct((BATCH, WIDTH), jnp.float32)}


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "jaxgen" / "aot"


@tpu
def test_the_compiler_sees_the_sharded_state_donated(cache):
    mesh = meshes.make_mesh(2, 8, devices=aot.devices("v5e:4x4"))
    (program,) = aot.compile_step(dense_plan(), data(), mesh)
    assert (program.phases, program.every) == (("score",), 1)
    state = 4 * 2 * WIDTH**2 * 4 // 8  # params, two moments, an average; each device an eighth
    batch = BATCH * WIDTH * 4 // 16
    scalars = program.arguments - state - batch
    assert 0 < scalars <= 16 * 512  # step, counts and key, in a line of memory each
    assert state <= program.aliased <= state + scalars
    assert program.need == program.arguments + program.outputs - program.aliased + program.temporary


@tpu
def test_collectives_are_those_of_fsdp(cache):
    """Weights are gathered, gradients scattered, and no whole gradient is summed everywhere."""
    devices = aot.devices("v5e:2x2")
    (fsdp,) = aot.compile_step(dense_plan(), data(), meshes.make_mesh(1, 4, devices=devices))
    (copies,) = aot.compile_step(dense_plan(), data(), meshes.make_mesh(4, 1, devices=devices))
    whole = 2 * WIDTH**2  # numbers in both matrices
    assert copies.collectives.keys() == {"all-reduce"}
    assert 4 * whole <= copies.collectives["all-reduce"][1] < 4 * whole + 1024
    assert fsdp.collectives["reduce-scatter"][1] == 4 * whole
    assert fsdp.collectives["all-gather"][1] == 2 * whole  # bfloat16 is what products read
    assert fsdp.collectives.get("all-reduce", (0, 0))[1] < 1024
    assert copies.flops == pytest.approx(fsdp.flops, rel=0.1)
    batch = BATCH * WIDTH * 4 // 4
    assert fsdp.arguments - batch == pytest.approx((copies.arguments - batch) / 4, rel=1e-2)


@tpu
def test_microbatches_do_the_same_work(cache):
    mesh = meshes.make_mesh(4, 1, devices=aot.devices("v5e:2x2"))
    (one,) = aot.compile_step(dense_plan(), data(), mesh)
    (four,) = aot.compile_step(dense_plan(), data(), mesh, microbatches=4)
    products = 2 * 5 * (BATCH // 4) * WIDTH**2  # 2 forward, 2 + 1 backward
    for program in one, four:
        assert products <= program.flops < 1.2 * products


@tpu
def test_a_program_is_compiled_once(cache, monkeypatch):
    mesh = meshes.make_mesh(devices=aot.devices("v5e:2x2"))
    told = []
    plan = dense_plan(every=(4,))
    first = aot.compile_step(plan, data(), mesh, log=told.append)
    assert [(p.phases, p.every) for p in first] == [(("lazy4",), 4), (("score",), 1)]
    assert len(list(cache.glob("*.json"))) == 2
    assert sum("compiled in" in t for t in told) == 2
    monkeypatch.setattr(aot, "_compile", None)  # a call of it fails
    assert aot.compile_step(dense_plan(every=(4,)), data(), mesh) == first
    other = meshes.make_mesh(devices=aot.devices("v6e:2x2"))
    with pytest.raises(TypeError):
        aot.compile_step(plan, data(), other)
    whole = aot.combined(first)
    assert whole["flops"] == first[0].flops / 4 + first[1].flops
    assert whole["need"] == max(p.need for p in first)


@tpu
def test_several_slices(cache):
    """`data` runs across the slices: what they exchange is summed, and seen as sends."""
    devices = aot.devices("v5e:2x2", slices=2)
    assert len(devices) == 8 and {d.slice_index for d in devices} == {0, 1}
    mesh = meshes.make_mesh(2, 4, devices=devices)
    for part in mesh.devices:  # along data
        assert len({d.slice_index for d in part.flat}) == 1
    (program,) = aot.compile_step(dense_plan(), data(), mesh)
    assert program.aliased > 0
    part = 2 * WIDTH**2 * 4 // 4  # of the gradients, summed with the other slice's
    assert part <= program.collectives["send"][1] < 1.01 * part


@tpu
def test_too_much_for_a_chip(cache):
    plan = dense_plan()
    mesh = meshes.make_mesh(devices=aot.devices("v5e:2x2"))
    huge = {"image": jax.ShapeDtypeStruct((2**23, WIDTH), jnp.float32)}
    with pytest.raises(aot.DoesNotFit, match=r"needs [\d.]+ of 15.75 GiB.*mesh.fsdp"):
        aot.compile_step(plan, huge, mesh)
    assert not list(cache.glob("*"))


@tpu
def test_unknown_topologies_are_explained():
    with pytest.raises(ValueError, match=r"cannot describe 'v5e:3x3' x 1 slices: .*v5e:3x3"):
        aot.devices("v5e:3x3")


@tpu
@pytest.mark.slow
def test_the_command_compiles_a_small_unet(cache, tmp_path, capsys):
    out = tmp_path / "plan.json"
    flags = ["--topology", "v5e:2x2", "--config.mesh.fsdp=2", "--json", str(out)]
    assert command.main([*DIGITS, *flags]) == 0
    said = capsys.readouterr()
    assert "estimate" in said.out and "compiler" in said.out and "state and batch" in said.out
    assert "program 1 of 1 (score): compiled in" in said.err
    (program,) = json.loads(out.read_text())["compiled"]
    assert program["aliased"] > 0
    assert {"all-gather", "all-reduce"} <= program["collectives"].keys()
    assert command.main([*DIGITS, *flags]) == 0
    assert "known, compiled in" in capsys.readouterr().err


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "libtpu" else find(name, *a)
    )
    with pytest.raises(ValueError, match=r'pip install "jaxgen\[tpu\]"'):
        command.main([*DIGITS, "--topology", "v5e:2x2"])


@pytest.mark.parametrize("flags", [["--topology", "h200:8"], []])
def test_only_tpus_are_compiled_for(flags):
    with pytest.raises(ValueError, match="--compile is for a TPU topology such as v5e:4x4, got"):
        command.main([*DIGITS, *flags])


@pytest.mark.parametrize(
    "text, want",
    [
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (25.50G) exceeds available HBM (15.75G).",
            "it needs 25.50 of 15.75 GiB",
        ),
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 512.00M of 256.00M hbm. Exceeds hbm capacity by 256.00M.",
            "it needs 0.50 of 0.25 GiB",
        ),
        ("RESOURCE_EXHAUSTED: something new\nmore", "something new"),
    ],
)
def test_what_memory_errors_say(text, want):
    found = aot._explained(RuntimeError(text), "program 1 of 1 (score)")
    assert isinstance(found, aot.DoesNotFit)
    assert want in str(found) and "program 1 of 1 (score)" in str(found)


def test_other_errors_stay_what_they_are():
    error = RuntimeError("INTERNAL: a bug")
    assert aot._explained(error, "program") is error

"""Runs that are interrupted, damaged or starved end up with the numbers of an undisturbed one."""

import dataclasses
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_toy
from toys import gan_plan

from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.train import loop, snapshot, store, writer
from jaxgen.train import state as states
from jaxgen.train.optim import adam
from jaxgen.train.plan import HostController, Stage

SCRIPT = str(Path(run_toy.__file__))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One device, and a compile cache so that a restarted process starts quickly."""
    return {
        **os.environ,
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def start(environment, *args):
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(environment, *args, code=0):
    process = start(environment, *args)
    text = process.communicate(timeout=300)[0]
    assert process.returncode == code, text
    return text


@pytest.fixture(scope="module")
def undisturbed(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(environment, folder)
    return folder


def assert_same_run(a, b):
    a, b = np.load(a / "final.npz"), np.load(b / "final.npz")
    assert sorted(a.files) == sorted(b.files)
    for name in a.files:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_killed_at_random_moments(environment, undisturbed, tmp_path):
    gen = random.Random(int.from_bytes(os.urandom(4), "big"))
    kills = []
    for _ in range(3):
        process = start(environment, tmp_path, "--sleep", "0.02")
        for line in process.stdout:
            if "compiled" in line:
                break
        delay = gen.uniform(0.0, 1.6)
        time.sleep(delay)
        process.kill()
        process.wait()
        kills.append(round(delay, 3))
    finish(environment, tmp_path)
    print("killed after", kills)
    assert_same_run(tmp_path, undisturbed)
    kept = [r["nimg"] for r in writer.read(tmp_path / "metrics.jsonl") if "gen/loss" in r]
    assert kept == sorted(set(kept)), "an attempt that was cut off left its records"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops(environment, undisturbed, tmp_path, signum):
    process = start(environment, tmp_path, "--sleep", "0.05")
    for line in process.stdout:
        if "compiled" in line:
            break
    time.sleep(0.7)
    process.send_signal(signum)
    text = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signum, text
    name = signal.Signals(signum).name
    assert f"{name}: saved a checkpoint at" in text and "run the same command again" in text
    finish(environment, tmp_path)
    assert_same_run(tmp_path, undisturbed)


def train(folder, images=1600, plan=None, stages=None, batch=16, devices=1, lines=None, **kwargs):
    mesh = meshes.make_mesh(devices=jax.devices()[:devices])
    lines = [] if lines is None else lines
    state, nimg = loop.train(
        stages or [Stage(plan or gan_plan(), images)],
        run_toy.data(mesh),
        workdir=folder,
        mesh=mesh,
        batch=batch,
        seed=7,
        every=kwargs.pop("every", loop.Every(log=160, checkpoint=160, snapshot=320)),
        log=lines.append,
        progress=False,
        **kwargs,
    )
    return jax.device_get(state), nimg


def ramp_plan():
    """A GAN whose learning rate ramps over the whole run, and a controller that counts."""
    plan = gan_plan()
    rate = lambda nimg: 1e-3 * nimg / 1600
    players = {
        n: dataclasses.replace(p, optimizer=adam(rate, 0.5, 0.99)) for n, p in plan.players.items()
    }
    return dataclasses.replace(
        plan,
        players=players,
        stats={**plan.stats, "count": jnp.float32(0)},
        controllers=(lambda stats, metrics: {**stats, "count": stats["count"] + 1},),
    )


@pytest.fixture(scope="module")
def three_runs(tmp_path_factory):
    """(uninterrupted, stopped half way and resumed, only as long as the second half)."""
    whole, _ = train(tmp_path_factory.mktemp("whole"), plan=ramp_plan())
    folder = tmp_path_factory.mktemp("resumed")
    train(folder, 800, plan=ramp_plan())
    resumed, nimg = train(folder, plan=ramp_plan())
    assert nimg == 1600
    fresh, _ = train(tmp_path_factory.mktemp("fresh"), 800, plan=ramp_plan())
    return whole, resumed, fresh


RESUMED = {
    "image count": lambda s: s.step,
    "learning-rate ramp": lambda s: s.opt["generator"][1].learning_rate,
    "Adam count": lambda s: s.opt["generator"][0].count,
    "Adam first moment": lambda s: s.opt["generator"][0].mu["layer0"]["w"],
    "Adam second moment": lambda s: s.opt["discriminator"][0].nu["layer0"]["w"],
    "short average": lambda s: s.averages["power_0.050"]["generator"]["layer0"]["w"],
    "long average": lambda s: s.averages["power_0.100"]["discriminator"]["layer0"]["w"],
    "half-life average": lambda s: s.averages["halflife_1000"]["generator"]["layer0"]["w"],
    "statistics": lambda s: s.stats["pl_mean"],
    "controllers": lambda s: s.stats["count"],
    "data and keys, through the weights": lambda s: s.params["discriminator"]["layer0"]["w"],
}


@pytest.mark.parametrize("what", RESUMED)
def test_resuming_does_not_restart(three_runs, what):
    whole, resumed, fresh = map(RESUMED[what], three_runs)
    np.testing.assert_array_equal(whole, resumed)
    assert not np.array_equal(whole, fresh), f"{what} would look the same after a restart"


def test_data_position(tmp_path):
    """The first batch asked for after a resume is the one after the last that was trained on."""
    asked = []

    def data(step):
        asked.append(step)
        return run_toy.data(meshes.make_mesh(devices=jax.devices()[:1]))(step)

    for images in (320, 640):
        loop.train(
            [Stage(gan_plan(), images)],
            data,
            workdir=tmp_path,
            mesh=meshes.make_mesh(devices=jax.devices()[:1]),
            batch=16,
            log=lambda text: None,
            progress=False,
        )
    assert asked == [0, 20]


def flip(folder):
    """Eight bytes in the middle of the largest data file."""
    path = max((p for p in folder.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(b ^ 0xFF for b in content[middle : middle + 8])
    path.write_bytes(content)
    return path


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path, three_runs):
    train(tmp_path, 800, plan=ramp_plan())
    path = flip(tmp_path / "checkpoints/800")
    lines = []
    state, _ = train(tmp_path, plan=ramp_plan(), lines=lines)
    text = "\n".join(lines)
    assert f"damaged: {path} differs from its checksum" in text
    assert "resuming at 640 images" in text
    assert (tmp_path / "damaged/checkpoints-800").is_dir()
    got, want = trees.leaves(state.params), trees.leaves(three_runs[0].params)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_other_damage_is_found(tmp_path, how):
    train(tmp_path, 320)
    path = flip(tmp_path / "checkpoints/320")
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:-9])
    with store.Store(tmp_path / "checkpoints", log=lambda text: None) as s:
        assert s.newest() == 160


def averages_of(plan):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    params = states.abstract(plan, mesh).params
    return {"generator": params["generator"]}


def test_snapshots_are_kept_and_a_damaged_one_is_passed_over(tmp_path):
    plan = gan_plan()
    state, _ = train(tmp_path, plan=plan, keep=1)
    lines = []
    with store.Store(tmp_path / "snapshots", log=lines.append) as s:
        assert s.numbers() == [320, 640, 960, 1280, 1600]
        newest = snapshot.load(s, plan, averages_of(plan), 0.1)
        assert newest.facts["nimg"] == 1600 and "tracked" in str(newest)
        for name, x in trees.leaves(state.averages["power_0.100"]["generator"]).items():
            np.testing.assert_array_equal(trees.leaves(newest.params["generator"])[name], x)
        assert set(newest.params) == {"generator"}
    path = flip(tmp_path / "snapshots/1600/generator.power_0.100")
    with store.Store(tmp_path / "snapshots", log=lines.append) as s:
        before = snapshot.load(s, plan, averages_of(plan), 0.1)
        assert before.facts["nimg"] == 1280
        assert str(path) in "\n".join(lines) and "going on without it" in lines[-1]
        rebuilt = snapshot.load(s, plan, averages_of(plan), 0.07)
        assert "post-hoc from 4 snapshots" in str(rebuilt)
        with pytest.raises(ValueError, match="no undamaged snapshot is left"):
            snapshot.load(s, plan, averages_of(plan), 0.1, nimg=1600)


def test_posthoc_from_a_run_matches_direct_tracking(tmp_path, capsys):
    """Snapshots of two lengths rebuild a third that was tracked all along."""
    from jaxgen import averaging

    plan = dataclasses.replace(gan_plan(), averages=averaging.tracks(power=(0.05, 0.10)))
    direct = dataclasses.replace(gan_plan(), averages=averaging.tracks(power=(0.07,)))
    raw, _ = train(tmp_path / "a", plan=plan, every=loop.Every(0, 0, 160), snapshot_dtype="float16")
    want, _ = train(tmp_path / "b", plan=direct, every=loop.Every(0, 0, 1600))
    with store.Store(tmp_path / "a/snapshots") as s:
        got = snapshot.load(s, plan, averages_of(plan), 0.07)
    flat = lambda t: np.concatenate([np.ravel(x) for x in jax.tree.leaves(t)])
    target = flat(want.averages["power_0.070"]["generator"])
    error = np.linalg.norm(flat(got.params["generator"]) - target)
    scale = np.linalg.norm(flat(raw.params["generator"]) - target)
    with capsys.disabled():
        print(f"post-hoc 0.07 of a GAN generator, float16 snapshots: error {error / scale:.1e}")
    assert error < 0.05 * scale


def test_wrong_averages_are_explained(tmp_path):
    plan = gan_plan()
    none = store.Store(tmp_path / "none")
    with none, pytest.raises(ValueError, match=r"no snapshots in .*; train first"):
        snapshot.load(none, plan, averages_of(plan), 0.1)
    train(tmp_path, 320, plan=plan)
    with store.Store(tmp_path / "snapshots") as s:
        with pytest.raises(ValueError, match=r"no average 'powr'; tracked are \['halflife_1000', "):
            snapshot.load(s, plan, averages_of(plan), "powr")
        with pytest.raises(ValueError, match=r"no snapshot at 17 images; there are \[320\]"):
            snapshot.load(s, plan, averages_of(plan), 0.1, nimg=17)
        with pytest.raises(ValueError, match=r"cannot be rebuilt .*reachable here: 0\.0"):
            snapshot.load(s, plan, averages_of(plan), 0.3)
        target = {"other": jax.ShapeDtypeStruct((2,), jnp.float32)}
        with pytest.raises(ValueError, match=r"missing \['other'\], unexpected \['layer0.b'"):
            s.restore(320, "generator.power_0.100", target)
        wrong = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct((*x.shape, 2), x.dtype), averages_of(plan)["generator"]
        )
        with pytest.raises(
            ValueError, match=r"arrays of other shapes: layer0.b: expected \[16, 2\]"
        ):
            s.restore(320, "generator.power_0.100", wrong)


def test_too_many_skips_stop_the_run(environment, tmp_path):
    text = finish(environment, tmp_path, "--nan-from", "42", code=2)
    assert "NonFinite: phase 'disc': " in text and "updates in a row" in text
    assert "the last checkpoint, at 640 images, is kept" in text
    with store.Store(tmp_path / "checkpoints") as s:
        assert s.newest() == 640


def test_a_full_disk_is_reported_and_harms_nothing(environment, undisturbed, tmp_path):
    finish(environment, tmp_path, "--images", "320")
    text = finish(environment, tmp_path, "--max-file", "3000", code=2)
    assert "SaveError: could not save" in text and "Is the disk full" in text, text
    assert "the newest intact entry is" in text
    finish(environment, tmp_path)
    assert_same_run(tmp_path, undisturbed)


def test_changing_the_batch_keeps_the_images_seen(tmp_path):
    train(tmp_path, 320)
    from toys import regression_plan  # noqa: F401 - the same data works for both

    with pytest.raises(ValueError, match="320 images, which is not a multiple of the new batch 24"):
        train(tmp_path, 640, batch=24)
    run_toy_batch = run_toy.BATCH
    try:
        run_toy.BATCH = 32
        state, nimg = train(tmp_path, 640, batch=32)
    finally:
        run_toy.BATCH = run_toy_batch
    assert nimg == 640 and int(state.step) == 20


def test_stages_carry_the_state_and_resume_in_the_second(tmp_path):
    seen = []

    def carry(state, key):
        seen.append(int(state.step))
        half = jax.tree.map(lambda x: x * 0.5, state.params["generator"])
        return dataclasses.replace(state, params={**state.params, "generator": half})

    def stages(until):
        return [Stage(gan_plan(), 320), Stage(ramp_plan_like(), until, carry)]

    def ramp_plan_like():
        return dataclasses.replace(gan_plan(), evals=("frechet",))

    whole, _ = train(tmp_path / "a", stages=stages(960))
    assert seen == [20]
    train(tmp_path / "b", stages=stages(640))
    resumed, nimg = train(tmp_path / "b", stages=stages(960))
    assert nimg == 960 and seen == [20, 20]
    for name, x in trees.leaves(whole.params).items():
        np.testing.assert_array_equal(x, trees.leaves(resumed.params)[name])


def test_host_controllers_and_hooks(tmp_path):
    calls = []

    def reset(state, nimg):
        calls.append(nimg)
        return dataclasses.replace(state, stats={**state.stats, "pl_mean": jnp.float32(0)})

    plan = dataclasses.replace(gan_plan(), host_controllers=(HostController(320, reset),))
    hook = loop.Hook("count", 160, lambda plan, state, nimg: {"hook/images": nimg})
    train(tmp_path, 640, plan=plan, hooks=[hook])
    assert calls == [320, 640]
    records = writer.read(tmp_path / "metrics.jsonl")
    assert [r["hook/images"] for r in records if "hook/images" in r] == [160, 320, 480, 640]
    times = [r for r in records if "time/images_per_second" in r]
    assert times and all({"time/data_wait", "time/seconds"} <= r.keys() for r in times)
    assert any("time/checkpoint_stall" in r for r in records)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_snapshots_of_an_abandoned_future_are_set_aside(tmp_path):
    train(tmp_path, 640)
    for number in (480, 640):
        (tmp_path / f"checkpoints/{number}").rename(tmp_path / f"gone{number}")
    lines = []
    with pytest.raises(ValueError, match="no image"):  # stop before training goes on

        def stop(step):
            raise ValueError("no image")

        mesh = meshes.make_mesh(devices=jax.devices()[:1])
        loop.train(
            [Stage(gan_plan(), 640)], stop, workdir=tmp_path, mesh=mesh, batch=16,
            fresh_snapshots=True, log=lines.append, progress=False,
        )  # fmt: skip
    assert not (tmp_path / "snapshots/320").exists()
    assert (tmp_path / "abandoned/snapshots-640").is_dir()


def test_two_processes_train_as_one_and_resume_as_one(environment, undisturbed, tmp_path):
    """Gloo on loopback: 2 processes to 800 images, then 1 process to the end."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    args = [tmp_path, "--images", 800, "--coordinator", f"localhost:{port}", "--process_id"]
    pair = [start(environment, *args, i) for i in range(2)]
    texts = [p.communicate(timeout=300)[0] for p in pair]
    assert [p.returncode for p in pair] == [0, 0], "\n".join(texts)
    text = finish(environment, tmp_path)
    assert "resuming at 800 images" in text
    a, b = np.load(tmp_path / "final.npz"), np.load(undisturbed / "final.npz")
    for name in b.files:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-3, atol=1e-4, err_msg=name)


def test_metrics_keep_what_a_resume_goes_on_from(tmp_path):
    logs = writer.Writer(tmp_path, tensorboard=False)
    for nimg in (100, 200, 300):
        logs.write(nimg, {"loss": nimg / 100, "lazy": float("nan")})
    logs.close()
    with (tmp_path / "metrics.jsonl").open("a") as f:
        f.write('{"nimg": 400, "lo')
    logs = writer.Writer(tmp_path, nimg=200, tensorboard=False)
    logs.write(250, {"loss": 9.0})
    logs.close()
    lines = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["nimg"], r["loss"]) for r in lines] == [(100, 1), (200, 2), (250, 9)]
    assert lines[0]["lazy"] is None

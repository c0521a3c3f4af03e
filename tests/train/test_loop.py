"""Runs that are interrupted, damaged or starved end up with the numbers of an undisturbed one."""

import dataclasses
import errno
import os
import random
import shutil
import signal
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import run_toy
from toy_runs import assert_same_run, finish, ramp_plan, start, train
from toys import gan_plan

from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.train import loop, store, writer
from jaxgen.train.plan import HostController, Stage


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """One device, and a compile cache so that a restarted process starts quickly."""
    return {
        **os.environ,
        "XLA_FLAGS": "",
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("cache")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


@pytest.fixture(scope="module")
def undisturbed(environment, tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    finish(environment, folder)
    return folder


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


@pytest.mark.parametrize(
    "signum", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
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


def test_too_many_skips_stop_the_run(tmp_path):
    """One of two phases has no finite loss from step 42 on; step 40 left the last checkpoint."""
    plan = gan_plan()
    gen, disc = plan.phases[0], plan.phases[2]

    def broken(params, batch, key, context):
        each, aux = disc.loss(params, batch, key, context)
        return jnp.where(context.step >= 42, jnp.nan, 1.0) * each, aux

    plan = dataclasses.replace(plan, phases=[gen, dataclasses.replace(disc, loss=broken)])
    with pytest.raises(loop.NonFinite) as e:
        train(tmp_path, plan=plan, max_skips=5)
    text = str(e.value)
    assert text.startswith("phase 'disc': ") and "updates in a row" in text
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
    assert times and all({"time/data_wait", "time/step"} <= r.keys() for r in times)
    assert any("time/checkpoint_stall" in r for r in records)
    assert list((tmp_path / "tensorboard").glob("events.*"))


def test_what_was_cut_off_at_the_point_of_resuming_is_done_again(tmp_path):
    """The checkpoint is there; its snapshot and one of two hooks were not finished."""
    train(tmp_path, 320)
    path = tmp_path / "snapshots" / "320"
    shutil.rmtree(path)
    calls = []
    hooks = [loop.Hook(n, 160, lambda p, s, nimg, n=n: calls.append((n, nimg))) for n in "ab"]
    log = tmp_path / "metrics.jsonl"
    log.write_text(log.read_text() + '{"nimg": 320, "time/a": 1.0}\n')
    train(tmp_path, 320, hooks=hooks)
    assert calls == [("b", 320)] and path.is_dir()
    train(tmp_path, 480, hooks=hooks)
    assert calls == [("b", 320), ("a", 480), ("b", 480)], "once each"
    train(tmp_path / "whole", 320)
    folders = [tmp_path / "snapshots", tmp_path / "whole" / "snapshots"]
    with (
        store.Store(folders[0], read_only=True) as mine,
        store.Store(folders[1], read_only=True) as its,
    ):
        assert mine.sound(320) and mine.meta(320)["arrays"] == its.meta(320)["arrays"]
        for item, shapes in its.meta(320)["arrays"].items():
            target = {n: np.zeros(*kind) for n, kind in shapes.items()}
            a, b = mine.restore(320, item, target), its.restore(320, item, target)
            jax.tree.map(np.testing.assert_array_equal, a, b)


def test_a_torn_snapshot_is_taken_again(tmp_path):
    train(tmp_path, 320)
    (tmp_path / "snapshots" / "manifests" / "320.json").unlink()
    lines = []
    train(tmp_path, 320, lines=lines)
    assert "the snapshot at 320 images was cut off: taking it now" in lines
    with store.Store(tmp_path / "snapshots", read_only=True) as s:
        assert s.sound(320)


def test_a_signal_leaves_hooks_for_later(tmp_path):
    """Of a hook that is due when the run is asked to stop."""
    calls = []

    def stop(plan, state, nimg):
        signal.raise_signal(signal.SIGTERM)

    def late(plan, state, nimg):
        calls.append(nimg)

    hooks = [loop.Hook("stop", 144, stop), loop.Hook("late", 160, late)]
    with pytest.raises(loop.Stopped):
        train(tmp_path, 320, hooks=hooks)
    assert calls == []
    train(tmp_path, 320, hooks=hooks[1:])
    assert calls == [160, 320]


def test_a_second_run_in_a_workdir_is_refused(environment, tmp_path):
    with store.alone(tmp_path, print):
        text = finish(environment, tmp_path, code=1)
        assert f"{tmp_path} is in use by process {os.getpid()} on " in text
    train(tmp_path, 160)


def test_a_full_disk_reaches_the_event_files_as_an_error(tmp_path, monkeypatch):
    """Not as a queue that fills up behind a dead thread."""
    logs = writer.Writer(tmp_path)

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(logs._board._file._py_recordio_writer._writer, "write", full, raising=False)
    monkeypatch.setattr(logs._board._file._py_recordio_writer, "write", full)
    with pytest.raises(OSError, match="No space left"):
        for n in range(20):
            logs.write(n, {"a": 1.0})
    logs.close()

"""Stores and snapshots: damage is found, nothing is mixed up, mistakes are explained."""

import dataclasses
import json
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toy_runs import averages_of, ramp_plan, train
from toys import gan_plan

from jaxgen import averaging
from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.train import loop, snapshot, store, writer
from jaxgen.train.plan import Stage


def flip(folder):
    """Eight bytes in the middle of the largest data file."""
    path = max((p for p in folder.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(b ^ 0xFF for b in content[middle : middle + 8])
    path.write_bytes(content)
    return path


def test_a_damaged_checkpoint_is_named_and_the_one_before_used(tmp_path):
    whole, _ = train(tmp_path / "whole", plan=ramp_plan())
    tmp_path = tmp_path / "damaged"
    train(tmp_path, 800, plan=ramp_plan())
    path = flip(tmp_path / "checkpoints/800")
    lines = []
    state, _ = train(tmp_path, plan=ramp_plan(), lines=lines)
    text = "\n".join(lines)
    assert f"damaged: {path} differs from its checksum" in text
    assert "resuming at 640 images" in text
    assert (tmp_path / "damaged/checkpoints-800").is_dir()
    got, want = trees.leaves(state.params), trees.leaves(whole.params)
    for name in want:
        np.testing.assert_array_equal(got[name], want[name], err_msg=name)


@pytest.mark.parametrize("how", ["missing", "truncated"])
def test_other_damage_is_found(tmp_path, how):
    train(tmp_path, 320)
    path = flip(tmp_path / "checkpoints/320")
    path.unlink() if how == "missing" else path.write_bytes(path.read_bytes()[:-9])
    with store.Store(tmp_path / "checkpoints", log=lambda text: None) as s:
        assert s.newest() == 160


def test_sums_come_before_the_commit_so_that_none_is_damage(tmp_path):
    seen = []

    class Looks(store.Store):
        def _seal(self, entry, name):
            super()._seal(entry, name)
            seen.append((name, self._manifest(name).is_file(), (self.folder / name).exists()))

    tree = {"x": jnp.arange(6.0)}
    with Looks(tmp_path / "s") as s:
        for n in (1, 2, 2):
            s.save(n, {"a": tree}, {})
    assert seen == [("1", True, False), ("2", True, False), ("2", True, False)]
    (tmp_path / "s/manifests/2.json").unlink()
    lines = []
    with store.Store(tmp_path / "s", log=lines.append) as s:
        with pytest.raises(
            store.DamagedError, match=r"2\.json is missing, so .* cannot be checked"
        ):
            s.restore(2, "a", tree)
        assert not s.sound(2) and not s.sound(3) and s.sound(1)
        assert s.newest() == 1 and (tmp_path / "damaged" / "s-2").is_dir()


def test_a_reader_leaves_a_live_run_alone(tmp_path):
    tree = {"x": jnp.arange(6.0)}
    with store.Store(tmp_path / "s") as s:
        for n in (1, 2):
            s.save(n, {"a": tree}, {})
    going_on = tmp_path / "s" / "3.orbax-checkpoint-tmp" / "a"
    going_on.mkdir(parents=True)
    flip_any(tmp_path / "s" / "2")
    with store.Store(tmp_path / "s", log=lambda text: None, read_only=True) as s:
        assert s.newest() == 1
        np.testing.assert_array_equal(s.restore(1, "a", tree)["x"], tree["x"])
    assert going_on.is_dir() and (tmp_path / "s" / "2").is_dir()
    with store.Store(tmp_path / "s", log=lambda text: None) as s:
        s.save(3, {"a": tree}, {})
    assert not going_on.exists(), "the run that writes cleans up"


def flip_any(entry):
    path = next(p for p in sorted(entry.rglob("d/*")) if p.stat().st_size)
    path.write_bytes(bytes(b ^ 1 for b in path.read_bytes()))


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


def test_a_save_takes_hold_of_the_values_and_returns(tmp_path, monkeypatch):
    """Orbax starts slowly here; meanwhile jax's arrays are donated, numpy's changed in place."""
    start = store.Store._start

    def slow(self, *work):
        time.sleep(0.5)
        start(self, *work)

    monkeypatch.setattr(store.Store, "_start", slow)
    change = jax.jit(lambda x: x * 2 + 1, donate_argnums=0)
    ours, theirs = jnp.arange(1000.0), np.arange(1000.0, dtype=np.float32)
    with store.Store(tmp_path) as s:
        held = s.save(1, {"state": {"ours": ours, "theirs": theirs}}, {})
        assert held < 0.25 and s.numbers() == []
        for _ in range(3):
            ours = change(ours)
        theirs *= 0
        s.wait()
        one = jax.ShapeDtypeStruct((1000,), jnp.float32)
        found = s.restore(1, "state", {"ours": one, "theirs": one})
    for x in found.values():
        np.testing.assert_array_equal(x, np.arange(1000.0))


def test_a_save_that_fails_to_start_is_reported_by_the_next(tmp_path, monkeypatch):
    with store.Store(tmp_path) as s:
        s.save(1, {"state": {"x": jnp.ones(3)}}, {})
        s.wait()
        monkeypatch.setattr(s._manager, "save", lambda *_, **__: False)
        s.save(2, {"state": {"x": jnp.ones(3)}}, {})
        with pytest.raises(store.SaveError, match=r"declined to save.*newest intact entry is 1"):
            s.save(3, {"state": {"x": jnp.ones(3)}}, {})
        assert s.numbers() == [1]


@pytest.mark.parametrize("time", [10**26, -(10**30), 10**400], ids=["late", "early", "never"])
def test_a_time_that_no_date_has(tmp_path, time):
    with store.Store(tmp_path) as kept:
        kept.save(1, {"state": {"a": jnp.ones(3)}}, {})
    path = tmp_path / "1" / "_CHECKPOINT_METADATA"
    found = json.loads(path.read_text())
    path.write_text(json.dumps(found | {"commit_timestamp_nsecs": time}))
    with pytest.raises(ValueError, match="cannot be listed"):
        store.Store(tmp_path, read_only=True)


REFUSED = """
import os, sys
import jax.numpy as jnp
from jaxgen.train.store import SaveError, Store
make, state = os.makedirs, {"state": {"small": jnp.ones(3), "large": jnp.ones((600, 600))}}

def refuse(path, *args, **kwargs):
    if "orbax-checkpoint-tmp" in str(path):
        raise PermissionError(1, "Operation not permitted", str(path))
    return make(path, *args, **kwargs)

with Store(sys.argv[1]) as store:
    store.save(1, state, {})
    store.wait()
    os.makedirs = refuse
    store.save(2, state, {})
    try:
        store.wait()
    except SaveError as e:
        print(e)
"""


def test_a_process_whose_folders_cannot_be_made_ends(tmp_path):
    """Orbax's threads wait 20 minutes for folders, and Python at its end for threads."""
    found = subprocess.run(
        [sys.executable, "-c", REFUSED, str(tmp_path)], capture_output=True, text=True, timeout=60
    )
    assert found.returncode == 0, found.stderr
    assert "PermissionError" in found.stdout and "newest intact entry is 1" in found.stdout

"""The watchdog: hangs are reported with their stacks and ended if asked; nothing else is."""

import argparse
import os
import signal
import subprocess
import sys
import time

import jax
import pytest
import run_toy
from toy_runs import train
from toys import gan_plan

from jaxgen.cli import train as cli
from jaxgen.common import mesh as meshes
from jaxgen.train import loop, watchdog
from jaxgen.train.plan import Stage
from jaxgen.train.watchdog import Limits, Watchdog

QUICK = Limits(factor=20.0, seconds=0.5, slow_seconds=60.0)


def wait_for(what, seconds=20.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, "nothing was reported"
        time.sleep(0.02)


def test_a_stalled_iterator_is_reported_with_the_function_that_stalls(tmp_path):
    """Data stop after 10 steps for until the watchdog has spoken, and 0.5 s more."""
    lines, mesh = [], meshes.make_mesh(devices=jax.devices()[:1])
    began = []

    def a_file_system_that_does_not_answer():
        began.append(time.monotonic())
        wait_for(lambda: any("has not finished" in x for x in lines))
        began.append(time.monotonic())
        time.sleep(0.3)

    def data(start):
        for i, batch in enumerate(run_toy.data(mesh)(start)):
            if i == 10:
                a_file_system_that_does_not_answer()
            yield batch

    _, nimg = loop.train(
        [Stage(gan_plan(), 320)], data, workdir=tmp_path, mesh=mesh, batch=16, watch=QUICK,
        log=lines.append, progress=False,
    )  # fmt: skip
    assert nimg == 320
    said = [x for x in lines if x.startswith("watchdog")]
    assert "a step has not finished for" in said[0] and "going on after" in said[1], said
    assert len(said) == 2, "once a hang"
    stacks = list(tmp_path.glob("stacks-0-*.txt"))
    assert len(stacks) == 1 and str(stacks[0]) in said[0]
    text = stacks[0].read_text()
    assert "in a_file_system_that_does_not_answer" in text and "in next_batches" not in text
    assert text.count("Thread 0x") + text.count("Current thread") >= 2, "stacks of all threads"
    median = 0.5  # a step takes milliseconds: the floor holds, and a tenth of it is the tick
    assert median <= began[1] - began[0] < 5


def test_slow_saves_and_hooks_are_no_hang(tmp_path):
    hook = loop.Hook("slow", 160, lambda plan, state, nimg: time.sleep(1.2))
    lines = []
    train(tmp_path, 320, hooks=[hook], watch=QUICK, lines=lines)
    assert not [x for x in lines if "watchdog" in x] and not list(tmp_path.glob("stacks*"))
    lines.clear()
    hasty = Limits(factor=20.0, seconds=0.3, slow_seconds=0.6)
    with Watchdog(tmp_path, hasty, log=lines.append) as dog:
        dog.step()
        with dog.slow("the hook slow"):
            wait_for(lambda: lines)
    assert "the hook slow has not finished" in lines[0], "even what is slow has a limit"


def test_the_limit_follows_the_median_step(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(watchdog.time, "monotonic", lambda: now[0])
    dog = Watchdog(tmp_path, Limits(factor=10.0, seconds=2.0, slow_seconds=900.0))
    assert dog.limit() == 900, "nothing is known before the first step"
    dog.step()
    for seconds in (0.1, 0.1, 0.1, 5.0):
        now[0] += seconds
        dog.step()
    assert dog.limit() == 2.0
    for seconds in [1.0] * 9:
        now[0] += seconds
        with dog.slow("a checkpoint"):
            now[0] += 100
        dog.step()
    assert dog.limit() == pytest.approx(10.0), "what is slow is not part of a step"


@pytest.mark.parametrize("settings", [{"factor": 1.0}, {"seconds": -1.0}, {"slow_seconds": 1.0}])
def test_limits_that_make_no_sense_are_refused(settings):
    with pytest.raises(ValueError, match="watchdog: expected factor > 1"):
        watchdog.of({"seconds": 300.0, **settings})


def test_a_run_may_go_on_under_another_watchdog():
    saved = {"config": {"batch": 8, "watchdog": {"exit": False, "seconds": 300.0}}}
    config = {"batch": 8, "watchdog": {"exit": True, "seconds": 300.0}}
    args = argparse.Namespace(workdir="runs/x", allow_changes=False)
    assert cli._changes(saved, config, args) == ["watchdog.exit: False -> True"]
    with pytest.raises(ValueError, match="batch: 8 -> 16"):
        cli._changes(saved, {**config, "batch": 16}, args)


def test_no_limits_watch_nothing(tmp_path):
    assert watchdog.of({}) is None and watchdog.of({"seconds": 0.0}) is None
    with Watchdog(tmp_path, None) as dog:
        dog.step()
        assert not dog._thread.is_alive()


HANGS = """
import sys, time
from jaxgen.train.watchdog import Limits, Watchdog

def a_lock_that_nobody_releases():
    while True:
        time.sleep(0.05)

with Watchdog(sys.argv[1], Limits(20.0, 1.0, 60.0, exit=True)) as dog:
    for _ in range(30):
        dog.step()
        time.sleep(0.05)
    print("steps", flush=True)
    if sys.argv[2] == "hang":
        a_lock_that_nobody_releases()
    for _ in range(40):
        dog.step()
        time.sleep(0.05)
"""


def started(folder, what):
    process = subprocess.Popen(
        [sys.executable, "-c", HANGS, str(folder), what],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "steps\n"
    return process


def test_a_hang_ends_the_process_if_asked(tmp_path):
    process = started(tmp_path, "hang")
    out, err = process.communicate(timeout=60)
    assert process.returncode == watchdog.EXIT_CODE == 75
    assert "in a_lock_that_nobody_releases" in err and "exit 75" in err
    assert "a step has not finished" in out


def test_a_process_that_was_stopped_has_not_hung(tmp_path):
    process = started(tmp_path, "go on")
    process.send_signal(signal.SIGSTOP)
    time.sleep(2.5)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert not out and not os.listdir(tmp_path)

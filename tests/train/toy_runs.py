"""Runs of the toy plans for tests: in this process, or in a real one of their own."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import run_toy
from toys import gan_plan

from jaxgen.common import mesh as meshes
from jaxgen.train import loop
from jaxgen.train import state as states
from jaxgen.train.optim import adam
from jaxgen.train.plan import Stage

SCRIPT = str(Path(run_toy.__file__))


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


def assert_same_run(a, b):
    a, b = np.load(a / "final.npz"), np.load(b / "final.npz")
    assert sorted(a.files) == sorted(b.files)
    for name in a.files:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


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


def averages_of(plan):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    params = states.abstract(plan, mesh).params
    return {"generator": params["generator"]}

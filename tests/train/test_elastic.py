"""A run moves between meshes on its way: the same images, the same trajectory."""

import json

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxgen.__main__ import main
from jaxgen.cli import common
from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.recipes import build
from jaxgen.train import state
from jaxgen.train.firsts import losses
from jaxgen.train.store import Store
from jaxgen.train.writer import read

MAKE = meshes.make_mesh
GAN = [
    "--config",
    "configs/gan/digits.py:mlp,debug",
    "--config.generator.features=(64, 64)",  # wide enough to be split by fsdp
    "--config.log_every=16",
    "--config.snapshot_every=0",
]


def on(monkeypatch, devices):
    """Commands see so many of the devices."""
    few = jax.devices()[:devices]
    monkeypatch.setattr(meshes, "make_mesh", lambda d=-1, f=1, t=1, _=None: MAKE(d, f, t, few))


@pytest.fixture
def train(monkeypatch):
    """train(folder, images, devices, flags): the indices of the batches that it took, in order."""
    put = meshes.put_batch

    def run(folder, images, devices, *flags):
        seen = []

        def watched(batch, mesh):
            seen.append(np.asarray(batch["index"]))
            return put(batch, mesh)

        on(monkeypatch, devices)
        monkeypatch.setattr(meshes, "put_batch", watched)
        args = [*GAN, "--workdir", folder, f"--config.images={images}", *flags]
        assert main(["train", "--no_progress", "--allow_changes", *map(str, args)]) == 0
        return seen

    return run


def weights(folder, nimg):
    """All weights, averages and moments of a checkpoint."""
    saved = common.read_saved(folder)
    plan = build(ConfigDict(saved["config"]), saved["facts"])
    one = MAKE(1, 1, 1, jax.devices()[:1])
    with Store(folder / "checkpoints") as store:
        found = store.restore(nimg, "state", state.abstract(plan, one))
    return trees.leaves({"params": found.params, "averages": found.averages, "opt": found.opt})


def trajectory(folder):
    return {r["nimg"]: losses(r) for r in read(folder / "metrics.jsonl") if losses(r)}


def test_a_run_that_moves_goes_on_the_same_way(train, tmp_path, capsys):
    """8 devices, 2 x 2, 1, 4 x 2 and 8 again, against 8 all the time."""
    whole = train(tmp_path / "whole", 160, 8)
    moves = [
        (32, 8, ()),
        (64, 4, ("--config.mesh.fsdp=2",)),
        (96, 1, ()),
        (128, 8, ("--config.mesh.fsdp=2",)),
        (160, 8, ()),
    ]
    seen, done = [], 0
    for images, devices, flags in moves:
        seen += train(tmp_path / "moved", images, devices, *flags)[: (images - done) // 16]
        done = images
    np.testing.assert_array_equal(np.stack(seen), np.stack(whole[:10]))
    a, b = trajectory(tmp_path / "whole"), trajectory(tmp_path / "moved")
    assert list(a) == list(b) == list(range(16, 161, 16))
    for nimg in a:
        for name, value in a[nimg].items():
            assert b[nimg][name] == pytest.approx(value, rel=1e-5), (nimg, name)
    a, b = weights(tmp_path / "whole", 160), weights(tmp_path / "moved", 160)
    for name, x in a.items():
        np.testing.assert_allclose(b[name], x, rtol=1e-3, atol=1e-6, err_msg=name)
    moved = json.loads((tmp_path / "moved" / "config.json").read_text())
    assert [line for line in moved["history"] if line.startswith("mesh.devices")] == [
        "mesh.devices: data 8 x fsdp 1 x tensor 1 -> data 2 x fsdp 2 x tensor 1",
        "mesh.devices: data 2 x fsdp 2 x tensor 1 -> data 1 x fsdp 1 x tensor 1",
        "mesh.devices: data 1 x fsdp 1 x tensor 1 -> data 4 x fsdp 2 x tensor 1",
        "mesh.devices: data 4 x fsdp 2 x tensor 1 -> data 8 x fsdp 1 x tensor 1",
    ]
    capsys.readouterr()
    args = [*map(str, GAN), "--config.images=160", "--workdir", str(tmp_path / "moved")]
    on_other_devices(args, capsys)


def on_other_devices(args, capsys):
    """Another mesh needs no permission, what changes the trajectory does."""
    assert main(["train", "--no_progress", *args, "--config.mesh.fsdp=2"]) == 0
    text = capsys.readouterr().out
    assert "resuming at 160 images" in text and "changed: mesh.fsdp: 1 -> 2" in text
    assert main(["train", "--no_progress", *args, "--config.microbatches=2"]) == 2
    text = capsys.readouterr().err
    assert "microbatches: 1 -> 2" in text and "mesh.fsdp" not in text


@pytest.mark.parametrize("shape", [(8, 1, 1), (2, 4, 1), (2, 2, 2), (1, 2, 4)])
def test_the_rows_that_a_process_reads(shape):
    """One process holds all devices; of a mesh that it shares it reads its devices' rows."""
    mesh = MAKE(*shape)
    np.testing.assert_array_equal(meshes.local_rows(mesh, 16), np.arange(16))


@pytest.mark.parametrize(
    "order, rows",
    [
        ([0, 1, 2, 3], [0, 1, 2, 3]),  # processes one after the other
        ([0, 2, 1, 3], [0, 1, 4, 5]),  # devices of two processes in turn, as on a torus
    ],
)
def test_rows_follow_the_devices_of_a_process(monkeypatch, order, rows):
    """Of 4 devices the first two are this process's."""
    devices = np.array(jax.devices()[:4])[order].reshape(4, 1, 1)
    mesh = jax.sharding.Mesh(devices, meshes.AXES)
    whole = jax.sharding.NamedSharding.devices_indices_map

    def own(sharding, shape):
        return {d: i for d, i in whole(sharding, shape).items() if d.id < 2}

    monkeypatch.setattr(jax.sharding.NamedSharding, "addressable_devices_indices_map", own)
    np.testing.assert_array_equal(meshes.local_rows(mesh, 8), rows)


def test_processes_that_share_a_tensor_axis_read_the_same_rows(monkeypatch):
    devices = np.array(jax.devices()[:4]).reshape(1, 2, 2).transpose(0, 2, 1)
    mesh = jax.sharding.Mesh(devices, meshes.AXES)  # tensor runs over (0, 2) and (1, 3)
    whole = jax.sharding.NamedSharding.devices_indices_map
    for own in ((0, 1), (2, 3)):
        monkeypatch.setattr(
            jax.sharding.NamedSharding,
            "addressable_devices_indices_map",
            lambda s, shape, own=own: {d: i for d, i in whole(s, shape).items() if d.id in own},
        )
        np.testing.assert_array_equal(meshes.local_rows(mesh, 8), np.arange(8))

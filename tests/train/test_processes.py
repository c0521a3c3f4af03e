"""Several processes train as one does, stop together, and say what is wrong."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.experimental import multihost_utils

from jaxgen.common import processes
from jaxgen.train.firsts import losses
from jaxgen.train.store import Store
from jaxgen.train.writer import read

CONFIG = ["--config", "configs/gan/digits.py:mlp,debug"]
# One save, at the end or when asked to stop; every step is logged.
OFTEN = ["--config.checkpoint_every=0", "--config.snapshot_every=0", "--config.log_every=16"]


def start(devices, *args):
    """A real `jaxgen train` with so many virtual devices."""
    flag = "--xla_force_host_platform_device_count="
    flags = re.sub(flag + r"\d+", "", os.environ["XLA_FLAGS"])
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{flags} {flag}{devices}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "jaxgen", "train", "--no_progress", *map(str, args)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def pair(*args, second=()):
    """Two processes of one device each; `second`: arguments that only the second one has."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        where = ["--coordinator", f"localhost:{s.getsockname()[1]}", "--num_processes", 2]
    return [start(1, *args, *where, "--process_id", i, *(second if i else ())) for i in range(2)]


def finish(*running, code=0):
    try:
        texts = [p.communicate(timeout=300)[0] for p in running]
    finally:
        for p in running:
            p.kill()
    assert [p.returncode for p in running] == [code] * len(running), "\n\n".join(texts)
    return texts


def trajectory(folder):
    """{images seen: losses} of all steps."""
    return {r["nimg"]: losses(r) for r in read(folder / "metrics.jsonl") if losses(r)}


def test_two_processes_are_one_run(tmp_path):
    """Two are asked to stop, one goes on, then two again: as if one had never been disturbed."""
    run = [*CONFIG, *OFTEN, "--workdir", tmp_path / "a", "--allow_changes"]
    both = pair(*run, "--config.images=1M", "--config.sample_every=1M")
    while not (tmp_path / "a" / "first_steps.json").exists():
        assert both[0].poll() is None, both[0].communicate()[0]
        time.sleep(0.02)
    both[1].send_signal(signal.SIGTERM)  # the first one is told by the second
    texts = finish(*both, code=128 + signal.SIGTERM)
    (nimg,) = map(int, re.findall(r"SIGTERM: saved a checkpoint at (\d+) images", texts[0]))
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert results["nimg"] == nimg and not results["finished"] and results["processes"] == 2
    assert results["last"]["nimg"] == nimg
    assert texts[1].count("saved") == 0, "one process logs"

    (text,) = finish(start(2, *run, f"--config.images={nimg + 32}"))
    assert f"resuming at {nimg} images" in text and "changed: images" in text
    texts = finish(*pair(*run, f"--config.images={nimg + 64}", f"--config.sample_every={nimg}"))
    assert f"resuming at {nimg + 32} images" in texts[0]
    assert list((tmp_path / "a" / "samples").glob("*.png"))

    alone = [*CONFIG, *OFTEN, "--workdir", tmp_path / "b", f"--config.images={nimg + 64}"]
    finish(start(2, *alone))
    a, b = trajectory(tmp_path / "a"), trajectory(tmp_path / "b")
    assert list(a) == list(range(16, nimg + 65, 16)) and a == b
    jax.tree.map(np.testing.assert_array_equal, *(arrays(tmp_path / n, nimg + 64) for n in "ab"))
    one, two = (json.loads((tmp_path / n / "results.json").read_text()) for n in "ab")
    kept = one["first_steps"]  # until the images, a setting, were others
    assert kept and kept == two["first_steps"][: len(kept)]
    assert one["started"]["processes"] == 2 and one["finished"]


def arrays(folder, nimg):
    """All arrays of a checkpoint, by name."""
    with Store(folder / "checkpoints") as store:
        saved = store.meta(nimg)["arrays"]["state"]
        place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        target = {n: jax.ShapeDtypeStruct(s, t, sharding=place) for n, (s, t) in saved.items()}
        return store.restore(nimg, "state", target)


def test_when_one_fails_the_others_are_told(tmp_path):
    begin = time.monotonic()
    missing = ["--config.data.source=npz:missing.npz"]
    texts = finish(*pair(*CONFIG, "--workdir", tmp_path, second=missing), code=2)
    assert "missing.npz" in texts[1]
    assert "stopped, because another process failed: process 1: FileNotFoundError" in texts[0]
    assert time.monotonic() - begin < processes.SILENCE_SECONDS
    assert not (tmp_path / "config.json").exists()


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_other(tmp_path):
    both = pair(*CONFIG, *OFTEN, "--workdir", tmp_path, "--config.images=10M")
    while not (tmp_path / "first_steps.json").exists():
        assert both[0].poll() is None, both[0].communicate()[0]
        time.sleep(0.02)
    both[1].kill()
    begin = time.monotonic()
    (text,) = finish(both[0], code=processes.AGAIN)
    both[1].communicate()
    assert "another process is gone without a word" in text
    assert time.monotonic() - begin < processes.SILENCE_SECONDS


@pytest.mark.slow
@pytest.mark.parametrize("axis", ["fsdp", "tensor"])
def test_parameters_and_batches_spread_over_processes(tmp_path, axis):
    """As many processes as parts of the parameters; of a tensor axis both read the same rows."""
    run = [*CONFIG, *OFTEN, "--config.generator.features=(64, 64)", f"--config.mesh.{axis}=2"]
    for n, devices in ((0, 1), (1, 2)):
        workdir = ["--workdir", tmp_path / str(n), "--config.images=160"]
        finish(*(pair(*run, *workdir) if devices == 1 else [start(2, *run, *workdir)]))
    a, b = trajectory(tmp_path / "0"), trajectory(tmp_path / "1")
    assert len(a) == 10 and a == b
    jax.tree.map(np.testing.assert_array_equal, *(arrays(tmp_path / n, 160) for n in "01"))


def test_who_does_not_come_is_missed(tmp_path):
    where = ["--coordinator", "localhost:1", "--num_processes", 2, "--process_id", 1]
    late = start(1, *CONFIG, "--workdir", tmp_path, *where, "--join_timeout", 2)
    (text,) = finish(late, code=processes.AGAIN)
    assert "process 1 of 2 (at localhost:1): not all processes have met after 2 s" in text
    assert "localhost:1 does not answer" in text and "--join_timeout" in text


@pytest.mark.parametrize(
    "flags, message",
    [
        (("h:1", None, 0), "--num_processes missing: --coordinator HOST:PORT, --num_processes N"),
        ((None, 2, None), "--coordinator and --process_id missing"),
        (("host", 2, 0), "--coordinator must be HOST:PORT, .* got 'host'"),
        (("host:0", 2, 0), "must be HOST:PORT"),
        (("h:1", 2, 2), "--process_id must be in 0 to N-1 for --num_processes N, got 2 of 2"),
        (("h:1", 0, 0), "got 0 of 0"),
    ],
)
def test_wrong_flags(flags, message):
    with pytest.raises(ValueError, match=message):
        processes.check_flags(*flags)


SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[1-4]",
    "SLURM_NTASKS": "4",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_PROCID": "1",
    "SLURM_LOCALID": "0",
}


@pytest.mark.parametrize(
    "variables, by",
    [
        ({}, None),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),  # `srun -n1` inside of an allocation of 4
        ({"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4"}, None),  # a batch script, without srun
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # a notebook's pod
        ({"OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}, "ompi"),
    ],
)
def test_clusters_are_found(monkeypatch, variables, by):
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_", "KUBERNETES_", "JOB_COMPLETION", "TPU_")):
            monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    found = processes.detect()
    assert (found and found.by) == by


def test_a_tpu_pod_is_found(monkeypatch):
    """GKE's variables, as on one of two hosts; a single host is no pod."""
    from jax._src.clusters import cloud_tpu_cluster

    monkeypatch.setattr(cloud_tpu_cluster, "running_in_cloud_tpu_vm", True)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "host-0,host-1")
    monkeypatch.setenv("TPU_WORKER_ID", "1")
    monkeypatch.setenv("MEGASCALE_NUM_SLICES", "1")
    assert processes.detect() == processes.Place(by="gketpu")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    assert processes.detect() is None


def test_a_pod_of_a_job_that_cannot_find_the_others(monkeypatch):
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "3")
    with pytest.raises(RuntimeError, match="this is process 3 of an indexed Kubernetes job"):
        processes.detect()


@pytest.mark.parametrize(
    "variables, whole",
    [
        ({"SLURM_STEP_TASKS_PER_NODE": "1(x4)"}, True),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)", "CUDA_VISIBLE_DEVICES": "0,1,2,3,4,5,6,7"}, False),
        ({"SLURM_STEP_TASKS_PER_NODE": "8(x4)", "CUDA_VISIBLE_DEVICES": "3"}, True),
        ({}, False),
    ],
)
def test_gpus_of_a_slurm_task(variables, whole):
    assert processes._all_gpus(variables) == whole


def test_all_processes_need_the_same_data(monkeypatch):
    digests = [bytes.fromhex(d * 8) for d in ("00", "00", "07")]
    rows = np.stack([np.frombuffer(d, np.uint32) for d in digests])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    monkeypatch.setattr(multihost_utils, "process_allgather", lambda mine: rows)
    with pytest.raises(ValueError, match=r"the data: processes \[2\] have another than process 0"):
        processes.check_same("the data", "00" * 32)
    rows = rows[[0, 1, 1]]
    processes.check_same("the data", "00" * 32)

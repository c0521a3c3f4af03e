"""The launch scripts: their syntax, and that the flags that they pass exist."""

import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from jaxgen.cli import common, train
from jaxgen.common import processes
from jaxgen.train import watchdog

LAUNCH = Path(__file__).resolve().parents[1] / "scripts" / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))
CONFIG = "configs/edm2/digits.py:debug"
ARGS = ["--config", CONFIG, "--workdir", "/shared/a run", "--config.mesh.fsdp=2"]


def check(argv):
    """That `jaxgen train` takes these arguments, and the config its settings."""
    args, rest = train.parser().parse_known_args(argv)
    assert args.workdir and all(a.startswith("--config.") for a in rest), rest
    return args, common.load_config(CONFIG, rest)


def dry(script, *args, code=0, **variables):
    """What the script would run, as lists of words, and all that it says."""
    environment = {"PATH": os.environ["PATH"], "DRY_RUN": "1", **variables}
    done = subprocess.run(
        ["bash", LAUNCH / script, *args],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return [shlex.split(line) for line in done.stdout.splitlines()], done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda p: p.name)
def test_syntax(script):
    subprocess.run(["bash", "-n", script], check=True, timeout=60)
    assert os.access(script, os.X_OK)
    if shutil.which("shellcheck"):
        subprocess.run(["shellcheck", script], check=True, timeout=60)


def test_slurm():
    commands, _ = dry("slurm.sh", *ARGS)
    assert commands[0][:4] == ["srun", "--kill-on-bad-exit=0", "jaxgen", "train"]
    args, config = check(commands[0][4:])
    assert args.workdir == "/shared/a run" and config.mesh.fsdp == 2 and config.watchdog.exit
    assert "give the arguments of jaxgen train" in dry("slurm.sh", code=2)[1]


@pytest.mark.parametrize(
    "code, restarts, found",
    [
        (0, 0, None),
        (143, 3, "scontrol requeue 7"),
        (75, 0, "scontrol requeue 7"),
        (75, 20, "no more"),
        (2, 0, "exit code 2"),
    ],
)
def test_slurm_goes_on_after_what_passes(tmp_path, code, restarts, found):
    """With a srun and a scontrol of our own."""
    for name, line in {"srun": f"exit {code}", "scontrol": 'echo "scontrol $*"'}.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{line}\n")
        (tmp_path / name).chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "7"}
    environment["SLURM_RESTART_COUNT"] = str(restarts)
    done = subprocess.run(
        ["bash", LAUNCH / "slurm.sh", *ARGS], env=environment, capture_output=True, text=True
    )
    again = found is not None and found.startswith("scontrol")
    assert done.returncode == (0 if again or not code else code)
    assert (found or "finished") in done.stdout + done.stderr
    assert ("scontrol requeue" in done.stdout) == again


def test_the_codes_that_mean_again():
    assert watchdog.EXIT_CODE == processes.AGAIN == 75
    assert "  75 | 134 | 137 | 143)" in (LAUNCH / "slurm.sh").read_text()


def test_tpu_vm():
    commands, _ = dry("tpu_vm.sh", *ARGS, TPU="a", ZONE="b", TYPE="v5p-128", SPOT="1")
    on = ["gcloud", "compute", "tpus", "tpu-vm"]
    assert [c[4] for c in commands if c[:4] == on] == ["create", "scp", "ssh", "ssh"]
    create = commands[0]
    assert create[5] == "a" and {"--zone=b", "--accelerator-type=v5p-128", "--spot"} <= set(create)
    assert all("--worker=all" in c for c in commands if c[4:5] in (["scp"], ["ssh"]))
    line = commands[-1][-1].removeprefix("--command=")
    words = shlex.split(line)
    at = words.index("../venv/bin/jaxgen")
    assert words[:3] == ["cd", "jaxgen", "&&"] and words[at + 1] == "train"
    args, config = check(words[at + 2 :])
    assert args.workdir == "/shared/a run" and config.mesh.fsdp == 2 and config.watchdog.exit
    assert "the name of the slice" in dry("tpu_vm.sh", *ARGS, code=1)[1]


def test_jobset():
    jobs = yaml.safe_load((LAUNCH / "gke-jobset.yaml").read_text())
    assert (jobs["apiVersion"], jobs["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    (replicated,) = jobs["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    assert job["completionMode"] == "Indexed" and job["backoffLimit"] == 0
    pod = job["template"]["spec"]
    chips = 1
    for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"):
        chips *= int(side)
    (container,) = pod["containers"]
    a_host = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == a_host
    assert job["parallelism"] == job["completions"] == chips // a_host
    assert pod["restartPolicy"] == "Never", "a pod failure policy needs it"
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [2],
    }
    (rule,) = jobs["spec"]["failurePolicy"]["rules"]
    assert rule == {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
    mounts = {m["name"]: m["mountPath"] for m in container["volumeMounts"]}
    assert mounts.keys() == {v["name"] for v in pod["volumes"]}
    assert container["command"] == ["jaxgen", "train"]
    args, config = check(container["args"])
    assert args.workdir.startswith(mounts["runs"]) and config.watchdog.exit
    assert (replicated["replicas"] * chips) % config.mesh.fsdp == 0

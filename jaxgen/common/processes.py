"""Several processes that train one run: how they find each other, and how they end together.

A process is one of several when flags say so, or when JAX recognises the cluster: SLURM, Open MPI,
TPU pods (Cloud TPU VMs, GKE, JobSets) and indexed Kubernetes jobs. Alone, nothing is started.

An exception in one process must not leave the others waiting in a collective: it tells them, and
all of them end at once, without the barriers of an orderly end. What they had saved is intact.
"""

import contextlib
import dataclasses
import itertools
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import Any

JOIN_SECONDS = 300  # to wait for all processes at the start
SILENCE_SECONDS = 60  # after which a process that is not heard of counts as dead
END_SECONDS = 3600  # to wait for the slowest one at the end: it may be hashing a checkpoint
POLL_SECONDS = 1.0  # from one look at whether another process has failed to the next
EXPECTED = (ValueError, OSError, RuntimeError, KeyError)  # told in words, without a trace
AGAIN = 75  # exit code: start all processes again (EX_TEMPFAIL; that of the watchdog, too)
LOST = ("Gloo", "NCCL", "by peer", "heartbeat")  # in errors of a collective that lost a process
_ending = threading.Lock()
_meetings = itertools.count()
FAILED = "jaxgen/failed"  # where a process leaves its last words


@dataclasses.dataclass(frozen=True)
class Place:
    """Which process this is; None leaves all three to the cluster (`by` is its name)."""

    coordinator: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    by: str = "flags"


def check_flags(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> Place | None:
    """The place that the flags name, or None when none was given.

    Raises:
      ValueError: some of them are missing, or out of range.
    """
    flags = {
        "--coordinator": coordinator,
        "--num_processes": num_processes,
        "--process_id": process_id,
    }
    missing = [name for name, value in flags.items() if value is None]
    if len(missing) == len(flags):
        return None
    if missing:
        raise ValueError(
            f"{' and '.join(missing)} missing: --coordinator HOST:PORT, --num_processes N and "
            "--process_id I (0 to N-1, another one for each process) belong together; on SLURM, "
            "TPU pods and JobSets leave all three out"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(
            "--coordinator must be HOST:PORT, an address of process 0 that all processes reach, "
            f"got {coordinator!r}"
        )
    if num_processes < 1 or not 0 <= process_id < num_processes:
        raise ValueError(
            f"--process_id must be in 0 to N-1 for --num_processes N, got {process_id} of "
            f"{num_processes}"
        )
    return Place(coordinator, num_processes, process_id)


def detect() -> Place | None:
    """The cluster in which this process is one of several, as JAX recognises it.

    Raises:
      RuntimeError: certainly one of several, but what the others need to know is missing.
    """
    step, job = os.environ.get("SLURM_STEP_NUM_TASKS"), os.environ.get("JOB_COMPLETION_INDEX")
    if step == "1":  # one task of a larger allocation: SLURM_NTASKS may be that of the allocation
        return None
    from jax._src.clusters import ClusterEnv  # the list that jax.distributed.initialize() tries

    for cluster in ClusterEnv._cluster_types:
        # JAX asks Kubernetes in any of its pods, a notebook's too; only an indexed job has several.
        pod = cluster.__name__ == "K8sCluster"
        if cluster.opt_in_only_method or (pod and job is None) or not cluster.is_env_present():
            continue
        if pod or cluster.get_process_count() > 1:
            return Place(by="Kubernetes" if pod else cluster.name)
        return None
    if job not in (None, "0"):
        raise RuntimeError(
            f"this is process {job} of an indexed Kubernetes job, but nothing tells how many there "
            "are; give --coordinator, --num_processes and --process_id, or install kubernetes "
            "(pip install 'jax[k8s]')"
        )
    return None


def join(
    place: Place, join_seconds: float = JOIN_SECONDS, silence_seconds: int = SILENCE_SECONDS
) -> None:
    """Connects this process with the others; before JAX is used for anything else.

    Ends the process with exit code AGAIN when they have not all met after `join_seconds`.

    Raises:
      RuntimeError: the coordinator's port is taken, JAX is in use, or its cluster is incomplete.
    """
    import jax

    print(f"{_name(place)}: joining the others", flush=True)
    late = threading.Timer(join_seconds, _give_up, (place, join_seconds))
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.num_processes,
            place.process_id,
            cluster_detection_method="deactivate" if place.coordinator else None,
            # Past its own limit JAX aborts with a stack trace: `late` comes before that.
            initialization_timeout=int(join_seconds) + 60,
            heartbeat_timeout_seconds=silence_seconds,
            shutdown_timeout_seconds=END_SECONDS,
        )
    except Exception as e:
        raise RuntimeError(
            f"{_name(place)}: {str(e)[:300]}. {_advice(place)}" + _port_taken(place, e)
        ) from e
    finally:
        late.cancel()
    if place.by == "slurm" and _all_gpus(os.environ):
        jax.config.update("jax_cuda_visible_devices", "all")


def _all_gpus(env: Any) -> bool:
    """Whether a SLURM task has all GPUs that it sees; JAX would give it the one of its number."""
    tasks = env.get("SLURM_STEP_TASKS_PER_NODE", env.get("SLURM_TASKS_PER_NODE", "")).split("(")[0]
    bound = env.get("CUDA_VISIBLE_DEVICES", "")
    return tasks == "1" or (bound != "" and "," not in bound)


def _name(place: Place) -> str:
    if place.coordinator is None:
        return f"one of several processes ({place.by})"
    return f"process {place.process_id} of {place.num_processes} (at {place.coordinator})"


def _advice(place: Place) -> str:
    if place.coordinator is None:
        return "Look at the first process's log, or give --coordinator and the flags beside it"
    return (
        "Are all processes started, with the same --coordinator and --num_processes and each with "
        "its own --process_id? Is HOST an address of process 0's machine that the others reach, "
        "and PORT free there and open in the firewall?"
    )


def _port_taken(place: Place, e: Exception) -> str:
    taken = place.process_id == 0 and "RPC server" in str(e)
    return f" Port {place.coordinator.rpartition(':')[2]} is taken here" if taken else ""


def _give_up(place: Place, seconds: float) -> None:
    found = ""
    if place.coordinator is not None:
        host, _, port = place.coordinator.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=5).close()
            found = f"{place.coordinator} answers, so some of the others are missing. "
        except OSError as e:
            found = f"{place.coordinator} does not answer ({e}). "
    print(
        f"error: {_name(place)}: not all processes have met after {seconds:g} s. {found}"
        f"{_advice(place)} (--join_timeout SECONDS waits longer)",
        file=sys.stderr,
        flush=True,
    )
    os._exit(AGAIN)


@contextlib.contextmanager
def joined(
    place: Place | None, join_seconds: float = JOIN_SECONDS, silence_seconds: int = SILENCE_SECONDS
) -> Iterator[None]:
    """In here this process is one of several, if it has a place among others.

    An exception ends all processes at once (`abandon`). The orderly end is left to JAX, which waits
    for all at the exit, so that the coordinator does not go first.
    """
    if place is None or place.num_processes == 1:
        yield
        return
    join(place, join_seconds, silence_seconds)
    done = threading.Event()
    listener = threading.Thread(target=_listen, args=(done,), daemon=True)
    listener.start()
    try:
        yield
    except BaseException as e:
        abandon(e)
        raise
    finally:
        done.set()
        listener.join()


def abandon(e: BaseException) -> None:
    """With others: tells them of an exception and ends this process; alone: does nothing.

    To be called where others may be waiting for this process, before anything waits for them.
    """
    client = _client()
    if client is None:
        return
    import jax

    words = f"process {jax.process_index()}: {type(e).__name__}: {e}"
    if os.environ.get("JAXGEN_TRACEBACK") or not isinstance(e, EXPECTED):
        with contextlib.suppress(OSError):
            traceback.print_exception(e)
    other = _failure(client)
    if other is None:
        with contextlib.suppress(Exception):  # the coordinator may be gone
            client.key_value_set(FAILED, words)
    _stop(words, other)


def _stop(words: str | None, other: str | None) -> None:
    """Ends this process, saying what it and, before it, another one failed of.

    With code 2; with AGAIN when another one is gone without a word, killed or unreachable.
    """
    import jax

    _ending.acquire()  # of the main thread and the listener only the first has its say
    lost = any(w in (other or words or "") for w in LOST)
    try:
        if words is not None:
            gone = lost and other is None
            hint = " (another process is gone without a word; its log may say why)" if gone else ""
            print(f"error: {words}{hint}", file=sys.stderr)
        if other is not None:
            print(f"error: stopped, because another process failed: {other}", file=sys.stderr)
        sys.stderr.flush()
        sys.stdout.flush()
        if jax.process_index() == 0:  # the others read it from this one
            time.sleep(3 * POLL_SECONDS)
    finally:  # even when nobody reads what is printed any more
        os._exit(AGAIN if lost else 2)


def _failure(client: Any) -> str | None:
    """What another process has said that it failed of."""
    try:
        return client.key_value_try_get(FAILED)
    except Exception:  # not there; or no coordinator, and then JAX ends this process
        return None


def _listen(done: threading.Event) -> None:
    """Ends this process when another one has said that it failed."""
    import jax

    while not done.wait(POLL_SECONDS):
        client = _client()
        words = _failure(client) if client is not None else None
        if words is not None and not words.startswith(f"process {jax.process_index()}:"):
            _stop(None, words)


def _client() -> Any:
    from jax._src import distributed  # what Orbax uses, too: JAX has no public door to it

    return distributed.global_state.client


def meet() -> None:
    """Waits for all processes, on no device; each must call it as often as the others.

    Where one may be minutes later than another (data, compilers): collectives themselves do not
    wait for long, those of CPUs (gloo) 30 s when they are set up.
    """
    client = _client()
    if client is not None:
        client.wait_at_barrier(f"jaxgen/meet/{next(_meetings)}", END_SECONDS * 1000)


def fetch(tree: Any) -> Any:
    """Whole arrays on the host, of arrays that may be spread over processes; all must call it."""
    import jax
    from jax.experimental import multihost_utils

    if all(x.is_fully_addressable or x.is_fully_replicated for x in jax.tree.leaves(tree)):
        return jax.device_get(tree)
    return multihost_utils.process_allgather(tree, tiled=True)


def check_same(what: str, digest: str) -> None:
    """Raises ValueError in every process when they hold different hex digests of `what`."""
    import jax
    import numpy as np
    from jax.experimental import multihost_utils

    if jax.process_count() == 1:
        return
    meet()
    mine = np.frombuffer(bytes.fromhex(digest)[:8], np.uint32)
    found = multihost_utils.process_allgather(mine)
    other = [i for i, row in enumerate(found) if (row != found[0]).any()]
    if other:
        raise ValueError(
            f"{what}: processes {other} have another than process 0; all need the same"
        )

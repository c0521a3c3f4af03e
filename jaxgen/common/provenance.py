"""Where a number comes from: versions, commit and machine, for every result file."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from functools import lru_cache
from pathlib import Path
from typing import Any

PACKAGES = ("jaxgen", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")


@lru_cache(maxsize=1)
def commit() -> str | None:
    """The git commit of this checkout, with "+changes" when files differ; None outside of one."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    git = lambda *a: subprocess.run(
        ["git", "-C", str(folder), *a], capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()
    try:
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def machine() -> str:
    """The host in words: architecture, processors that this process may use, their model."""
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count()
    model = ""
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "")
    return ", ".join(filter(None, [platform.machine(), f"{cores} cores", model]))


def facts() -> dict[str, Any]:
    """{"versions", "commit", "python", "device", "machine", "xla_flags"} of this process."""
    import jax

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    device = jax.devices()[0]
    return {
        "versions": versions,
        "commit": commit(),
        "python": platform.python_version(),
        "machine": machine(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
    }

"""Eight virtual devices for the whole suite, a compile cache, and folders of reference numbers."""

import importlib.metadata
import os
import pathlib

os.environ["JAX_PLATFORMS"] = os.environ.get("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = (
        os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
    ).strip()
# Tests wait for compilers, not for arithmetic: cheap code halves the time. So does jax 0.10's older
# emitter of fused loops, which makes far less code of them, and one thread of code generation
# spends less time in all than several. Real processes use the default (their tests say so).
if "xla_backend_optimization_level" not in os.environ["XLA_FLAGS"]:
    os.environ["XLA_FLAGS"] += (
        " --xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    )
    if importlib.metadata.version("jax").startswith("0.10."):  # later ones have no such emitter
        os.environ["XLA_FLAGS"] += (
            " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        )
# Many tests compile the same small programs, in this process and in ones they start.
_cache = pathlib.Path(__file__).resolve().parents[1] / ".pytest_cache" / "xla"
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(_cache))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
# Real data and published weights, unless JAXGEN_DATA says where: beside the reference numbers.
_data = pathlib.Path(os.environ.get("JAXGEN_GOLDENS") or ".").resolve().parent / "data"
if os.environ.get("JAXGEN_GOLDENS") and _data.is_dir():
    os.environ.setdefault("JAXGEN_DATA", str(_data))

import pytest  # noqa: E402 - the environment above comes first


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow")


# The longest files: they come first so that no process is left with one of them at the end.
LONG = (
    "test_experiments.py",
    "test_loop.py",
    "test_commands.py",
    "test_learning.py",
    "test_configs.py",
)


def pytest_collection_modifyitems(config, items):
    items.sort(key=lambda item: item.path.name not in LONG)
    if config.getoption("--slow"):
        return
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(pytest.mark.skip(reason="slow: run with --slow"))


@pytest.fixture(scope="session")
def goldens() -> pathlib.Path:
    """The folder of reference numbers, from JAXGEN_GOLDENS; skips with a message when not set."""
    folder = os.environ.get("JAXGEN_GOLDENS")
    if not folder:
        pytest.skip("JAXGEN_GOLDENS is not set: no reference numbers to compare with")
    path = pathlib.Path(folder).resolve()
    if not path.is_dir():
        pytest.fail(f"JAXGEN_GOLDENS={folder} is not a folder")
    return path

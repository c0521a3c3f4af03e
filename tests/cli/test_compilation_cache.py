"""The cache of compiled programs: where it is; a bad one neither stops nor wrongs a run."""

import warnings

import jax
import jax.numpy as jnp
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxgen.cli import common

NAMES = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")


@pytest.fixture(autouse=True)
def settings(monkeypatch):
    """As in a new process; afterwards as before."""
    before = {name: getattr(jax.config, name) for name in NAMES}
    jax.devices()  # reads XLA_FLAGS, to which setup_jax adds
    monkeypatch.setenv("XLA_FLAGS", "")
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def use(folder):
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    compilation_cache.reset_cache()
    jax.clear_caches()


def answer():
    """A program that is compiled anew each time, its result."""
    return float(jax.jit(lambda x: (x * 3 + jnp.sin(x)).sum())(jnp.arange(7.0)))


def test_its_place(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.delenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    common.setup_jax()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "jaxgen" / "xla")
    assert jax.config.jax_persistent_cache_min_compile_time_secs == 0
    jax.config.update("jax_compilation_cache_dir", "elsewhere")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "elsewhere")  # JAX reads it itself
    common.setup_jax()
    assert jax.config.jax_compilation_cache_dir == "elsewhere"


@pytest.mark.parametrize("damage", ["flipped", "truncated", "empty", "foreign"])
def test_a_damaged_entry_is_not_used(tmp_path, damage):
    use(tmp_path)
    want = answer()
    entries = list(tmp_path.glob("*-cache"))
    assert entries
    for path in entries:
        data = bytearray(path.read_bytes())
        for at in (len(data) // 10, len(data) // 2, len(data) - 9):
            data[at] ^= 0x40
        changed = {"flipped": bytes(data), "truncated": bytes(data[:99]), "empty": b""}
        path.write_bytes(changed.get(damage, b"something else" * 9))
    use(tmp_path)
    with pytest.warns(UserWarning, match="cache entry"):
        assert answer() == want


def test_a_cache_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    use(tmp_path / "file" / "xla")
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        assert answer() == answer()

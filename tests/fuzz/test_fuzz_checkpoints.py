"""Damaged checkpoints whose checksums fit: what a stranger could hand over."""

import hashlib
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fuzzing import COUNTS, damaged, fuzz, json_values, memory, replaced, tame
from hypothesis import strategies as st

from jaxgen.train.store import Store

TREE = {"a": {"w": jnp.arange(6.0).reshape(2, 3), "b": jnp.ones(3)}, "n": jnp.int32(3)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(folder, {file: bytes}) of a store with one entry, 7."""
    root = tmp_path_factory.mktemp("store")
    with Store(root) as store:
        store.save(7, {"state": TREE}, {"nimg": 7, "sigma_rel": {"power_0.1": 0.1}})
    files = [p for p in root.rglob("*") if p.is_file()]
    return root, {p.relative_to(root).as_posix(): p.read_bytes() for p in files}


def restore(folder):
    """The entry as a run reads it, if it is not damaged."""
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE)
    with Store(folder, log=lambda text: None) as store:
        number = store.newest()
        if number is None:
            return None
        meta = store.meta(number)
        assert isinstance(meta["arrays"], dict)
        return store.restore(number, "state", target)


def attempt(made, folder, files):
    """Restores a copy in which these files are others, and the sums are theirs."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(made[0], folder)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    manifest = "manifests/7.json"
    if manifest not in files:
        sums = json.loads(made[1][manifest])
        entry = folder / "7"
        for name in sums["sha256"]:
            data = (entry / name).read_bytes()
            sums["sha256"][name] = hashlib.sha256(data).hexdigest()
        (folder / manifest).write_text(json.dumps(sums))
    tree, _ = tame(lambda: restore(folder), folder.parent, str(folder))
    if tree is not None:
        assert jax.tree.map(np.shape, tree) == jax.tree.map(np.shape, TREE)


@COUNTS
def test_files_of_a_checkpoint(count, made, tmp_path):
    assert restore(made[0]) is not None
    texts = {n: d for n, d in made[1].items() if d[:1] == b"{"}
    files = st.one_of(damaged(made[1]), damaged(texts))
    with memory(200):
        fuzz(count, files, lambda e: attempt(made, tmp_path / "s", dict([e])))
    assert [p.name for p in tmp_path.iterdir() if p.name not in ("s", "damaged")] == []


@COUNTS
def test_json_of_a_checkpoint(count, made, tmp_path):
    dumps = lambda v: json.dumps(v).encode("utf-8", "surrogatepass")
    texts = {n: json.loads(d) for n, d in made[1].items() if d[:1] == b"{"}
    assert len(texts) >= 4
    trees = st.one_of(
        *(st.tuples(st.just(n), st.one_of(replaced(v), json_values())) for n, v in texts.items())
    )
    with memory(200):
        fuzz(count, trees, lambda e: attempt(made, tmp_path / "s", {e[0]: dumps(e[1])}))


def test_a_damaged_commit_is_named_and_not_needed(made, tmp_path):
    """Orbax reads it of all entries before any; what it says is not relied upon."""
    folder = tmp_path / "s"
    shutil.copytree(made[0], folder)
    commit = folder / "7" / "_CHECKPOINT_METADATA"
    commit.write_text("[]")
    with pytest.raises(ValueError, match="_CHECKPOINT_METADATA of its entries"):
        restore(folder)
    commit.unlink()
    assert restore(folder)["n"] == 3


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "7/../../x", "", "."])
def test_checksums_of_files_elsewhere_are_not_taken(made, tmp_path, name):
    folder = tmp_path / "s"
    shutil.copytree(made[0], folder)
    (folder / "manifests" / "7.json").write_text(json.dumps({"sha256": {name: "0"}}))
    with Store(folder, log=lambda text: None) as store:
        assert "which is not in" in store.damage(7)[0]


@pytest.mark.parametrize("sums", [{}, [], None, {"state/_METADATA": "0"}])
def test_a_file_without_a_checksum_is_damage(made, tmp_path, sums):
    folder = tmp_path / "s"
    shutil.copytree(made[0], folder)
    (folder / "manifests" / "7.json").write_text(json.dumps({"sha256": sums}))
    with Store(folder, log=lambda text: None) as store:
        text = "; ".join(store.damage(7))
    assert "has no checksum" in text if isinstance(sums, dict) else "is not readable" in text


def test_links_out_of_a_checkpoint_are_not_written_through(made, tmp_path):
    """A folder of a run that is a link: opening it leaves what is behind the link as it was."""
    run, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    run.mkdir()
    shutil.copytree(made[0], elsewhere)
    (run / "checkpoints").symlink_to(elsewhere)
    before = sorted(p.relative_to(elsewhere) for p in pathlib.Path(elsewhere).rglob("*"))
    restore(run / "checkpoints")
    assert before == sorted(p.relative_to(elsewhere) for p in elsewhere.rglob("*"))

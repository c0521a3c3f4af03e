"""What a save takes hold of: values that stay, whatever lies how; small arrays come as one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from test_processes import CONFIG, finish, pair

from jaxgen.common import mesh as meshes
from jaxgen.train import held, store
from jaxgen.train.store import DamagedError, SaveError, Store
from jaxgen.train.writer import read

COUNT = 2000


LARGE = held.SMALL // 4


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh(data=2, fsdp=4)


def tree_on(mesh):
    """Whole and split, small and large, of several dtypes, of jax and of numpy."""
    whole, split = NamedSharding(mesh, P()), NamedSharding(mesh, P("fsdp"))
    x = np.arange(COUNT, dtype=np.float32)
    large = np.arange(LARGE, dtype=np.float32)
    return {
        "whole": {str(t): jax.device_put(x.astype(t), whole) for t in ("float32", "bfloat16")},
        "flag": jax.device_put(x > 7, whole),
        "step": jax.device_put(jnp.int32(3), whole),
        "split": jax.device_put(x.reshape(4, -1), split),
        "large": jax.device_put(large, whole),
        "large_split": jax.device_put(large, split),
        "host": x.copy(),
    }


def structs(tree):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None)),
        tree,
    )


def same(found, want):
    def check(a, b):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))

    jax.tree.map(check, found, want)


@pytest.mark.parametrize("copied", [held.COPIED, 0])
def test_values_stay_when_all_is_donated_and_changed(mesh, tmp_path, monkeypatch, copied):
    monkeypatch.setattr(held, "COPIED", copied)
    tree, want = tree_on(mesh), tree_on(mesh)
    lie = structs(tree)
    host = tree.pop("host")
    update = lambda t: jax.tree.map(lambda x: (x * 2 + 1).astype(x.dtype), t)
    change = jax.jit(update, donate_argnums=0).lower(tree).compile()
    with Store(tmp_path) as s:
        s.save(1, {"state": {**tree, "host": host}}, {})
        for _ in range(3):
            tree = change(tree)
        host *= 0
        s.wait()
        found = s.restore(1, "state", lie)
        meta = s.meta(1)
    same(found, want)
    where = jax.tree.map(lambda x: getattr(x, "sharding", None), (found, lie))
    assert where[0] == where[1]
    small = {"whole.float32", "whole.bfloat16", "flag", "step", "host"}
    assert {*meta["packed"]["state"]} == small < {*meta["arrays"]["state"]}


def test_copies_lie_as_the_arrays_do(mesh):
    tree = tree_on(mesh)
    values, safe = held.take(tree)
    for name in ("split", "large_split"):
        assert values[name].sharding == tree[name].sharding and values[name] is not tree[name]
    assert safe and isinstance(values["large"], np.ndarray)


def test_more_than_may_be_copied_is_not(mesh, monkeypatch):
    tree = {k: v for k, v in tree_on(mesh).items() if "split" in k}
    a_device = sum(x.nbytes for x in tree.values()) // 4
    monkeypatch.setattr(held, "COPIED", a_device)
    assert held.take(tree)[1]
    monkeypatch.setattr(held, "COPIED", a_device - 1)
    values, safe = held.take(tree)
    assert not safe and all(values[n] is tree[n] for n in tree)


@pytest.mark.parametrize("devices", [1, 4])
def test_packed_arrays_come_to_lie_otherwise_and_as_another_dtype(mesh, tmp_path, devices):
    tree = tree_on(mesh)
    to = NamedSharding(meshes.make_mesh(devices=jax.devices()[:devices]), P("data"))
    target = {"x": jax.ShapeDtypeStruct((COUNT,), jnp.float32, sharding=to)}
    with Store(tmp_path) as s:
        s.save(1, {"state": {"x": tree["whole"]["bfloat16"]}}, {})
        s.wait()
        found = s.restore(1, "state", target)["x"]
    assert found.sharding == to and found.dtype == jnp.float32
    np.testing.assert_array_equal(found, np.float32(tree["whole"]["bfloat16"]))


def test_entries_from_before_arrays_were_packed_are_read(mesh, tmp_path, monkeypatch):
    """One name an array, compressed, and no word of packing in the description."""
    describe = held.describe
    with monkeypatch.context() as before:
        before.setattr(held, "SMALL", 0)
        before.setattr(held, "describe", lambda x: {"arrays": describe(x)["arrays"]})
        before.setattr(store, "_handlers", lambda: None)
        with Store(tmp_path) as s:
            s.save(1, {"state": tree_on(mesh)}, {})
    with Store(tmp_path) as s:
        assert "packed" not in s.meta(1)
        same(s.restore(1, "state", structs(tree_on(mesh))), tree_on(mesh))
        s.save(1, {"state": {"x": jnp.ones(3)}}, {})
        s.wait()
        assert s.meta(1)["packed"] == {"state": ["x"]}


def test_a_description_that_does_not_fit_is_damage(tmp_path, monkeypatch):
    tree = {"x": jnp.arange(6.0), "y": jnp.ones(3)}
    describe = held.describe
    y = [[3], "float32"]
    wrongs = [
        ({"packed": {"state": ["x", "x"]}}, "does not name its arrays"),
        ({"packed": {"state": ["z"]}}, "does not name its arrays"),
        ({"packed": {"state": ["x"]}}, "cannot be read"),
        ({"packed": {}}, "cannot be read"),
        ({"arrays": {"state": {"x": [[6], "float64"], "y": y}}}, "instead of 60 bytes"),
        ({"arrays": {"state": {"x": [[6], "object"], "y": y}}}, "no dtype of numbers"),
        ({"arrays": {"state": {"x": [[6], "what"], "y": y}}}, "is no dtype"),
    ]
    with Store(tmp_path) as s:
        for n, (wrong, text) in enumerate(wrongs):
            monkeypatch.setattr(held, "describe", lambda x, wrong=wrong: describe(x) | wrong)
            s.save(n, {"state": tree}, {})
            s.wait()
            with pytest.raises(DamagedError, match=text):
                s.restore(n, "state", tree)


def test_what_cannot_be_fetched_in_time_is_reported_at_once(mesh, tmp_path, monkeypatch):
    monkeypatch.setattr(held, "COPIED", 0)
    with Store(tmp_path) as s:
        monkeypatch.setattr(s._manager, "save", lambda *_, **__: False)
        with pytest.raises(SaveError, match="declined to save"):
            s.save(1, {"state": {"x": tree_on(mesh)["split"]}}, {})
        assert s.numbers() == []


def test_two_processes_save_in_both_stores_at_every_step(tmp_path):
    """Saves of two stores start in one order in both, else they would wait for each other."""
    often = [f"--config.{n}_every=16" for n in ("checkpoint", "snapshot", "log")]
    run = [*CONFIG, *often, "--config.images=320", "--workdir"]
    finish(*pair(*run, tmp_path / "two"))
    steps = list(range(16, 321, 16))
    assert [r["nimg"] for r in read(tmp_path / "two/metrics.jsonl")][-1] == 320
    with Store(tmp_path / "two/snapshots", read_only=True) as s:
        assert s.numbers() == steps and all(map(s.sound, steps))
    with Store(tmp_path / "two/checkpoints", read_only=True) as s:
        assert s.numbers() == steps[-2:] and all(map(s.sound, steps[-2:]))

"""Traced steps that are kept: found by what made them, the same numbers, never in the way."""

import dataclasses
import functools
import importlib.util
import os
import subprocess
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from toys import batch_of, gan_plan, regression_plan

from jaxgen.common import mesh as meshes
from jaxgen.train import digest, kept, loop
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.optim import adam
from jaxgen.train.plan import Aux, Stage

BATCH = 16


def scaled(by, beside=None):
    def loss(params, batch, key, context):
        assert beside is not key
        return by * jnp.square(params["net"]["layer0"]["w"]).sum() * jnp.ones(len(key)), Aux()

    return loss


@dataclasses.dataclass
class Held:
    value: object


class Plain:
    def __init__(self, value):
        self.value = value

    def method(self, x):
        return x * self.value


def default(value):
    return lambda x, y=value: x + y


def custom(rate):
    """A function whose derivative alone knows `rate`."""
    f = jax.custom_jvp(jnp.sin)
    f.defjvp(lambda x, t: (f(*x), rate * t[0]))
    return f


PAIRS = {  # what differs in one thing
    "a number": (1, 2),
    "its type": (1, 1.0),
    "a closure": (scaled(1.0), scaled(1.5)),
    "a default": (default(1), default(2)),
    "a body": (lambda x: x + 1, lambda x: x + 2),
    "a name that is used": (lambda x: jnp.sin(x), lambda x: jnp.cos(x)),
    "a partial": (functools.partial(scaled, 1), functools.partial(scaled, 2)),
    "an array's entry": (scaled(np.arange(3)), scaled(np.array([0, 1, 3]))),
    "an array's dtype": (np.zeros(3, np.int32), np.zeros(3, np.float32)),
    "a key": (jax.random.key(0), jax.random.key(1)),
    "a field": (Held(1), Held(2)),
    "an attribute": (Plain(1), Plain(2)),
    "a bound object": (Plain(1).method, Plain(2).method),
    "a builtin's object": ({1: 2}.get, {1: 3}.get),
    "what a jitted function wraps": (jax.jit(scaled(1)), jax.jit(scaled(2))),
    "a rule of derivation": (custom(1.0), custom(2.0)),
    "an optimizer": (adam(1e-2), adam(1e-3)),
    "the order of entries": ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
    "who is the same": ([a := [1], a], [[1], [1]]),
    "a set": ({"a", "b"}, {"a", "c"}),
}


@pytest.mark.parametrize("what", PAIRS)
def test_a_difference_shows(what):
    one, other = PAIRS[what]
    assert digest.digest(one) == digest.digest(one)
    assert digest.digest(one) != digest.digest(other)


def test_equal_things_made_twice_are_equal():
    twice = lambda make: digest.digest(make()) == digest.digest(make())
    assert all(map(twice, (gan_plan, regression_plan, lambda: scaled(np.arange(4.0)))))
    assert twice(lambda: Plain({"x": {1, 2}, "y": jnp.arange(3)}))


def test_circles_and_empty_variables_end():
    ring = []
    ring.append(ring)

    def early():
        return later  # has no value yet

    assert digest.digest(ring) != digest.digest([[]])
    first = digest.digest(early)
    later = 1
    assert digest.digest(early) != first and later


def test_what_cannot_be_looked_into_is_an_error():
    class Local:
        pass

    with pytest.raises(digest.OpaqueError, match=r"loss.*lock"):
        digest.digest(scaled(threading.Lock()))
    with pytest.raises(digest.OpaqueError, match="made in a function"):
        digest.digest(Local)
    with pytest.raises(digest.OpaqueError, match="objects"):
        digest.digest(np.array([object()]))
    typed = {"__name__": "nowhere"}
    exec("f = lambda x: x", typed)  # as in a notebook, whose variables no file tells
    with pytest.raises(digest.OpaqueError, match="nowhere is not a file"):
        digest.digest(typed["f"])


def test_other_processes_find_the_same():
    """Hashes of strings, and so the order of sets, differ between processes."""
    program = (
        "import sys; sys.path[:0] = ['tests/train']\n"
        "from toys import gan_plan\nfrom jaxgen.common import mesh\nfrom jaxgen.train import kept\n"
        "print(kept.key(gan_plan(), mesh.make_mesh(), 16, 1))"
    )
    found = set()
    for seed in "123":
        env = {**os.environ, "PYTHONHASHSEED": seed}
        out = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True)
        found.add(out.stdout)
    assert len(found) == 1 and len(found.pop()) == 65, out.stderr


def test_code_that_is_loaded_counts(tmp_path):
    path = tmp_path / "users_own.py"
    path.write_text("def scale(x):\n    return 2 * x\n")
    before = digest.code()
    module = importlib.util.module_from_spec(
        spec := importlib.util.spec_from_file_location("users_own", path)
    )
    spec.loader.exec_module(module)
    sys.modules["users_own"] = module
    try:
        loaded = digest.code()
        path.write_text("def scale(x):\n    return 3 * x\n")
        assert len({before, loaded, digest.code()}) == 3
        path.unlink()
        with pytest.raises(digest.OpaqueError, match="users_own"):
            digest.code()
    finally:
        del sys.modules["users_own"]


def run(plan, mesh, folder, count=5, log=print, microbatches=1, batch=BATCH):
    """(state and metrics after some steps, the compiled step)."""
    keep = folder and kept.Kept(folder, plan, mesh, batch, microbatches, log)
    state = states.create(plan, 0, mesh)
    key = meshes.place(jax.random.key(0), meshes.replicated(mesh))
    data = [meshes.put_batch(jax.device_get(batch_of(i, batch)), mesh) for i in range(count)]
    step = steps.jit_step(plan, state, batch=batch, mesh=mesh, microbatches=microbatches)
    step.compile(state, data[0], {}, key, kept=keep)
    reported = []
    for i in range(count):
        state, metrics = step(state, data[i], {}, key, i)
        reported.append(metrics)
    return jax.device_get((state, reported)), step


def same(a, b):
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.mark.parametrize("axes", [(1, 1), (8, 1), (2, 4)])
@pytest.mark.parametrize("make", [gan_plan, regression_plan])
def test_the_numbers_are_those_of_a_step_that_is_not_kept(make, axes, tmp_path):
    """To the bit, for lazy phases and several devices, too; the state is given away as before."""
    mesh = meshes.make_mesh(*axes, devices=jax.devices()[: axes[0] * axes[1]])
    plain, step = run(make(), mesh, None)
    lines = []
    first, written = run(make(), mesh, tmp_path, log=lines.append)
    assert not lines and written.trace_seconds > 0
    again, loaded = run(make(), mesh, tmp_path, log=lines.append)
    assert lines == ["the step was traced by an earlier start"]
    same(plain, first)
    same(plain, again)
    for a, b in zip(step.programs, loaded.programs):
        given = a.memory_analysis().alias_size_in_bytes
        assert given == b.compiled.memory_analysis().alias_size_in_bytes > 0


def test_another_plan_batch_or_division_is_another_step(tmp_path):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    key = lambda plan, batch=BATCH, parts=1, mesh=mesh: kept.key(plan, mesh, batch, parts)
    keys = [key(regression_plan()), key(regression_plan(), 32), key(regression_plan(), BATCH, 2)]
    keys += [key(regression_plan(optimizer=adam(1e-3))), key(regression_plan(scaled(1.0)))]
    keys += [key(regression_plan(fixed=("layer0",)))]
    keys += [key(regression_plan(), mesh=meshes.make_mesh())]
    with jax.default_matmul_precision("float32"):
        keys.append(key(regression_plan()))
    assert len(set(keys)) == len(keys)
    assert key(regression_plan()) == keys[0]


def test_arguments_that_differ_are_traced(tmp_path):
    """The digest does not know the data: the arguments are compared when they are there."""
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    plan, lines = regression_plan(), []
    run(plan, mesh, tmp_path)
    keep = kept.Kept(tmp_path, plan, mesh, BATCH, 1, lines.append)
    state = states.create(plan, 0, mesh)
    data = meshes.put_batch({"image": np.zeros((BATCH, 6), np.float32)}, mesh)  # has no index
    key = meshes.place(jax.random.key(0), meshes.replicated(mesh))
    step = steps.jit_step(plan, state, batch=BATCH, mesh=mesh)
    step.compile(state, data, {}, key, kept=keep)
    assert not lines and np.isfinite(step(state, data, {}, key)[1]["fit/loss"])


@pytest.mark.parametrize("damage", ["flipped", "cut", "empty", "foreign"])
def test_a_damaged_file_is_written_anew(tmp_path, damage):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    want, _ = run(regression_plan(), mesh, tmp_path)
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    bad = {"cut": bytes(data[:999]), "empty": b"", "foreign": b"?" * 999}
    data[len(data) // 2] ^= 4
    path.write_bytes(bad.get(damage, bytes(data)))
    lines = []
    found, _ = run(regression_plan(), mesh, tmp_path, log=lines.append)
    assert len(lines) == 1 and "written anew" in lines[0] and str(path) in lines[0]
    same(want, found)
    assert [path] == list(tmp_path.iterdir())
    run(regression_plan(), mesh, tmp_path, log=lines.append)
    assert lines[1:] == ["the step was traced by an earlier start"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    mesh, lines = meshes.make_mesh(devices=jax.devices()[:1]), []
    run(regression_plan(), mesh, tmp_path / "file" / "steps", log=lines.append)
    assert len(lines) == 1 and lines[0].startswith("the traced step is not kept")


def test_what_is_not_kept_is_trained_all_the_same(tmp_path):
    def calls(params, batch, key, context):
        """A function of Python that the program calls, which no file can hold."""
        error = jnp.square(params["net"]["layer0"]["w"]).sum() * jnp.ones(len(key))
        jax.debug.callback(lambda x: None, error[0])
        return error, Aux()

    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    for loss, reason in (calls, "callback"), (scaled(1.0, threading.Lock()), "lock"):
        lines = []
        (state, _), _ = run(regression_plan(loss), mesh, tmp_path, log=lines.append)
        assert state.step == 5
        assert len(lines) == 1 and lines[0].startswith("the traced step is not kept"), lines
        assert reason in lines[0]
    assert not list(tmp_path.iterdir())


def test_a_run_uses_what_another_left(tmp_path):
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    found, said = [], []
    for name in "ab":
        lines = []
        data = lambda start: iter(
            meshes.put_batch(jax.device_get(batch_of(i, BATCH)), mesh) for i in range(start, 99)
        )
        state, _ = loop.train(
            [Stage(gan_plan(), 10 * BATCH)], data, workdir=tmp_path / name, mesh=mesh, batch=BATCH,
            traces=tmp_path / "steps", progress=False, log=lines.append,
        )  # fmt: skip
        found.append(jax.device_get(state))
        said.append("the step was traced by an earlier start" in lines)
    same(*found)
    assert said == [False, True]


def test_its_place(monkeypatch):
    before = jax.config.jax_compilation_cache_dir
    try:
        for where, want in ("/a/xla", "/a/xla/steps"), ("gs://a/xla", "None"), (None, "None"):
            jax.config.update("jax_compilation_cache_dir", where)
            assert str(kept.folder()) == want
    finally:
        jax.config.update("jax_compilation_cache_dir", before)

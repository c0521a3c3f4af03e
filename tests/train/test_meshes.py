"""The same run on every mesh, and what its devices send each other."""

import dataclasses
import re
from functools import cache

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxgen import recipes
from jaxgen.cli import common
from jaxgen.common import mesh as meshes
from jaxgen.common import sharding, trees
from jaxgen.planning.hlo import Module
from jaxgen.train import state as states
from jaxgen.train import step as steps

STEPS = 5
FACTS = {
    "name": "random",
    "shape": (8, 8, 1),
    "label_kind": "class",
    "label_dim": 10,
    "length": 64,
    "class_names": None,
}
PLANS = {  # lineage -> config, at debug size, and what makes five steps move the parameters
    "edm2": ("configs/edm2/digits.py:debug", ["optimizer.rampup_images=0"]),
    "adm": ("configs/edm/digits.py:debug,adm", ["optimizer.rampup_images=0"]),
    "stylegan2": ("configs/stylegan2/digits.py:debug", []),
    "biggan": ("configs/gan/digits.py:debug,biggan", []),
    "noise2noise": (
        "configs/noise2noise/digits.py:debug",
        ["model.features=8", "model.last_features=(8,8)"],
    ),
}
MESHES = {"data": (8, 1, 1), "fsdp": (1, 8, 1), "all": (2, 2, 2)}
QUICK = {
    ("edm2", "data"),
    ("edm2", "fsdp"),
    ("edm2", "all"),
    ("noise2noise", "all"),
    ("biggan", "data"),
}
CASES = [
    pytest.param(n, m, marks=[] if (n, m) in QUICK else pytest.mark.slow)
    for n in PLANS
    for m in MESHES
]
NO_EFFECT = {  # their gradient is 0 but for rounding
    "biggan": r"generator/b\d+/(conv0|conv1|skip)/b$",  # biases before batch normalisation
    "adm": r"attention/qkv/b$",  # biases of keys (a third): softmax does not see them
}


@cache
def plan_of(name):
    path, changes = PLANS[name]
    config = common.load_config(path, [f"--config.{c}" for c in changes])
    config.dtype = "float32"
    return recipes.build(config, FACTS), config.batch


@dataclasses.dataclass
class Run:
    first: states.TrainState
    last: states.TrainState
    losses: dict[str, list[float]]
    collectives: list


@pytest.fixture(autouse=True, scope="module")
def _split_small_leaves():
    """Networks of tests are split like those of the papers' sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "MIN_SIZE", 64)
        yield


def mesh_of(sizes):
    return meshes.make_mesh(*sizes, devices=jax.devices()[: np.prod(sizes)])


def lying(plan, sizes):
    return states.abstract(plan, mesh_of(sizes))


@cache
def run(name, sizes):
    plan, batch = plan_of(name)
    mesh = mesh_of(sizes)
    state = states.create(plan, 0, mesh)
    first = jax.device_get(state)
    step = steps.jit_step(plan, state, batch=batch, mesh=mesh)
    frozen = steps.put_frozen(plan, mesh)
    key = meshes.place(jax.random.key(3), meshes.replicated(mesh))
    history = []
    for i in range(STEPS):
        rng = np.random.default_rng(i)
        data = {
            "image": rng.integers(0, 256, (batch, 8, 8, 1)).astype(np.uint8),
            "label": rng.integers(10, size=batch).astype(np.int32),
            "index": np.arange(batch, dtype=np.int32),
        }
        state, metrics = step(state, meshes.put_batch(data, mesh), frozen, key)
        history.append(jax.device_get(metrics))
    found = [c for p in step.programs for c in Module(p.as_text()).each()]
    losses = {k: [float(h[k]) for h in history] for k in history[0] if re.search("loss$|norm$", k)}
    return Run(first, jax.device_get(state), losses, found)


@pytest.mark.parametrize("name, mesh", CASES)
def test_a_run_is_the_same_on_every_mesh(name, mesh):
    """Losses to 1e-6, and parameters to 1e-4 of how far they moved: sums in another order.

    Adam divides gradients by their size, so the small ones bring their rounding along: measured are
    3e-5 of the movement at most. A parameter that hardly moves is held to its own rounding.
    """
    one, other = run(name, (1, 1, 1)), run(name, MESHES[mesh])
    for k, want in one.losses.items():
        np.testing.assert_allclose(other.losses[k], want, rtol=2e-6, err_msg=k)
    for field in ("params", "averages"):
        start, want, got = (
            trees.leaves(getattr(x, field)) for x in (one.first, one.last, other.last)
        )
        for leaf in want:
            if not re.search(NO_EFFECT.get(name, "^$"), leaf):
                moved, size, gap = map(
                    np.linalg.norm,
                    (want[leaf] - start[leaf], want[leaf], got[leaf] - want[leaf]),
                )
                assert gap <= 1e-4 * moved + 1e-6 * size, (leaf, gap, moved, size)


def test_what_differs_between_devices_of_a_biggan_has_no_effect():
    """Biases before a batch normalisation, which takes them out again.

    Their gradient is 0 but for rounding, Adam scales that up to steps of some size, and its
    sign depends on the order of a sum. So they walk at random, each device count its own way, and
    nothing else differs (above). After 150 steps they were 1e-4 apart, twice their size, and so
    were the running means that take them out again; losses agreed to 3e-6.
    """
    one, other = (run("biggan", sizes).last.params for sizes in ((1, 1, 1), MESHES["data"]))
    (plan, _), changed = plan_of("biggan"), []
    for leaf, want in trees.leaves(one).items():
        gap = np.abs(want - trees.leaves(other)[leaf]).max()
        if gap > 1e-2 * np.abs(want).max():
            assert re.search(NO_EFFECT["biggan"], leaf), (leaf, gap)
            changed.append(leaf)
    assert changed
    keys = jax.random.split(jax.random.key(0), 4)
    label = jax.nn.one_hot(np.arange(4), FACTS["label_dim"])
    draw = jax.jit(lambda params: plan.sample.fn(params, keys, {"label": label}, {})["image"])
    np.testing.assert_allclose(draw(one), draw(other), atol=1e-5)


def bytes_of(found, kind, sliced=False):
    return sum(c.runs * c.bytes for c in found if c.kind == kind and c.sliced == sliced)


def test_fsdp_gathers_weights_and_scatters_gradients():
    """By kind and bytes, beside the same step with whole parameters.

    XLA's CPU compiler cannot write a reduce-scatter: it leaves an all-reduce that is only sliced.
    """
    plan, _ = plan_of("edm2")
    split = run("edm2", MESHES["fsdp"])
    shards = trees.leaves(lying(plan, MESHES["fsdp"]).params)
    cut = {n: x.size * 4 for n, x in shards.items() if any(x.sharding.spec)}
    whole = sum(x.size * 4 for n, x in shards.items() if n not in cut)
    assert sum(cut.values()) > 20 * whole  # nearly all is split

    gathered = [c for c in split.collectives if c.kind == "all-gather"]
    assert max(c.bytes for c in gathered) <= max(cut.values())  # weights and no images
    assert bytes_of(split.collectives, "all-gather") >= 0.9 * sum(cut.values())
    scattered = bytes_of(split.collectives, "reduce-scatter") + bytes_of(
        split.collectives, "all-reduce", sliced=True
    )
    assert scattered >= 0.9 * sum(cut.values())
    summed = [c for c in split.collectives if c.kind == "all-reduce" and not c.sliced]
    assert max(c.bytes for c in summed) <= max(cut.values()) / 4
    assert bytes_of(summed, "all-reduce") < sum(cut.values()) / 4  # no all-reduce of all params
    moved = [c for c in split.collectives if c.kind in ("all-to-all", "collective-permute")]
    assert sum(c.runs * c.bytes for c in moved) < sum(cut.values()) / 50

    copies = run("edm2", MESHES["data"]).collectives
    assert bytes_of(copies, "all-reduce") > 0.99 * (sum(cut.values()) + whole)
    assert {c.kind for c in copies} == {"all-reduce"}


def test_tensor_moves_no_images_between_layouts():
    """Heads and channels are split as a whole: activations are summed and never re-cut."""
    found = run("edm2", MESHES["all"]).collectives
    shards = trees.leaves(lying(plan_of("edm2")[0], MESHES["all"]).params)
    cut = [x for x in shards.values() if "tensor" in str(x.sharding.spec)]
    assert len(cut) > 20
    assert not bytes_of(found, "all-to-all")
    assert bytes_of(found, "collective-permute") < 10_000
    largest = max(x.size for x in shards.values()) * 4
    assert max(c.bytes for c in found if c.kind == "all-gather") <= largest


def test_rules_of_the_config_come_first():
    """In params, optimizer and averages; of the leaves that it does not name nothing changes."""
    rule = "--config.mesh.rules=(('network/.*qkv/w$', (None, None, None, 'fsdp')),)"
    config = common.load_config(PLANS["edm2"][0], [rule])
    plans = recipes.build(config, FACTS), plan_of("edm2")[0]
    ruled, free = (trees.leaves(lying(plan, MESHES["fsdp"])) for plan in plans)
    other = {n for n in ruled if ruled[n].sharding != free[n].sharding}
    assert other == {n for n in ruled if n.endswith("qkv/w")}
    assert {n.split("/")[0] for n in other} == {"params", "opt", "averages"}
    assert {ruled[n].sharding.spec for n in other} == {P(None, None, None, "fsdp")}


def test_frozen_trees_follow_rules_too():
    plan = dataclasses.replace(
        plan_of("edm2")[0], frozen={"teacher": {"w": np.zeros((100, 65), np.float32)}}
    )
    mesh = mesh_of(MESHES["fsdp"])
    with pytest.raises(ValueError, match=r"'frozen/teacher/w' \(100, 65\) cannot be split"):
        steps.put_frozen(plan, mesh)
    plan = dataclasses.replace(plan, sharding=((r"^frozen/teacher", "replicated"),))
    assert steps.put_frozen(plan, mesh)["teacher"]["w"].sharding.is_fully_replicated


@pytest.mark.parametrize(
    "asked, want",
    [
        ({"fsdp": 16}, (1, 8, 1)),
        ({"fsdp": 2}, (4, 2, 1)),
        ({"fsdp": 3}, (8, 1, 1)),
        ({"data": 4, "fsdp": -1, "tensor": 2}, (1, 4, 2)),
    ],
)
def test_a_run_is_read_with_the_devices_there_are(asked, want):
    config = common.load_config(PLANS["edm2"][0], [])
    config.mesh.update(asked)
    assert tuple(common.reading_mesh(config).shape.values()) == want

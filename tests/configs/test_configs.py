"""Every config: loads, says its claim and command, builds its plan, takes a step at debug size."""

import ast
import dataclasses
import re
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxgen import recipes
from jaxgen.cli import common
from jaxgen.common import mesh as meshes
from jaxgen.common import units
from jaxgen.data import facts as data_facts
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.plan import Plan, Stage

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(p for p in (ROOT / "configs").glob("*/*.py") if p.name != "__init__.py")
FACTS = {  # of the sources that configs name, so that no data is needed here
    "digits": ((8, 8, 1), "class", 10, 1200),
    "phantoms?size=64&num=2000": ((64, 64, 1), "none", 0, 2000),
    "phantoms?size=16&num=64": ((16, 16, 1), "none", 0, 64),
    "phantoms?size=32&depth=16&num=200": ((32, 32, 16), "none", 0, 200),
    "phantoms?size=8&depth=4&num=32": ((8, 8, 4), "none", 0, 32),
    "folder:photos": ((32, 32, 3), "class", 10, 50_000),
    "phantoms": ((64, 64, 1), "none", 0, 1000),
    "photos?grey=1": ((128, 128, 1), "none", 0, 45),
}
SLOW = (  # other data and numbers of recipes that take a step in the configs that are left
    "ada/paper.py",
    "edm/afhqv2_64.py",
    "edm/ffhq64.py",
    "edm/imagenet256.py",
    "edm/imagenet64.py",
    "edm2/imagenet512.py",
    "edm2/imagenet64.py",
    "gan/fashion_mnist.py",
    "r3gan/paper.py",
    "stylegan2/fashion_mnist.py",
    "stylegan2/ffhq1024.py",
    "stylegan3/paper.py",
    "tomography/helical.py",  # tests/recipes/test_tomography_recipe.py takes steps
)
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
DEBUG_SIZE = 16  # pixels: larger images are shrunk, plans take any size
name_of = lambda path: path.relative_to(ROOT).as_posix()


def facts_of(config, largest=None):
    """The facts of the config's data; images no larger than `largest` pixels."""
    source = config.data.source
    found = FACTS.get(source) or data_facts.known(source)
    assert found, f"write the facts of {source!r} into FACTS of this test or data/facts.py"
    shape, kind, dim, length = found[:4]
    if not config.data.labels:
        kind, dim = "none", 0
    return {
        "name": source,
        "shape": (*(min(n, largest or n) for n in shape[:2]), shape[2]),
        "label_kind": kind,
        "label_dim": dim,
        "length": length,
        "class_names": None,
    }


def stages_of(config, largest=None):
    built = recipes.build(config, facts_of(config, largest))
    return [Stage(built, units.images(config.images))] if isinstance(built, Plan) else built


def random_batch(config, largest):
    """A batch of random images and labels, as the pipeline yields it."""
    facts, rng, n = facts_of(config, largest), np.random.default_rng(0), config.batch
    labels = rng.integers(facts["label_dim"] or 1, size=n).astype(np.int32)
    images = rng.integers(0, 256, (n, *facts["shape"])).astype(np.uint8)
    return {"image": images, "label": labels, "index": np.arange(n, dtype=np.int32)}


def random_state(plan, mesh):
    """A state of small random weights: initialising for real compiles for much longer.

    Fixed leaves, some of which are mean squares and variances, are ones.
    """
    rng, like = np.random.default_rng(0), states.abstract(plan, mesh)
    put = lambda values: jax.tree.map(lambda v, x: jax.device_put(v, x.sharding), values, like)
    zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
    draw = lambda x, fixed: np.ones(x.shape) if fixed else rng.normal(0, 0.1, x.shape)
    params = {
        n: jax.tree.map(lambda x, f: draw(x, f).astype(x.dtype), p, plan.fixed_mask(n, p))
        for n, p in like.params.items()
    }
    return put(dataclasses.replace(zeros, params=params, stats=dict(plan.stats)))


def test_there_are_configs():
    assert len(CONFIGS) >= 1
    assert {f"configs/{name}" for name in SLOW} <= set(map(name_of, CONFIGS))


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_docstring_has_claim_and_command(path):
    doc = ast.get_docstring(ast.parse(path.read_text())) or ""
    assert re.search(r"^Claim: \w", doc, re.MULTILINE), "say what the run is to show: 'Claim: ...'"
    run = re.search(r"^Run: jaxgen train --config (\S+) --workdir \S+", doc, re.MULTILINE)
    assert run, "give the command: 'Run: jaxgen train --config ... --workdir ...'"
    assert run[1].partition(":")[0] == name_of(path), "the command names another config"
    assert re.search(r"^Arguments: .*\bdebug\b", doc, re.MULTILINE)


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_the_full_config_makes_a_state(path):
    """Shapes only: at full size, without memory."""
    config = common.load_config(str(path), [])
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    for key in ("images", "log_every", "checkpoint_every", "snapshot_every", "sample_every"):
        units.images(config[key])
    stages = stages_of(config)
    assert [s.until for s in stages] == sorted(s.until for s in stages)
    for stage in stages:
        state = states.abstract(stage.plan, mesh)
        assert set(state.averages) == set(stage.plan.averages)
        assert not units.images(config.snapshot_every) or stage.plan.averages, "nothing to snapshot"
        assert stage.plan.sample is None or set(stage.plan.sample.players) <= set(state.params)


STEPS = [
    pytest.param(path, marks=pytest.mark.slow) if name.removeprefix("configs/") in SLOW else path
    for path, name in zip(CONFIGS, map(name_of, CONFIGS))
]


@pytest.mark.parametrize("path", STEPS, ids=name_of)
def test_one_step_at_debug_size(path):
    config = common.load_config(f"{path}:debug", [])
    config.dtype = "float32"
    mesh = meshes.make_mesh(devices=jax.devices()[:1])
    for stage in stages_of(config, DEBUG_SIZE):
        plan = stage.plan
        state = random_state(plan, mesh)
        step = steps.jit_step(plan, state, batch=config.batch, mesh=mesh)
        data = meshes.put_batch(random_batch(config, DEBUG_SIZE), mesh)
        before = jax.device_get(state.params)
        key = jax.device_put(jax.random.key(0), meshes.replicated(mesh))
        args = state, data, steps.put_frozen(plan, mesh), key
        state, metrics = step.compile(*args, options=QUICK)(*args)
        for phase in plan.phases:  # step 0 is a multiple of every `every`
            for name in ("loss", "grad_norm"):
                assert np.isfinite(metrics[f"{phase.name}/{name}"]), (phase.name, name)
            assert metrics[f"{phase.name}/skipped"] == 0
        for player in {n for p in plan.phases for n in p.trains}:
            leaves = zip(jax.tree.leaves(before[player]), jax.tree.leaves(state.params[player]))
            assert all(np.isfinite(new).all() for _, new in leaves), player

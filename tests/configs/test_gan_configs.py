"""GANs' configs: every member of the lineage builds, published rows arrive and have their sizes."""

from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from test_configs import DEBUG_SIZE, facts_of, stages_of

from configs import gan_presets, lineage
from jaxgen.cli import common
from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.train import state as states
from jaxgen.train import step as steps

ROOT = Path(__file__).resolve().parents[2]
load = lambda spec, *changes: common.load_config(str(ROOT / "configs" / spec), changes)
MESH = meshes.make_mesh(devices=jax.devices()[:1])
PAPERS = [
    *(f"stylegan2/ffhq1024.py:{c}" for c in gan_presets.STYLEGAN2),
    *(f"ada/paper.py:{d}" for d in (*gan_presets.ADA, "auto")),
    *(f"stylegan3/paper.py:{c},size={s}" for c in "tr" for s in gan_presets.STYLEGAN3),
    *(f"r3gan/paper.py:{d}" for d in gan_presets.R3GAN),
]
slowly = lambda names: [pytest.param(n, marks=pytest.mark.slow) for n in names]


@pytest.mark.parametrize("size, images", {"": 500_000, ",small": 40_000}.items())
@pytest.mark.parametrize("member", lineage.MEMBERS)
def test_members_build(member, size, images):
    """At full and at small size, for clothes; a growing one has a stage for each size, in order."""
    stages = stages_of(load(f"gan/fashion_mnist.py:{member}{size}"))
    assert len(stages) == {"pggan": 4, "stylegan": 3}.get(member, 1)
    assert [s.until for s in stages] == sorted({s.until for s in stages})
    assert stages[-1].until == images
    for stage in stages[-1:]:
        found = states.abstract(stage.plan, MESH).params
        sizes = {n: trees.count(p) for n, p in found.items()}
        assert all(50_000 < size < 400_000 for size in sizes.values()), sizes


def abstract_step(spec, largest=None):
    """A step without compiling it, of every stage."""
    config = load(spec)
    facts = facts_of(config, largest)
    shape = (config.batch, *facts["shape"])
    batch = {"image": jax.ShapeDtypeStruct(shape, jnp.uint8)}
    if facts["label_kind"] == "class":
        batch["label"] = jax.ShapeDtypeStruct(shape[:1], jnp.int32)
    for stage in stages_of(config, largest):
        state = states.abstract(stage.plan, MESH)
        step = steps.make_step(stage.plan, batch=config.batch)
        new, metrics = jax.eval_shape(step, state, batch, {}, jax.random.key(0))
        assert jax.tree.structure(new) == jax.tree.structure(state)
        assert {"gen/loss", "disc/loss"} <= set(metrics)


@pytest.mark.parametrize("member", ["biggan", *slowly(m for m in lineage.MEMBERS if m != "biggan")])
def test_members_take_a_step(member):
    abstract_step(f"gan/digits.py:{member},debug")


@pytest.mark.parametrize("spec", slowly(PAPERS))
def test_papers_take_a_step(spec):
    abstract_step(f"{spec},debug", DEBUG_SIZE)


@pytest.mark.parametrize("config", ["a", "f"])
def test_published_sizes(config):
    row = gan_presets.STYLEGAN2[config]
    spec = f"stylegan2/ffhq1024.py:{config}"
    plan = stages_of(load(spec, "--config.growing.first=0"))[0].plan
    params = states.abstract(plan, MESH).params
    trained = trees.leaves(params["generator"]).items()
    got = sum(x.size for n, x in trained if "noise_const" not in n) / 1e6
    assert abs(got - row.g_params) < 0.02
    if row.d_params:
        assert abs(trees.count(params["discriminator"]) / 1e6 - row.d_params) < 0.005


@pytest.mark.parametrize(
    "spec, want",
    {
        "stylegan2/ffhq1024.py:e": {"loss.r1_gamma": 100.0, "generator.channel_base": 16384},
        "stylegan2/ffhq1024.py:a": {"growing.first": 8, "loss.r1_every": 1, "loss.path_every": 0},
        "ada/paper.py": {"discriminator.group_size": 32, "augment.target": 0.6, "batch": 64},
        "ada/paper.py:ffhq256": {"averages.rampup": 0.0, "loss.path_every": 4},
        "ada/paper.py:auto,size=512": {"loss.r1_gamma": 0.8192, "averages.halflife": "20000"},
        "ada/paper.py:auto,noaug": {"augment.kind": "none", "loss.r1_gamma": 0.2048},
        "stylegan3/paper.py:r,size=512": {
            "loss.r1_gamma": 16.4, "generator.channel_base": 65536, "loss.blur_images": "200000",
            "augment.kind": "ada",
        },
        "stylegan3/paper.py": {
            "loss.r1_gamma": 1.0, "generator.channel_base": 16384, "loss.blur_sigma": 0.0,
            "averages.halflife": "20000",
        },
        "r3gan/paper.py": {
            "augment.multipliers.hue": 0.5, "cosine.p": 0.55, "loss.r2_gamma": 0.05,
            "cosine.r2_gamma": 0.005, "averages.halflife": "5000000",
        },
    }.items(),
)  # fmt: skip
def test_rows_reach_the_config(spec, want):
    flat = common.flatten(load(spec))
    assert {k: flat[k] for k in want} == pytest.approx(want)


def test_unknown_sizes_are_explained():
    with pytest.raises(ValueError, match=r"'size' is 256, 512 or 1024, got 128"):
        load("stylegan3/paper.py:t,size=128")

"""Estimates against numbers known by hand, arrays on devices, and compiled programs."""

import dataclasses
import json

import jax
import nets
import numpy as np
import pytest

from jaxgen.common import mesh as meshes
from jaxgen.common import trees
from jaxgen.planning import chips, collectives, estimate, hlo, memory, program, roofline
from jaxgen.train import state as states
from jaxgen.train import step as steps

ONE = 2.0 * nets.WIDTH**2  # FLOPs of a layer and an image


def estimated(plan=None, *, data=-1, fsdp=1, tensor=1, batch=256, chips=8, width=nets.WIDTH, **how):
    mesh = meshes.abstract_mesh(chips, data, fsdp, tensor)
    return estimate.estimate(
        plan or nets.plan(), nets.small(chips), mesh, nets.structs(batch, width), **how
    )


def test_a_batch_is_told_from_the_rest_and_shapes_are_those_of_a_chip():
    (part,) = program.parts(nets.plan(), nets.structs(256), share=8)
    values, found = part.program.values, part.program
    byname = dict(zip(part.names, found.inputs))
    assert values[byname["batch/image"]].shape == (32, 1, 1, nets.WIDTH)
    assert values[byname["batch/image"]].batch
    w = values[byname["params/net/w0"]]
    assert w.shape == (nets.WIDTH, nets.WIDTH) and not w.batch
    products = [op for op in found.ops if op.flops]
    assert sum(values[op.outs[0]].batch for op in products) == 2 * nets.LAYERS - 1
    assert sum(not values[op.outs[0]].batch for op in products) == nets.LAYERS


def test_flops_are_those_of_the_whole_step_divided():
    forward, backward = nets.LAYERS, 2 * nets.LAYERS - 1  # no gradient of the first input
    got = estimated(batch=256).flops
    assert got == {"float32": ONE * 32 * (forward + backward)}
    assert estimated(nets.plan(remat=True)).flops["float32"] == ONE * 32 * (2 * forward + backward)
    assert estimated(microbatches=4).flops == got
    lazy = estimated(nets.plan(lazy=4))
    assert [p["every"] for p in lazy.programs] == [4, 1]
    assert lazy.flops["float32"] == pytest.approx(1.25 * got["float32"])


@pytest.mark.parametrize("axes", [(8, 1, 1), (1, 8, 1), (2, 2, 2)])
def test_the_states_bytes_are_those_of_one_device(axes):
    mesh = meshes.make_mesh(*axes)
    plan = nets.plan()
    got = estimated(plan, data=axes[0], fsdp=axes[1], tensor=axes[2]).memory
    state = states.create(plan, 0, mesh)
    held = lambda tree: sum(x.addressable_shards[0].data.nbytes for x in jax.tree.leaves(tree))
    assert got["parameters"] == held(state.params)
    assert got["optimizer"] == held(state.opt)
    assert got["averages"] == held(state.averages)
    assert got["batch"] == 256 // (axes[0] * axes[1]) * (nets.WIDTH * 4 + 4)
    assert got["padding"] == 0  # not on GPUs


def test_activations_of_a_chain():
    """Every layer keeps its output; with remat every second."""
    batch = 2**14
    layer = batch // 8 * nets.WIDTH * 4
    kept = lambda layers, remat, **how: estimated(
        nets.plan(layers=layers, remat=remat), batch=batch, **how
    ).memory["activations"]
    assert kept(8, False) - kept(4, False) == 4 * layer
    assert kept(8, False) <= 10 * layer
    assert kept(8, True) - kept(4, True) == 2 * layer
    assert kept(8, False, microbatches=2) < 0.75 * kept(8, False)


def test_memory_is_near_that_of_the_compiler():
    """XLA's CPU compiler holds a few more temporaries; what grows with depth is the same."""

    def temporary(layers):
        plan, mesh = nets.plan(layers=layers), meshes.make_mesh(devices=jax.devices()[:1])
        args = estimate.arguments(plan, mesh, nets.structs(2048))
        step = steps.jit_step(plan, args[0], batch=2048, mesh=mesh).compile(*args)
        return step.programs[0].memory_analysis().temp_size_in_bytes

    def guess(layers):
        e = estimated(nets.plan(layers=layers), chips=1, batch=2048)
        return sum(e.memory[kind] for kind in estimate.WORK)

    compiled, guessed = temporary(8) - temporary(4), guess(8) - guess(4)
    assert guessed == pytest.approx(compiled, rel=0.15)


def test_tiles():
    value = lambda shape, dtype: program.Value(shape, np.dtype(dtype), False)
    assert memory.padded(value((8, 128), "float32")) == 8 * 128 * 4
    assert memory.padded(value((8, 3), "float32")) == 8 * 128 * 4
    assert memory.padded(value((2, 64, 64, 3), "float32")) == 2 * 64 * 128 * 3 * 4  # not the 3
    assert memory.padded(value((16, 32, 32, 96), "float32")) >= 16 * 32 * 32 * 96 * 4
    assert memory.padded(value((), "float32")) == 512
    assert memory.plain(value((8, 3), "float32")) == 8 * 3 * 4


@pytest.mark.parametrize(
    "topology, batch, microbatches, folds",
    [("v5e:2x4", 32, 1, True), ("v5e:2x4", 64, 2, True), ("v5e:2x4", 64, 1, False),
     ("h200:8", 32, 1, False)],
)  # fmt: skip
def test_few_images_at_a_time_are_folded_on_tpus(topology, batch, microbatches, folds, monkeypatch):
    """What is folded is stored before products read it."""
    pod, mesh, rules, peak = chips.parse(topology), meshes.abstract_mesh(8), [], memory.peak
    monkeypatch.setattr(memory, "peak", lambda p, r, f: rules.append(r) or peak(p, r, f))
    data = nets.structs(batch)
    found = estimate.estimate(nets.plan(), pod, mesh, data, microbatches=microbatches)
    pieces = {True: 8, False: 1 if pod.chip.kind == "tpu" else 0}[folds]
    assert {r.pieces for r in rules} == {pieces}
    assert {r.into_products for r in rules} == {pod.chip.kind == "tpu" and not folds}
    assert any("folds rows of pixels" in note for note in found.notes) == folds


def test_collectives_are_those_of_the_compiled_step():
    """Every weight is gathered for the forward and the backward pass, its gradient summed once."""
    plan, mesh = nets.plan(), meshes.make_mesh(1, 8)
    args = estimate.arguments(plan, mesh, nets.structs(256))
    step = steps.jit_step(plan, args[0], batch=256, mesh=mesh).compile(*args)
    found = hlo.Module(step.programs[0].as_text()).each()
    size = lambda test: sum(c.bytes * c.runs for c in found if c.bytes >= 2**12 and test(c))
    weights = nets.LAYERS * nets.WIDTH**2 * 4
    got = {c["kind"]: c["bytes"] for c in estimated(fsdp=8, data=1).collectives}
    assert got["reduce-scatter"] == weights
    assert got["all-gather"] == weights * (2 * nets.LAYERS - 1) / nets.LAYERS  # no first image's
    assert weights <= size(lambda c: c.kind == "all-gather") <= 2 * weights
    assert size(lambda c: c.kind == "reduce-scatter" or c.sliced) == weights


def test_gradients_whose_parts_do_not_fill_tiles_are_summed_whole():
    """128 rows over 16 chips are 8 a part, a tile's; over 32 they are 4."""
    size = nets.LAYERS * nets.WIDTH**2 * 4
    for fsdp, tiled in ((16, True), (32, False)):
        pod = chips.parse("v5e:4x8")
        mesh = meshes.abstract_mesh(32, -1, fsdp)
        e = estimate.estimate(nets.plan(), pod, mesh, nets.structs(32))
        kinds = {c["kind"]: c["bytes"] for c in e.collectives}
        assert kinds.get("reduce-scatter", 0) == tiled * size
        assert (kinds["all-reduce"] == size) != tiled


def test_collectives_of_whole_parameters():
    (only,) = estimated(data=8).collectives
    size = nets.LAYERS * nets.WIDTH**2 * 4
    assert (only["kind"], only["bytes"]) == ("all-reduce", size)
    assert only["near"] == pytest.approx(2 * size * 7 / 8) and only["outside"] == 0
    twice = estimated(data=8, microbatches=2).collectives
    assert twice[0]["bytes"] == 2 * size
    assert estimated(data=1, chips=1).collectives == []


def test_domains():
    """fsdp inside a node, data across nodes; a group that is larger than a node crosses them."""
    sizes = {"data": 4, "fsdp": 8, "tensor": 1}
    assert collectives.domains(("fsdp",), sizes, 8) == (8, 1)
    assert collectives.domains(("data",), sizes, 8) == (1, 4)
    assert collectives.domains(("data", "fsdp"), sizes, 8) == (8, 4)
    sent = collectives.sent("all-reduce", 800.0, ("data", "fsdp"), sizes, nets.small(8))
    assert (sent.near, sent.outside) == (2 * 800 * 7 / 8, 2 * 800 * 3 / 4 / 8)


def test_more_chips_at_the_same_batch_a_chip_are_as_many_times_quicker():
    one, two = (estimated(chips=n, batch=4096 * n) for n in (4, 8))
    assert two.images_per_second == pytest.approx(2 * one.images_per_second, rel=0.02)
    assert two.seconds["compute"] == pytest.approx(one.seconds["compute"])


def test_what_links_take_is_hidden_up_to_a_share():
    assert roofline.step(3.0, 1.9) == 3.0
    assert roofline.step(3.0, 4.0) == pytest.approx(5.0)


def test_an_estimate_is_json_and_its_sums_agree():
    e = estimated(images=10**6)
    assert json.loads(json.dumps(e.json()))["fits"] is True
    assert e.need == sum(e.memory.values())
    assert e.days == pytest.approx(1e6 / e.images_per_second / 86400)
    assert e.chip_hours == pytest.approx(e.days * 24 * 8)
    assert not dataclasses.replace(e, need=e.hbm + 1).fits


def test_nothing_is_allocated():
    before = len(jax.live_arrays())
    e = estimated(nets.plan(width=4096, layers=64), batch=2**16, width=4096)
    assert len(jax.live_arrays()) == before
    assert e.memory["parameters"] == 64 * 4096**2 * 4


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"config.batch must be a multiple .* = 8 x 3, got 256"):
        estimated(microbatches=3)
    odd = nets.plan(width=100)
    with pytest.raises(ValueError, match=r"'net/w0' \(100, 100\) cannot be split"):
        mesh = meshes.abstract_mesh(8, 1, 8, 1)
        estimate.estimate(odd, nets.small(8), mesh, nets.structs(256, 100))


def test_leaves_know_their_names():
    (part,) = program.parts(nets.plan(), nets.structs(256), share=8)
    state = states.abstract(nets.plan(), meshes.abstract_mesh(1))
    assert {f"params/{n}" for n in trees.leaves(state.params)} <= set(part.names)

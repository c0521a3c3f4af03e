"""Meshes of one machine, of several slices and of none, and the rules for where leaves lie."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxgen.common import mesh as meshes
from jaxgen.common import sharding, trees
from jaxgen.train import stages

BIG = meshes.abstract_mesh(64, fsdp=8, tensor=2)


def spec(shape, rules=sharding.DEFAULT, mesh=BIG, dtype=jnp.float32, name="net/block/w"):
    return sharding.spec(name, jax.ShapeDtypeStruct(shape, dtype), rules, mesh)


@pytest.mark.parametrize(
    "asked, want",
    [
        ((-1, 1, 1), (8, 1, 1)),
        ((-1, 4, 1), (2, 4, 1)),
        ((2, -1, 2), (2, 2, 2)),
        ((1, 2, -1), (1, 2, 4)),
        ((2, 2, 2), (2, 2, 2)),
    ],
)
def test_one_axis_takes_the_rest(asked, want):
    mesh = meshes.make_mesh(*asked)
    assert tuple(mesh.shape.values()) == want and mesh.axis_names == meshes.AXES
    assert mesh.axis_types == (AxisType.Auto,) * 3
    assert meshes.abstract_mesh(8, *asked).shape == mesh.shape


@pytest.mark.parametrize(
    "asked, message",
    [
        ((3, 2, 1), r"must be the number of devices, got data 3 x fsdp 2 x tensor 1 for 8"),
        ((-1, 3, 1), r"must be the number of devices, got data -1 x fsdp 3 x tensor 1 for 8"),
        ((-1, 16, 1), r"must be the number of devices"),
        ((-1, -1, 1), r"only one of the mesh's axes can be -1"),
        ((8, 0, 1), r"axes are positive, or -1"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(asked, message):
    with pytest.raises(ValueError, match=message):
        meshes.make_mesh(*asked)


@dataclasses.dataclass(frozen=True)
class Chip:
    """What mesh_utils reads of a TPU's device."""

    id: int
    slice_index: int
    coords: tuple[int, int, int]
    platform: str = "tpu"
    device_kind: str = "TPU v6 lite"
    process_index: int = 0
    core_on_chip: int = 0


def chips(slices):
    places = [(x, y, 0) for y in (0, 1) for x in (0, 1)]
    return [Chip(4 * s + i, s, c) for s in range(slices) for i, c in enumerate(places)]


@pytest.mark.parametrize("sizes", [(4, 2, 1), (2, 4, 1), (2, 2, 2), (8, 1, 1)])
def test_only_data_runs_across_slices(sizes):
    grid = meshes.device_grid(chips(2), *sizes)
    assert grid.shape == sizes and len({d.id for d in grid.flat}) == 8
    index = np.vectorize(lambda d: d.slice_index)(grid)
    for part, want in zip(np.split(index, 2), (0, 1)):  # the halves of data are the slices
        assert (part == want).all()


def test_fsdp_across_slices_is_refused():
    with pytest.raises(ValueError, match=r"mesh.data must be a multiple of the 2 slices.*data 1 x"):
        meshes.device_grid(chips(2), 1, 8, 1)


def test_the_batch_is_shared_by_data_and_fsdp():
    mesh = meshes.make_mesh(2, 2, 2)
    x = meshes.put_batch(np.arange(8.0), mesh)
    assert x.sharding.shard_shape(x.shape) == (2,)
    meshes.check_batch(8, mesh, 2)
    with pytest.raises(ValueError, match=r"devices x microbatches = 4 x 4, got 8"):
        meshes.check_batch(8, mesh, 4)


def test_rows_of_a_traced_step_lie_like_the_batch():
    mesh = meshes.make_mesh(2, 2, 2)
    x = jax.device_put(jnp.ones((8, 4)), jax.NamedSharding(mesh, P(None, "tensor")))
    with meshes.traced_for(mesh):
        both = jax.jit(lambda x: (meshes.rows(x + 1), meshes.whole_rows(x + 1)))(x)
        few = jax.jit(lambda x: meshes.rows(x[:2]))(x)
    assert [y.sharding.spec for y in both] == [P(meshes.BATCH, "tensor"), P(meshes.BATCH)]
    free = jax.jit(lambda x: meshes.whole_rows(x + 1))(x)
    assert free.sharding.spec == few.sharding.spec == P(None, "tensor")


@pytest.mark.parametrize(
    "shape, rule, want",
    [
        ((3, 3, 64, 128), "fsdp", P(None, None, "fsdp")),  # the input channels
        ((3, 3, 12, 128), "fsdp", P(None, None, None, "fsdp")),  # or else the output channels
        ((32, 64, 36, 64), "fsdp", P(None, None, None, "fsdp")),  # never a window or a stack
        ((64, 65), "fsdp", P("fsdp")),
        ((3, 3, 64, 4), "fsdp", P()),  # small
        ((2**14,), "fsdp", P()),  # a vector
        ((1, 1, 1, 2**14), "fsdp", P()),
        ((128, 384), "tensor_out", P("fsdp", "tensor")),
        ((24, 128, 384), "tensor_out", P(None, "fsdp", "tensor")),
        ((128, 384), "tensor_in", P("tensor", "fsdp")),
        ((100, 384), "tensor_out", P(None, ("tensor", "fsdp"))),  # 100 is no multiple of 8
        ((128, 384), "replicated", P()),
        ((128, 384), (None, ("fsdp", "tensor")), P(None, ("fsdp", "tensor"))),
        ((128, 384), ["data", None], P("data")),
    ],
)
def test_what_rules_do(shape, rule, want):
    assert spec(shape, ((r"w$", rule),)) == want


def test_an_axis_of_one_device_splits_nothing():
    mesh = meshes.abstract_mesh(8)
    for rule in ("fsdp", "tensor_out", "tensor_in", ("tensor", "fsdp")):
        assert spec((127, 129), ((r"", rule),), mesh) == P()


def test_integers_and_keys_are_whole():
    assert spec((128, 128), dtype=jnp.int32) == P()
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), (128, 128)))
    assert sharding.spec("key", keys, sharding.DEFAULT, BIG) == P()


@pytest.mark.parametrize(
    "shape, rules, message",
    [
        ((8, 8), ((r"bias$", "fsdp"),), r"no sharding rule matches .*'net/block/w'.*bias\$"),
        ((100, 65), sharding.DEFAULT, r"'net/block/w' \(100, 65\) cannot be split by its sharding "
         r"rule 'fsdp' over fsdp 8 x tensor 2.*--config.mesh.rules=\"\(\('net/block/w\$', 'rep"),
        ((128, 65), ((r"", "tensor_out"),), r"\(128, 65\) cannot be split .* 'tensor_out'"),
        ((8, 8), ((r"", "columns"),), r"is 'columns', expected one of \['fsdp', 'tensor_out'"),
        ((8, 8, 8), ((r"", ("fsdp", None)),), r"has 2 entries for 3 dimensions, shape \(8, 8, 8\)"),
        ((8, 8), ((r"", ("model", None)),), r"names \['model'\]; the axes of a mesh are"),
        ((12, 8), ((r"", ("fsdp", None)),), r"12 is not a multiple of fsdp 8"),
    ],
)  # fmt: skip
def test_what_rules_cannot_do_is_explained(shape, rules, message):
    with pytest.raises(ValueError, match=message):
        spec(shape, rules)


def test_the_first_rule_that_is_found_counts():
    rules = ((r"head/w$", "replicated"), *sharding.DEFAULT)
    assert spec((128, 128), rules, name="net/head/w") == P()
    assert spec((128, 128), rules, name="net/body/w") == P("fsdp")


OPTIMIZERS = [
    optax.adam,
    optax.adafactor,
    optax.contrib.muon,
    optax.lion,
    lambda rate: stages.by_leaf(optax.adam(rate)),
]


@pytest.mark.parametrize("make", OPTIMIZERS)
def test_optimizer_states_lie_like_their_params(make):
    params = {"a": {"w": jnp.zeros((128, 256))}, "w": jnp.zeros((256, 512)), "b": jnp.zeros(4)}
    rules = ((r"p/w$", (None, "fsdp")), *sharding.DEFAULT)
    lies = sharding.shardings(params, BIG, rules, "p/")
    state = jax.eval_shape(make(1e-3).init, params)
    found = sharding.following(state, params, lies, BIG)
    specs = {n: s.spec for n, s in trees.leaves(found).items()}
    shapes = {n: x.shape for n, x in trees.leaves(state).items()}
    like = {(128, 256): P("fsdp"), (256, 512): P(None, "fsdp")}
    assert specs == {n: like.get(s, P()) for n, s in shapes.items()}
    assert make is optax.adafactor or {(128, 256), (256, 512)} <= set(shapes.values())


def test_the_layout_tells_shape_spec_and_bytes_a_device():
    shapes = {"a": {"w": jnp.zeros((128, 256))}, "b": jnp.zeros(4)}
    lies = sharding.shardings(shapes, BIG, ((r"w$", "tensor_out"), *sharding.DEFAULT))
    tree = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, lies
    )
    assert sharding.layout(tree) == [
        ("a/w", (128, 256), "fsdp, tensor", 128 * 256 * 4 // 16),
        ("b", (4,), "whole", 16),
    ]

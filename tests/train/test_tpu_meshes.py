"""Compiled for TPUs that are not here: what kinds of collectives, and which devices an axis has."""

import importlib.util

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxgen import averaging
from jaxgen.common import mesh as meshes
from jaxgen.common import params as parameters
from jaxgen.nn.magnitude import MPConv, project
from jaxgen.planning import aot
from jaxgen.planning.hlo import Module
from jaxgen.train import state as states
from jaxgen.train import step as steps
from jaxgen.train.optim import adam
from jaxgen.train.plan import Aux, Phase, Plan, Player

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("libtpu"), reason='needs libtpu: pip install "jaxgen[tpu]"'
)
WIDTH = 256
KERNELS = [WIDTH**2 * 2, WIDTH**2 * 2 * 9, WIDTH**2 * 2]  # bytes in bfloat16


class Net(nn.Module):
    """1x1, 3x3 and 1x1 convolution."""

    @nn.compact
    def __call__(self, x):
        for i, kernel in enumerate((1, 3, 1)):
            x = MPConv(WIDTH, kernel, jnp.bfloat16, name=f"conv{i}")(nn.silu(x))
        return x


def loss(params, batch, key, context):
    y = Net().apply({"params": params["net"]}, batch["image"])
    return jnp.square(y.astype(jnp.float32)).mean((1, 2, 3)), Aux()


def test_fsdp_reduce_scatters_gradients_and_gathers_weights_in_bfloat16():
    init = lambda key: parameters.init(Net(), key, jnp.zeros((1, 8, 8, WIDTH)))
    plan = Plan(
        {"net": Player(init, adam(1e-2), project)},
        [Phase("fit", ("net",), loss)],
        averages=averaging.tracks(power=(0.1,)),
    )
    mesh = meshes.make_mesh(2, 4, devices=aot.devices("v5e:2x4"))
    state = states.abstract(plan, mesh)
    shape = (16, 8, 8, WIDTH)
    data = {"image": jax.ShapeDtypeStruct(shape, jnp.float32, sharding=meshes.batch_sharding(mesh))}
    step = steps.jit_step(plan, state, batch=16, mesh=mesh)
    (traced,) = step.trace(state, data, {}, jax.eval_shape(lambda: jax.random.key(0)))
    found = Module(traced.lower().compile().as_text()).each()

    sizes = lambda kind: sorted(c.bytes for c in found if c.kind == kind)
    assert sizes("all-gather") == sizes("reduce-scatter") == sorted(KERNELS)
    assert {c.group for c in found if c.kind in ("all-gather", "reduce-scatter")} == {4}
    # What is summed whole: parts of gradients over `data`, and norms of outputs.
    summed = [c for c in found if c.kind == "all-reduce" and c.bytes > 4 * WIDTH]
    assert [c.group for c in summed] == [2] * 3
    assert sorted(c.bytes for c in summed) == [k // 4 for k in sorted(KERNELS)]
    assert not sizes("all-to-all") and not sizes("collective-permute")


def test_data_alone_runs_across_slices():
    devices = aot.devices("v5e:2x2", 2)
    mesh = meshes.make_mesh(-1, 4, devices=devices)
    index = np.vectorize(lambda d: d.slice_index)(mesh.devices)
    assert index.shape == (2, 4, 1) and index[:, :, 0].tolist() == [[0] * 4, [1] * 4]
    with pytest.raises(ValueError, match=r"multiple of the 2 slices"):
        meshes.make_mesh(1, 8, devices=devices)


@pytest.mark.parametrize("sizes", [(8, 64, 1), (16, 32, 1), (32, 4, 4)])
def test_a_cube_of_chips_is_cut_as_asked(sizes):
    """Also where an axis of the mesh is only part of one of the machine."""
    mesh = meshes.make_mesh(*sizes, devices=aot.devices("v5p:8x8x8"))
    assert tuple(mesh.shape.values()) == sizes

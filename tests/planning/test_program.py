"""The traced step in one chip's shapes."""

import dataclasses

import jax.numpy as jnp
import nets
import pytest

from jaxgen.common import mesh as meshes
from jaxgen.nn.minibatch_std import minibatch_std
from jaxgen.planning import chips, estimate, program
from jaxgen.train.plan import Aux


def grouped(size):
    """Layers, then how much groups of `size` images vary, as in a discriminator."""
    plan = nets.plan()

    def loss(params, batch, key, context):
        x = batch["image"].reshape(-1, nets.WIDTH).astype(jnp.float32)
        y = minibatch_std(nets.run(params["net"], x)[:, None, None], size)
        return jnp.square(y).mean((1, 2, 3)), Aux()

    return dataclasses.replace(plan, phases=[dataclasses.replace(plan.phases[0], loss=loss)])


@pytest.mark.parametrize("share,microbatches", [(8, 1), (32, 1), (16, 2)])
def test_groups_of_images_may_be_shared_by_chips(share, microbatches):
    """Of four images a chip has four, one, and two in two parts of one."""
    how = {"share": share, "microbatches": microbatches}
    (part,) = program.parts(grouped(4), nets.structs(32), **how)
    (plain,) = program.parts(nets.plan(), nets.structs(32), **how)
    shapes = lambda p: {n: p.program.values[v].shape for n, v in zip(p.names, p.program.inputs)}
    assert shapes(part) == shapes(plain)
    assert shapes(part)["batch/image"] == (32 // share, 1, 1, nets.WIDTH)
    assert part.program.products() == plain.program.products()


def test_an_estimate_of_one_image_a_chip():
    pod = chips.parse("v5e:4x8")
    found = estimate.estimate(grouped(4), pod, meshes.abstract_mesh(32), nets.structs(32))
    assert found.batch == 32 and found.flops["float32"] > 0


def test_a_batch_that_groups_do_not_divide_is_refused_as_in_training():
    with pytest.raises(ValueError, match="must be a multiple of group_size"):
        program.parts(grouped(4), nets.structs(30), share=2)


def test_repeats_make_whole_groups_and_are_told_from_other_sizes():
    assert [program.repeats(32, own) for own in (32, 8, 4, 1)] == [1, 4, 8, 32]
    assert program.repeats(2048, 4) == 8 and program.repeats(6, 1) == 6
    assert program.local((8 * 4 * program.MARK, 32, 3), 8) == ((4, 32, 3), True)
    assert program.local((8, 32), 8) == ((8, 32), False)

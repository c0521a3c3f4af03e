"""What is read from compiled programs: runs and bytes of collectives, FLOPs of loops."""

import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxgen.common import mesh as meshes
from jaxgen.planning import hlo

ROUNDS = 5


@pytest.fixture(scope="module")
def mesh():
    return meshes.make_mesh(1, 8, devices=jax.devices()[:8])


def program(mesh, body, shape):
    """The module of ROUNDS rounds of `body` on one array (8 x shape), each device with its part."""

    def rounds(x):
        return jax.lax.scan(lambda c, _: (body(c), None), x, length=ROUNDS)[0]

    f = jax.shard_map(rounds, mesh=mesh, in_specs=P("fsdp"), out_specs=P("fsdp"), check_vma=False)
    like = jax.ShapeDtypeStruct(
        (8 * shape[0], *shape[1:]), jnp.float32, sharding=NamedSharding(mesh, P("fsdp"))
    )
    return hlo.Module(jax.jit(f).lower(like).compile().as_text())


@pytest.mark.parametrize(
    "kind, body, sizes",
    [
        ("all-reduce", lambda x: jnp.cos(jax.lax.psum(x, "fsdp")), 1),
        ("all-gather", lambda x: jnp.cos(jax.lax.all_gather(x, "fsdp")).sum(0), 8),
        (
            "collective-permute",
            lambda x: jnp.cos(jax.lax.ppermute(x, "fsdp", [(i, (i + 1) % 8) for i in range(8)])),
            1,
        ),
        ("all-to-all", lambda x: jnp.cos(jax.lax.all_to_all(x, "fsdp", 0, 0, tiled=True)), 1),
        (
            "reduce-scatter",
            lambda x: jnp.cos(jax.lax.psum_scatter(jnp.tile(x, (8, 1)), "fsdp", tiled=True)),
            8,
        ),
    ],
)
def test_collectives_in_a_loop_count_every_round(mesh, kind, body, sizes):
    found = program(mesh, body, (16, 32)).collectives()
    arrays = 8 if kind == "all-to-all" else 1  # of which a CPU exchanges one a device
    assert found == {kind: (ROUNDS * arrays, ROUNDS * sizes * 16 * 32 * 4)}


def test_all_arrays_of_one_long_collective_count(mesh):
    sizes = range(1, 14)  # XLA joins them to one all-reduce and numbers its operands in comments
    f = jax.shard_map(
        lambda xs: [jax.lax.psum(x, "fsdp") for x in xs], mesh=mesh, in_specs=P(), out_specs=P()
    )
    xs = [jnp.ones((n, 16)) for n in sizes]
    each = hlo.Module(jax.jit(f).lower(xs).compile().as_text()).each()
    assert sorted(c.bytes for c in each) == [64 * n for n in sizes]


def test_flops_of_the_rounds_that_the_compiler_does_not_count():
    w = jnp.ones((24, 24))

    def f(x):
        return jax.lax.scan(lambda c, _: (jnp.tanh(c @ w), None), x, length=ROUNDS)[0] @ w

    compiled = jax.jit(f).lower(jax.ShapeDtypeStruct((8, 24), jnp.float32)).compile()
    module = hlo.Module(compiled.as_text())
    assert module.unknown == []
    assert module.looped_flops() == (ROUNDS - 1) * 2 * 8 * 24 * 24


def test_flops_of_a_convolution_in_a_loop():
    w = jnp.ones((3, 3, 4, 4))
    conv = lambda x: jax.lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    f = lambda x: jax.lax.scan(lambda c, _: (conv(c), None), x, length=ROUNDS)[0]
    compiled = jax.jit(f).lower(jax.ShapeDtypeStruct((2, 6, 6, 4), jnp.float32)).compile()
    got = hlo.Module(compiled.as_text()).looped_flops()
    assert got == (ROUNDS - 1) * 2 * (2 * 6 * 6 * 4) * (3 * 3 * 4)


# As a TPU's compiler writes it: layouts with tiles, loops without a note of their length, one
# all-gather in two pieces that share a channel, a reduce-scatter as an all-reduce and a slice.
TPU = """HloModule jit_step, is_scheduled=true

%add.2 (x: f32[], y: f32[]) -> f32[] {
  %x = f32[]{:T(128)} parameter(0)
  %y = f32[]{:T(128)} parameter(1)
  ROOT %sum = f32[]{:T(128)} add(%x, %y)
}

%all-reduce-scatter (input: bf16[32,128]) -> bf16[8,128] {
  %input = bf16[32,128]{1,0:T(8,128)(2,1)S(1)} parameter(0)
  %zero = s32[]{:T(128)} constant(0)
  %all-reduce.5 = bf16[32,128]{1,0:T(8,128)(2,1)} all-reduce(%input), channel_id=6, \
replica_groups={{0,1},{2,3}}, use_global_device_ids=true, to_apply=%add.2
  ROOT %dynamic-slice.9 = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} dynamic-slice(%all-reduce.5, %zero, \
%zero), dynamic_slice_sizes={8,128}
}

%first (p: bf16[8,128]) -> (bf16[8,128], bf16[32,128], u32[]) {
  %p = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  %all-gather.1 = bf16[32,128]{1,0:T(8,128)(2,1)} all-gather(%p), channel_id=3, dimensions={0}
  ROOT %t = (bf16[8,128]{1,0}, bf16[32,128]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) \
custom-call(%all-gather.1), custom_call_target="AsyncCollectiveStart"
}

%second (q: bf16[8,128]) -> bf16[32,128] {
  %q = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(0)
  ROOT %all-gather.2 = bf16[32,128]{1,0:T(8,128)(2,1)} all-gather(%q), channel_id=3, dimensions={0}
}

%body (s: (s32[], bf16[8,128], bf16[32,128])) -> (s32[], bf16[8,128], bf16[32,128]) {
  %s = (s32[]{:T(128)}, bf16[8,128]{1,0}, /*index=2*/bf16[32,128]{1,0}) parameter(0)
  %n = s32[]{:T(128)} get-tuple-element(%s), index=0
  %w = bf16[8,128]{1,0:T(8,128)(2,1)} get-tuple-element(%s), index=1
  %a = (bf16[8,128]{1,0}, bf16[32,128]{1,0}, u32[]{:S(2)}) fusion(%w), kind=kCustom, calls=%first
  %b = bf16[32,128]{1,0} fusion(%w), kind=kCustom, calls=%second, \
backend_config={"window_config":{"estimated_cycles":"100","iteration_bounds":["1"]}}
  %permute = (bf16[8,128]{1,0}, bf16[8,128]{1,0}, u32[]{:S(2)}, u32[]{:S(2)}) \
collective-permute-start(%w), channel_id=9, source_target_pairs={{0,1},{1,0}}
  ROOT %out = (s32[]{:T(128)}, bf16[8,128]{1,0}, bf16[32,128]{1,0}) tuple(%n, %w, %b)
}

%condition (c: (s32[], bf16[8,128], bf16[32,128])) -> pred[] {
  %bound = s32[]{:T(128)} constant(7)
  %c = (s32[]{:T(128)}, bf16[8,128]{1,0}, bf16[32,128]{1,0}) parameter(0)
  %at = s32[]{:T(128)} get-tuple-element(%c), index=0
  ROOT %lt = pred[]{:T(512)} compare(%at, %bound), direction=LT
}

ENTRY %main (g: bf16[32,128], w0: bf16[8,128]) -> bf16[8,128] {
  %g = bf16[32,128]{1,0:T(8,128)(2,1)} parameter(0), sharding={devices=[4,1]<=[4]}
  %w0 = bf16[8,128]{1,0:T(8,128)(2,1)} parameter(1)
  %i = s32[]{:T(128)} constant(0)
  %start = (s32[]{:T(128)}, bf16[8,128]{1,0}, bf16[32,128]{1,0}) tuple(%i, %w0, %g)
  %while.1 = (s32[]{:T(128)}, bf16[8,128]{1,0}, bf16[32,128]{1,0}) while(%start), \
condition=%condition, body=%body, metadata={op_name="jit(f)/while"}
  ROOT %r = bf16[8,128]{1,0:T(8,128)(2,1)S(1)} fusion(%g), kind=kCustom, \
calls=%all-reduce-scatter, backend_config={"window_config":{"estimated_cycles":"20"}}
}
"""


def test_the_text_of_a_tpu_program():
    module = hlo.Module(TPU)
    assert module.entry == "main"
    assert module.collectives() == {
        "all-gather": (7, 7 * 32 * 128 * 2),
        "reduce-scatter": (1, 32 * 128 * 2),
        "collective-permute": (7, 7 * 8 * 128 * 2),
    }
    assert module.cycles() == 7 * 100 + 20
    assert module.unknown == []


def test_a_loop_of_unknown_length_is_told():
    module = hlo.Module(re.sub(r"constant\(7\)", "parameter(1)", TPU))
    assert module.unknown == ["while.1"]
    assert module.collectives()["collective-permute"] == (1, 8 * 128 * 2)


def test_other_texts_are_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        hlo.Module("module @jit_f { func.func public @main() }")

"""The state of a run: one small pytree. Randomness and images seen are functions of `step`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxgen.common import mesh as meshes
from jaxgen.common import rng, sharding, trees
from jaxgen.train.plan import Plan, Player

Tree = Any


@dataclasses.dataclass(frozen=True)
class TrainState:
    """What a checkpoint holds.

    step: () int32, steps done. params: player -> float32 tree. opt: player -> optax state. stats:
    the plan's statistics and controllers. averages: profile -> player -> tree. guard: phase ->
    counts of updates skipped because a gradient was not finite (total, in_a_row, longest).
    """

    step: jax.Array
    params: Mapping[str, Tree]
    opt: Mapping[str, Tree]
    stats: Mapping[str, Any]
    averages: Mapping[str, Mapping[str, Tree]]
    guard: Mapping[str, Mapping[str, jax.Array]]


_FIELDS = [f.name for f in dataclasses.fields(TrainState)]
jax.tree_util.register_dataclass(TrainState, _FIELDS, [])


def optimizer(player: Player) -> optax.GradientTransformationExtraArgs:
    """The player's chain, blind to its `fixed` leaves and accepting `nimg`."""
    chain = optax.with_extra_args_support(player.optimizer)
    if not player.fixed:
        return chain
    return optax.masked(
        chain, lambda tree: jax.tree.map(lambda f: not f, trees.mask(player.fixed, tree))
    )


def init_params(plan: Plan, seed: int) -> dict[str, Tree]:
    """Every player's initial params, projected where the player has a projection."""
    params = {}
    for name, player in plan.players.items():
        drawn = player.init(rng.fold(jax.random.key(seed), "init", name))
        params[name] = jax.jit(player.project)(drawn) if player.project else drawn
    return params


def from_params(plan: Plan, params: Mapping[str, Tree]) -> TrainState:
    """A state at step 0 around given params (traceable)."""
    zero = jnp.zeros((), jnp.int32)
    return TrainState(
        step=zero,
        params=dict(params),
        opt={n: optimizer(p).init(params[n]) for n, p in plan.players.items()},
        stats=jax.tree.map(jnp.asarray, dict(plan.stats)),
        averages={
            a: {n: jax.tree.map(jnp.copy, params[n]) for n in plan.players} for a in plan.averages
        },
        guard={p.name: {"total": zero, "in_a_row": zero, "longest": zero} for p in plan.phases},
    )


def param_shardings(
    plan: Plan, mesh: meshes.AnyMesh, params: Mapping[str, Tree]
) -> dict[str, Tree]:
    """Where the (possibly abstract) params of the players lie: gradients and updates, too.

    Raises:
      ValueError: naming a leaf that no rule matches or that its rule cannot split.
    """
    return {
        n: sharding.shardings(params[n], mesh, (*plan.sharding, *plan.players[n].sharding), f"{n}/")
        for n in params
    }


def frozen_shardings(plan: Plan, mesh: meshes.AnyMesh) -> Tree:
    """Where the plan's frozen trees lie."""
    rules = (*plan.sharding, *sharding.DEFAULT)
    return sharding.shardings(dict(plan.frozen), mesh, rules, "frozen/")


def shardings(plan: Plan, mesh: meshes.AnyMesh, shapes: TrainState) -> TrainState:
    """Where all of a (possibly abstract) state lies; see `param_shardings`."""
    params = param_shardings(plan, mesh, shapes.params)
    return TrainState(
        step=meshes.replicated(mesh),
        params=params,
        opt={
            n: sharding.following(shapes.opt[n], shapes.params[n], params[n], mesh) for n in params
        },
        stats=sharding.by_shape(shapes.stats, mesh),
        averages=dict.fromkeys(shapes.averages, params),
        guard=jax.tree.map(lambda _: meshes.replicated(mesh), shapes.guard),
    )


def abstract(plan: Plan, mesh: meshes.AnyMesh) -> TrainState:
    """ShapeDtypeStructs with shardings: the target of a restore. Costs no memory."""
    shapes = jax.eval_shape(lambda: from_params(plan, init_params(plan, 0)))
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        shapes,
        shardings(plan, mesh, shapes),
    )


def create(plan: Plan, seed: int, mesh: Mesh) -> TrainState:
    """A fresh state on the mesh; the same numbers on any mesh."""
    params = init_params(plan, seed)
    state = lambda p: from_params(plan, p)
    # Of the params that are there: tracing the networks again would take seconds of a start.
    places = shardings(plan, mesh, jax.eval_shape(state, params))
    return jax.jit(state, out_shardings=places)(params)

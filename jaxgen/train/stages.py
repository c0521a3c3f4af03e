"""Stages: networks that grow while they train (arXiv:1710.10196), one plan after another.

A plan has the parameters of its own size. When the next one begins, what has the same name and the
same shape in both is taken over, in params, optimizer states, averages, stats and guards, and the
rest begins afresh. Steps and images go on counting, so schedules are of the whole run. Each stage
is one compilation. A run resumes in the stage that its checkpoint is of.

Optimizers. The paper does not say what happens to Adam's moments when a network grows; here they
are kept, and the authors' program, which begins afresh, is `keep_optimizer=False`. Adam as it comes
counts the steps of all parameters in one number, with which the moments of new ones, zero at first,
would be taken for settled: their first steps would be up to (1 - b2)^-1/2 times too large. So the
optimizer of a player that grows has to be wrapped in `by_leaf`. All stages must have the same kind
of optimizer, or its state has no equal names; learning rates may differ.

Averages. A new parameter's average begins at its initial value at the start of its stage. A
power-function average then is what it is of any other, of a parameter that had this value from
the beginning: at image t, the initial value of one that is new at t_0 has weight
(t_0 / t)^(gamma + 1). Post-hoc averages are made from the snapshots of the last stage only
(train/snapshot.py), since others have other parameters; in this sense they are exact.

The batch is one number for the whole run, where the paper lowers it at large sizes to save memory;
`microbatches` saves memory too, at equal gradients.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import optax

from jaxgen.common import rng, trees
from jaxgen.train import state as states
from jaxgen.train.plan import Plan, Stage
from jaxgen.train.state import TrainState

Carry = Callable[[TrainState, jax.Array], TrainState]


def by_leaf(
    optimizer: optax.GradientTransformation,
) -> optax.GradientTransformationExtraArgs:
    """`optimizer` of every parameter by itself, so that each counts its own steps.

    For those that treat parameters apart anyway, such as Adam: it changes no number of them.
    """
    one = optax.with_extra_args_support(optimizer)

    def init(params: Any) -> Any:
        return jax.tree.map(one.init, params)

    def update(updates: Any, state: Any, params: Any, **extra: Any) -> tuple[Any, Any]:
        structure = jax.tree.structure(updates)
        parts = zip(*(structure.flatten_up_to(t) for t in (updates, state, params)))
        new = [one.update(u, s, p, **extra) for u, s, p in parts]
        return tuple(structure.unflatten(part) for part in zip(*new))

    return optax.GradientTransformationExtraArgs(init, update)


def carry(plan: Plan, *, keep_optimizer: bool = True) -> Carry:
    """The function that enters `plan` from the state of another: `(old_state, key) -> new_state`.

    Args:
      plan: of the stage that begins. keep_optimizer: False for fresh optimizer states.
    Returns:
      A function for `Stage.carry`. It raises ValueError when a player that both plans have shares
      no parameter with its old self.
    """

    def enter(old: TrainState, key: jax.Array) -> TrainState:
        mesh = old.step.sharding.mesh
        params = {}
        for name, player in plan.players.items():
            drawn = player.init(rng.fold(key, "init", name))
            params[name] = jax.jit(player.project)(drawn) if player.project else drawn
        shardings = jax.tree.map(lambda x: x.sharding, states.abstract(plan, mesh))
        fresh = jax.jit(lambda p: states.from_params(plan, p), out_shardings=shardings)(params)
        # Equal shapes have equal shardings, so what is taken over is in its place.
        kept = trees.leaves(old if keep_optimizer else dataclasses.replace(old, opt={}))
        same = lambda n, x: n in kept and (kept[n].shape, kept[n].dtype) == (x.shape, x.dtype)
        ours = trees.leaves(fresh)
        taken = {n: kept[n] for n, x in ours.items() if same(n, x)}
        for player in sorted(set(old.params) & set(plan.players)):
            of = lambda names: sorted(n for n in names if n.startswith(f"params/{player}/"))  # noqa: B023
            if not of(taken):
                raise ValueError(
                    f"no parameter of {player!r} has the name and shape that it had in the stage "
                    f"before: now {of(ours)[:4]}, then {of(kept)[:4]}"
                )
        return trees.map_named(lambda n, x: taken.get(n, x), fresh)

    return enter


def grow(
    plans: Sequence[Plan], until: Sequence[int], *, keep_optimizer: bool = True
) -> list[Stage]:
    """The stages of a run that grows through `plans`.

    Args:
      plans: in order. until: images seen at which each ends, rising. keep_optimizer: see `carry`.
    Raises:
      ValueError: for other lengths or an order that does not rise.
    """
    if len(plans) != len(until) or not plans or list(until) != sorted(set(until)):
        raise ValueError(
            f"grow expects as many ends as plans, in rising order; got {len(plans)} plans and "
            f"{list(until)}"
        )
    enter = [None, *(carry(p, keep_optimizer=keep_optimizer) for p in plans[1:])]
    return [Stage(*each) for each in zip(plans, until, enter)]

"""A plan is all that a run is: named players, phases that train them, what is averaged and sampled.

    loss(params, batch, key, context) -> (per_example (b,), Aux(metrics, stats, fixed))

is pure. `params` holds every player by name; the step differentiates only those the phase trains.
`batch` is a dict of arrays with leading axis b (the pipeline's `image`, `label`, `index`; empty but
for `index` when a plan has no data). `key` is (b,): one typed key an image, folded with the image's
place in the global batch, so results depend neither on the mesh nor on microbatches. What is drawn
once a batch comes from `context.key`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import optax

from jaxgen.common import trees
from jaxgen.common.sharding import DEFAULT, Rules

Tree = Any
Batch = Mapping[str, jax.Array]


class Aux(NamedTuple):
    """What a loss reports besides its value.

    metrics: name -> array (b,) or (); means are logged as `<phase>/<name>`.
    stats: name -> new value of an entry of the plan's `stats` (entries left out stay).
    fixed: player -> new values of leaves that its `Player.fixed` names, a part of its tree: the
    collection "tracked" of a network's `apply`. For players that the phase trains; put in their
    places after the update. Of microbatches, the mean.
    """

    metrics: Mapping[str, jax.Array] = {}
    stats: Mapping[str, Any] = {}
    fixed: Mapping[str, Tree] = {}


@dataclasses.dataclass(frozen=True)
class Context:
    """What a loss reads and does not train.

    step: () int32, steps done before this one. nimg: () float32, images seen before this step.
    key: one typed key for the whole batch. stats: the plan's statistics. frozen: teacher or feature
    weights. averages: profile -> player -> averaged params (an EMA teacher is a read of these).
    """

    step: jax.Array
    nimg: jax.Array
    key: jax.Array
    stats: Mapping[str, Any]
    frozen: Mapping[str, Tree]
    averages: Mapping[str, Mapping[str, Tree]]


jax.tree_util.register_dataclass(
    Context, ["step", "nimg", "key", "stats", "frozen", "averages"], []
)

Loss = Callable[[Mapping[str, Tree], Batch, jax.Array, Context], tuple[jax.Array, Aux]]


@dataclasses.dataclass(frozen=True)
class Player:
    """One trained network.

    init: `key -> params`. optimizer: any optax chain; its update is given `nimg` (images seen
    before the step) as an extra argument. project: a map applied to the params after each of its
    updates (EDM2's forced weight normalisation). fixed: regexes of leaves that are neither trained
    nor averaged: random Fourier features, and tracked statistics, which a loss sets by `Aux.fixed`.
    They are copied to the averages. sharding: ordered rules for where its leaves lie on a mesh, by
    regexes over "player/leaf" (common/sharding.py); optimizer, averages and gradients follow.
    """

    init: Callable[[jax.Array], Tree]
    optimizer: optax.GradientTransformation
    project: Callable[[Tree], Tree] | None = None
    fixed: tuple[str, ...] = ()
    sharding: Rules = DEFAULT


@dataclasses.dataclass(frozen=True)
class Phase:
    """One gradient update on steps 0, every, 2 every, ...; a lazy regulariser has every=16."""

    name: str
    trains: tuple[str, ...]
    loss: Loss
    every: int = 1


@dataclasses.dataclass(frozen=True)
class Sample:
    """How a plan makes images from averaged params.

    fn(params, keys (n,), batch, frozen, **options) -> {"image": (n, h, w, c) in [-1, 1], ...}:
    other entries (a restorer's "input" and "target", say) are shown beside it. `batch` holds the
    entries of `needs`: "label" (n, k) one-hot or condition vectors, "image" (n, h, w, c) uint8 of
    held-out data. players: those whose averages fn reads. options: name -> default value of the
    keyword arguments.
    """

    fn: Callable[..., Mapping[str, jax.Array]]
    players: tuple[str, ...]
    needs: tuple[str, ...] = ()
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Export:
    """A function of a plan's weights that other runs may use: a guide's denoiser, a classifier.

    fn(params, frozen) -> the function. players: those whose averages fn reads.
    """

    fn: Callable[[Mapping[str, Tree], Mapping[str, Tree]], Callable[..., Any]]
    players: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class HostController:
    """Between steps, every `every` images: `fn(state, nimg) -> state`, free to look at data.

    For what cannot be inside a compiled step: periodic clustering, a curriculum.
    """

    every: int
    fn: Callable[[Any, int], Any]


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything a run needs, by name.

    players: name -> Player. phases: in the order they are done within a step. frozen: name -> tree
    passed to the step as an argument. stats: name -> initial value of arrays that losses and
    controllers carry from step to step (path-length mean, ADA's p). controllers: pure
    `(stats, metrics) -> stats`, done in the step after the phases. averages: profile name -> an
    averaging.ema or averaging.power tracker. sample: see Sample. exports: name -> Export, by the
    names "denoise" (x, sigma, cond) -> x0, "log_prob" (x, sigma, cond) -> (b,) and "generator", a
    samplers.styles.Generator. evals: names of the metrics that suit this plan. host_controllers:
    see HostController. sharding: rules in front of every player's, and of the default ones for
    frozen trees, "frozen/name/leaf".
    """

    players: Mapping[str, Player]
    phases: Sequence[Phase]
    frozen: Mapping[str, Tree] = dataclasses.field(default_factory=dict)
    stats: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    controllers: Sequence[Callable[[Mapping, Mapping], Mapping]] = ()
    averages: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sample: Sample | None = None
    exports: Mapping[str, Export] = dataclasses.field(default_factory=dict)
    evals: tuple[str, ...] = ()
    host_controllers: Sequence[HostController] = ()
    sharding: Rules = ()

    def __post_init__(self):
        names = [p.name for p in self.phases]
        if len(set(names)) != len(names):
            raise ValueError(f"phase names must differ, got {names}")
        if not self.phases:
            raise ValueError("a plan needs at least one phase")
        for phase in self.phases:
            unknown = sorted(set(phase.trains) - set(self.players))
            if unknown or not phase.trains:
                raise ValueError(
                    f"phase {phase.name!r} trains {list(phase.trains)}, but the players are "
                    f"{sorted(self.players)}"
                )
            if phase.every < 1:
                raise ValueError(f"phase {phase.name!r}: every must be >= 1, got {phase.every}")

    def fixed_mask(self, player: str, params: Tree) -> Tree:
        """True on the leaves of `player` that are neither trained nor averaged."""
        return trees.mask(self.players[player].fixed, params)


@dataclasses.dataclass(frozen=True)
class Stage:
    """Part of a run: a plan, the image count at which it ends, and how the state enters it.

    carry(old_state, key) -> new_state; None for the first stage, which initialises the plan.
    """

    plan: Plan
    until: int
    carry: Callable[[Any, jax.Array], Any] | None = None

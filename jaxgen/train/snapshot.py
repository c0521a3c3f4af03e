"""Snapshots: averaged weights at fixed image counts, from which any EMA length is rebuilt later.

They live in their own folder, are small, and are never deleted by the policy that prunes
checkpoints. One item a player and profile, so that a reader loads only what it needs.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxgen.averaging import posthoc
from jaxgen.averaging.power import Power
from jaxgen.train.plan import Plan
from jaxgen.train.state import TrainState
from jaxgen.train.store import DamagedError, Store

Tree = Any


class Average(NamedTuple):
    """Averaged weights: params by player, and in words which average they are."""

    params: dict[str, Tree]
    facts: dict[str, Any]

    def __str__(self) -> str:
        return self.facts["average"]


def _item(player: str, profile: str) -> str:
    return f"{player}.{profile}"


# In one program: array by array the loop would wait 20 ms for digits, and compile for 1.5 s.
_as_type = jax.jit(lambda xs, dtype: [x.astype(dtype) for x in xs], static_argnums=1)


def _cast(plan: Plan, items: Mapping[str, Tree], dtype: str) -> dict[str, Tree]:
    """Trained floats to `dtype`; fixed leaves (random frequencies) keep float32."""
    leaves, structure = jax.tree.flatten(dict(items))
    fixed = jax.tree.leaves({k: plan.fixed_mask(k.split(".")[0], t) for k, t in items.items()})
    wide = [i for i, x in enumerate(leaves) if not (fixed[i] or x.dtype == dtype)]
    for i, x in zip(wide, _as_type([leaves[i] for i in wide], dtype) if wide else []):
        leaves[i] = x
    return jax.tree.unflatten(structure, leaves)


def save(
    store: Store, plan: Plan, state: TrainState, nimg: int, dtype: str, meta: Mapping
) -> float:
    """Starts saving all tracked averages in float32 or float16; returns the seconds held up."""
    start = time.perf_counter()
    items = {
        _item(player, profile): tree
        for profile, players in state.averages.items()
        for player, tree in players.items()
    }
    lengths = {n: t.sigma_rel for n, t in plan.averages.items() if isinstance(t, Power)}
    store.save(
        nimg,
        _cast(plan, items, dtype),
        {**meta, "nimg": nimg, "sigma_rel": lengths, "dtype": dtype},
    )
    return time.perf_counter() - start


def load(
    store: Store,
    plan: Plan,
    target: Mapping[str, Tree],
    average: float | str,
    nimg: int | None = None,
) -> Average:
    """An average of the players in `target`, tracked or rebuilt from all snapshots up to `nimg`.

    Args:
      store: the snapshot folder. plan: names the tracked averages.
      target: player -> float32 structs with shardings.
      average: a power-function length (sigma_rel) such as 0.1, or a tracked profile's name.
      nimg: the image count at which the average ends; None takes the newest snapshot.
    Raises:
      ValueError: unknown profile, unreachable length, no or too few snapshots, unknown nimg.
    """
    numbers = store.numbers()
    if not numbers:
        raise ValueError(
            f"no snapshots in {store.folder}; train first, or set --config.snapshot_every to less "
            "than --config.images"
        )
    if nimg is not None and nimg not in numbers:
        raise ValueError(f"no snapshot at {nimg} images; there are {numbers}")
    usable = [n for n in numbers if nimg is None or n <= nimg]
    while usable:
        try:
            return _load_at(store, plan, target, average, usable)
        except DamagedSnapshot as e:
            store.log(f"damaged snapshot: {e}; going on without it")
            usable.remove(e.number)
            if e.number == nimg:
                break
    raise ValueError(f"no undamaged snapshot is left in {store.folder} to make this average")


class DamagedSnapshot(ValueError):
    """A snapshot that failed its checksums."""

    def __init__(self, number: int, text: str):
        super().__init__(text)
        self.number = number


def _load_at(
    store: Store, plan: Plan, target: Mapping, average: float | str, numbers: list[int]
) -> Average:
    def intact(number: int, f: Callable[..., Any], *args: Any) -> Any:
        try:
            return f(number, *args)
        except DamagedError as e:
            raise DamagedSnapshot(number, str(e)) from e

    def read(number: int, player: str, profile: str) -> Tree:
        return intact(number, store.restore, _item(player, profile), target[player])

    end = max(numbers)
    metas = {n: intact(n, store.meta) for n in numbers}
    # A run of growing stages has snapshots of other shapes, which say nothing about these weights.
    metas = {n: m for n, m in metas.items() if m["arrays"] == metas[end]["arrays"]}
    tracked = sorted({a.split(".", 1)[1] for a in metas[end]["arrays"]})
    power_name = lambda s: f"power_{s:.3f}"  # also of lengths that no power function can have
    name = average if isinstance(average, str) else power_name(average)
    if name in tracked:
        params = {p: read(end, p, name) for p in target}
        facts = {"average": f"{name} at {end} images (tracked)", "profile": name, "nimg": end}
        return Average(params, {**facts, "sigma_rel": metas[end]["sigma_rel"].get(name)})
    if isinstance(average, str):
        raise ValueError(
            f"no average {average!r}; tracked are {tracked}; a number such as 0.07 asks for a "
            "power-function average of that length"
        )
    entries = [(n, p, s) for n, m in metas.items() for p, s in m["sigma_rel"].items()]
    times, lengths = [e[0] for e in entries], [e[2] for e in entries]
    solution = posthoc.check_length(times, lengths, end, average)
    params = {
        player: posthoc.reconstruct(
            lambda i, player=player: read(entries[i][0], player, entries[i][1]),
            solution.coefficients,
        )
        for player in target
    }
    params = {p: _restore_fixed(plan, p, params[p], read(end, p, entries[-1][1])) for p in params}
    facts = {
        "average": f"{name} at {end} images (post-hoc from {len(metas)} snapshots, profile error "
        f"{solution.error:.1e})",
        "profile": name,
        "nimg": end,
        "sigma_rel": average,
        "snapshots": len(metas),
        "profile_error": solution.error,
    }
    return Average(params, facts)


def _restore_fixed(plan: Plan, player: str, tree: Tree, source: Tree) -> Tree:
    """Fixed leaves copied, not summed: coefficients add to 1 only up to rounding."""
    fixed = plan.fixed_mask(player, tree)
    return jax.tree.map(lambda x, y, f: jnp.asarray(y) if f else x, tree, source, fixed)

"""What the recipes of score networks share: conditions, sampling with any solver, exports."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxgen.noise import precondition
from jaxgen.noise.precondition import Denoise, Family
from jaxgen.samplers import drive, grids, solvers
from jaxgen.samplers.steps import Solver
from jaxgen.train.plan import Export, Sample


def plain(v: Any) -> Any:
    """Lists of a config as tuples, which a linen module needs."""
    return tuple(v) if isinstance(v, (list, tuple)) else v


def label_dim(facts: Mapping[str, Any]) -> int:
    """Width of the labels, 0 for none."""
    return facts["label_dim"] if facts["label_kind"] != "none" else 0


# Neutral values of the options that only some solvers have.
NEUTRAL = {"S_churn": 0.0, "S_min": 0.0, "S_max": 1e9, "S_noise": 1.0, "eta": 0.0}


def scheme(o: Mapping[str, Any], family: Family) -> tuple[np.ndarray, Solver]:
    """The levels and the solver of sampler options `o`.

    Raises:
      ValueError: unknown names, levels that the network does not support, an option that the solver
        does not have (unless it has its neutral value).
    """
    if o["grid"] not in grids.GRIDS:
        raise ValueError(f"sampler.grid must be one of {list(grids.GRIDS)}, got {o['grid']!r}")
    rho = {"rho": o["rho"]} if o["grid"] == "edm" else {}
    levels = grids.GRIDS[o["grid"]](o["steps"], o["sigma_min"], o["sigma_max"], **rho)
    levels = grids.rounded(levels, family.round_sigma)
    precondition.check_levels(levels[:-1], family)
    given = {k: v for k, v in o.items() if k in NEUTRAL and v != NEUTRAL[k]}
    if o["solver"] in ("edm", "generalized"):  # churn raises levels
        given["round_sigma"] = family.round_sigma
    solver = solvers.make(o["solver"], **given)
    solver(levels)  # some settings are wrong for some numbers of steps
    return levels, solver


def sampling(
    config: ml_collections.ConfigDict,
    facts: Mapping[str, Any],
    shape: tuple[int, ...],
    denoiser: Callable[[Any], Denoise],
    family: Family,
    player: str = "network",
) -> dict[str, Any]:
    """The `sample` and `exports` of a plan.

    The sample function takes the options of `config.sampler`, and `wrap`, a map of its denoiser
    such as a guidance. A network without labels is not told of labels that the guide asks for.

    Args:
      denoiser: params of `player` -> Denoise. family: its preconditioning. shape: (h, w, c).
    """
    labels = label_dim(facts)

    def of(params: Mapping[str, Any]) -> Denoise:
        denoise = denoiser(params[player])
        return denoise if labels else lambda x, sigma, cond=None: denoise(x, sigma, None)

    def sample(
        params: Mapping[str, Any],
        keys: jax.Array,
        batch: Mapping[str, jax.Array],
        frozen: Mapping[str, Any],
        *,
        wrap: Callable[[Denoise], Denoise] | None = None,
        **options: Any,
    ) -> dict[str, jax.Array]:
        del frozen
        denoise = wrap(of(params)) if wrap else of(params)
        levels, solver = scheme({**config.sampler, **options}, family)
        cond = {"label": batch["label"]} if "label" in batch else None
        return {"image": drive.sample(solver, denoise, keys, shape, levels, cond)}

    scheme(config.sampler, family)  # a bad setting is found before training
    return {
        "sample": Sample(
            sample,
            players=(player,),
            needs=("label",) if labels else (),
            options=dict(config.sampler),
        ),
        "exports": {"denoise": Export(lambda params, frozen: of(params), (player,))},
    }

"""Recipes: a configuration becomes a plan. The only readers of ConfigDict."""

import dataclasses
import difflib
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import Any

SHARED = (
    "common",
    "denoise_methods",
    "denoise_setup",
    "gan_losses",
    "gan_networks",
    "gan_sampling",
    "score",
)  # modules beside the recipes
REPLACED = {"noise2noise": "denoise", "stylegan2": "gan"}  # former names


def names() -> list[str]:
    """The families that have a recipe."""
    found = (m.name for m in pkgutil.iter_modules(__path__))
    return sorted(n for n in found if n not in SHARED)


def build(config: Any, facts: Mapping[str, Any]) -> Any:
    """The Plan of `config.recipe` for data with these facts.

    Raises:
      ValueError: for an unknown recipe, with the nearest name, or one that another replaced.
    """
    if config.recipe in REPLACED:
        new = REPLACED[config.recipe]
        raise ValueError(
            f"the recipe {config.recipe!r} is now {new!r}, whose configs have other keys: a run of "
            f"the former cannot be read, train it again from a config of configs/"
        )
    if config.recipe not in names():
        near = difflib.get_close_matches(config.recipe, names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"config.recipe is {config.recipe!r}, known are {names()}{hint}")
    built = importlib.import_module(f"jaxgen.recipes.{config.recipe}").build(config, facts)
    rules = tuple(config.mesh.get("rules", ())) if "mesh" in config else ()
    if not rules:
        return built
    if not isinstance(built, Sequence):
        return dataclasses.replace(built, sharding=rules)
    return [
        dataclasses.replace(stage, plan=dataclasses.replace(stage.plan, sharding=rules))
        for stage in built
    ]

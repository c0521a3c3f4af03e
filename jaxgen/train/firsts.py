"""The losses of a run's first steps, one by one, so that a repetition can be compared."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax

from jaxgen.train import store

COUNT = 20  # steps that are recorded


class FirstSteps:
    """Keeps every `<phase>/loss` of steps 0..count-1 in first_steps.json; called after each step.

    A run that is resumed among them goes on with the record if it is as it was, and else leaves the
    record as it is: all steps in it were made in one way.

    Args:
      workdir: the run's folder. started: JSON that tells how these steps are made: config, mesh,
        versions. batch: images a step. count: each of them is waited for, so they are few.
    """

    def __init__(
        self, workdir: str | Path, started: Mapping[str, Any], batch: int, count: int = COUNT
    ):
        self.path = Path(workdir) / "first_steps.json"
        self.batch, self.count = batch, count
        self._started = json.loads(json.dumps(started))
        self._steps: list[dict[str, Any]] | None = None

    def __call__(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
        """Writes the losses of `step`, if it is one of the first."""
        if step >= self.count:
            return
        if self._steps is None:
            before = read(self.path) if step else {}
            same = before.get("started") == self._started
            self._steps = before["steps"][:step] if same else []
        if len(self._steps) != step:
            return
        values = jax.device_get(losses(metrics))
        numbers = {n: float(x) if math.isfinite(x) else None for n, x in values.items()}
        self._steps.append({"step": step, "nimg": (step + 1) * self.batch, **numbers})
        store.write_json(self.path, {"started": self._started, "steps": self._steps})


def losses(record: Mapping[str, Any]) -> dict[str, Any]:
    """The losses of the phases, of all metrics."""
    return {name: value for name, value in record.items() if name.endswith("/loss")}


def read(path: str | Path) -> dict[str, Any]:
    """{"started", "steps": a list of {"step", "nimg", "<phase>/loss": number or None}}, or {}.

    {} of a damaged file, too: nothing but the comparison is lost.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text()) if path.is_file() else {}
    except (ValueError, RecursionError):
        return {}
    whole = isinstance(found, dict) and are_steps(found.get("steps"))
    return found if whole and isinstance(found.get("started"), dict) else {}


def are_steps(steps: Any) -> bool:
    """Whether it is a list of steps as `read` gives."""

    def is_number(x: Any) -> bool:
        return x is None or (isinstance(x, int | float) and abs(x) < 1e300)

    return isinstance(steps, list) and all(
        isinstance(step, dict)
        and type(step.get("step")) is int
        and all(is_number(x) for x in losses(step).values())
        for step in steps
    )


def compare(
    recorded: list[Mapping[str, Any]], repeated: list[Mapping[str, Any]], tolerance: float
) -> tuple[list[tuple[int, str, Any, Any]], list[tuple[int, str, Any, Any]]]:
    """(all, differing) rows (step, name, recorded, repeated) of two lists of steps.

    tolerance: the difference that is allowed, as a part of the largest value that was recorded of
    that loss; 0 asks for the same bits.
    """
    rows = [
        (a["step"], name, a[name], b.get(name))
        for a, b in zip(recorded, repeated)
        for name in losses(a)
    ]
    scale: dict[str, float] = {}
    for _, name, value, _ in rows:
        scale[name] = max(scale.get(name, 0.0), abs(value or 0.0))

    def differs(row: tuple[int, str, Any, Any]) -> bool:
        _, name, a, b = row
        if a is None or b is None:
            return a is not b
        return abs(a - b) > tolerance * scale[name]

    return rows, [row for row in rows if differs(row)]

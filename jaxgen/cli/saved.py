"""A run's config.json: what `jaxgen train` and `jaxgen import` were asked for."""

import json
from pathlib import Path
from typing import Any

PARTS = ("config", "facts", "command")  # objects that it holds


def as_tuples(value: Any) -> Any:
    """JSON with tuples in place of lists, as configs have them."""
    if isinstance(value, dict):
        return {k: as_tuples(v) for k, v in value.items()}
    return tuple(map(as_tuples, value)) if isinstance(value, list) else value


def read_saved(workdir: str | Path) -> dict[str, Any] | None:
    """The run's config.json: {"config", "facts", "command", ...}, or None.

    Raises:
      ValueError: damaged; names the file.
    """
    path = Path(workdir) / "config.json"
    if not path.is_file():
        return None
    try:
        saved = as_tuples(json.loads(path.read_text()))
    except (ValueError, RecursionError) as e:
        raise ValueError(f"{path} is damaged: {e}") from e
    kinds = {k: type(saved.get(k)) if isinstance(saved, dict) else None for k in PARTS}
    if set(kinds.values()) != {dict}:
        raise ValueError(f"{path} is no config of a run: it has no objects {', '.join(PARTS)}")
    return saved

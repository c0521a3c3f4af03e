"""Checksums of an entry of a store: the sha256 of every file, and what differs from them."""

import hashlib
import json
from pathlib import Path

# At the top of an entry, written together with the rename: what they say is not relied upon.
_COMMIT = {"_CHECKPOINT_METADATA", "commit_success.txt"}


def take(entry: Path) -> dict[str, dict[str, str]]:
    """{"sha256": {file, relative to the entry: 64 hex digits}}."""
    return {"sha256": {name: _sha256(entry / name) for name in _files(entry)}}


def differences(entry: Path, path: Path, item: str | None = None) -> list[str]:
    """What is wrong with an entry (or one item of it): an empty list when all sums agree.

    Args:
      entry: the folder. path: a JSON file of what `take` gave. item: a folder in the entry.
    """
    if not path.is_file():
        return [f"{path} is missing, so {entry} cannot be checked"]
    try:
        sums = dict(json.loads(path.read_text())["sha256"].items())
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return [f"{path} is not readable"]
    found = []
    for name, want in sums.items():
        parts = Path(name).parts
        if not parts or ".." in parts or Path(name).is_absolute():
            found.append(f"{path} names {name[:80]!r}, which is not in {entry}")
        elif item is not None and parts[0] != item:
            continue
        elif not (entry / name).is_file():
            found.append(f"{entry / name} is missing")
        elif _sha256(entry / name) != want:
            found.append(f"{entry / name} differs from its checksum")
    unknown = [n for n in _files(entry) if n not in sums and item in (None, Path(n).parts[0])]
    return found + [f"{entry / n} has no checksum" for n in unknown]


def _sha256(path: Path) -> str:
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _files(entry: Path) -> list[str]:
    found = (p for p in entry.rglob("*") if p.is_file())
    kept = (p for p in found if not (p.parent == entry and p.name in _COMMIT))
    return sorted(str(p.relative_to(entry)) for p in kept)

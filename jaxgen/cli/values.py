"""Values of flags in words: classes, options, names with settings, lists of numbers."""

from collections.abc import Mapping, Sequence
from typing import Any


def parse_classes(text: str | None, label_dim: int) -> list[int]:
    """Class numbers from "0-9" or "1,3,5-7"; all of them for None.

    Raises:
      ValueError: not of that form, or not below `label_dim`.
    """
    if not text:
        return list(range(label_dim))
    found: list[int] = []
    for part in text.split(","):
        low, dash, high = part.partition("-")
        if not low.isdigit() or (dash and not high.isdigit()):
            raise ValueError(f"--classes must look like 0-9 or 1,3,5-7, got {text!r}")
        found += range(int(low), int(high or low) + 1)
    wrong = [c for c in found if c >= label_dim]
    if wrong:
        raise ValueError(f"--classes: {wrong} are not below the {label_dim} classes of this run")
    return found


def parse_options(pairs: Sequence[str], known: Mapping[str, Any]) -> dict[str, Any]:
    """NAME=VALUE pairs with the types of the plan's defaults.

    Raises:
      ValueError: an unknown name, or a value of another type.
    """
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or name not in known:
            raise ValueError(f"--option {pair}: this run's sampler has {dict(known)}")
        try:
            found[name] = type(known[name])(value)
        except ValueError as e:
            raise ValueError(f"--option {pair}: {name} takes a {type(known[name]).__name__}") from e
    return found


def parse_named(flag: str, text: str) -> tuple[str, dict[str, Any]]:
    """("blur", {"std": 2}) of "blur,std=2"; numbers are numbers, the rest are words.

    Raises:
      ValueError: not of that form.
    """
    name, *pairs = text.split(",")
    found: dict[str, Any] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not (equals and key and value):
            raise ValueError(f"{flag} is NAME,KEY=VALUE,KEY=VALUE, got {pair!r} in {text!r}")
        found[key] = value
        for kind in (float, int):  # what is an integer becomes one
            try:
                found[key] = kind(value)
            except ValueError:
                break
    return name, found


def parse_numbers(text: str) -> list[float]:
    """Numbers from "0.05,0.1" or "0.02:0.2:8" (8 values, evenly spaced, ends included).

    Raises:
      ValueError: not of these forms.
    """
    try:
        if ":" in text:
            low, high, n = text.split(":")
            step = (float(high) - float(low)) / max(int(n) - 1, 1)
            return [round(float(low) + i * step, 6) for i in range(int(n))]
        return [float(v) for v in text.split(",")]
    except ValueError as e:
        raise ValueError(f"expected numbers like 0.05,0.1 or first:last:count, got {text!r}") from e
